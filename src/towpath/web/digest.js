// The digest of a text, by which the page proves that it shows what was said:
// FNV-1a, 32 bit, over the UTF-8 bytes, as 8 hex digits.

const OFFSET_BASIS = 0x811c9dc5;
const PRIME = 0x01000193;

export function digest(text) {
  let state = OFFSET_BASIS;
  for (const byte of new TextEncoder().encode(text)) {
    state = Math.imul(state ^ byte, PRIME);
  }
  return (state >>> 0).toString(16).padStart(8, '0');
}
