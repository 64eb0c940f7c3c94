// The digest of a text, by which the page proves that it shows what was said:
// FNV-1a, 32 bit, over the UTF-8 bytes, as 8 hex digits.

const OFFSET_BASIS = 0x811c9dc5;
const PRIME = 0x01000193;
const encoder = new TextEncoder();

export function digest(text: string): string {
  let state = OFFSET_BASIS;
  for (const byte of encoder.encode(text)) {
    state = Math.imul(state ^ byte, PRIME);
  }
  return (state >>> 0).toString(16).padStart(8, '0');
}

/** Return the digests by message that the ending of a run carries. */
export function digestsOf(tag: string | undefined): Map<string, string> {
  const pairs = (tag ?? '').split(' ').filter(Boolean);
  return new Map(pairs.map((pair) => {
    const cut = pair.lastIndexOf(':');
    return [pair.slice(0, cut), pair.slice(cut + 1)];
  }));
}
