// The digest of a text, by which the page proves that it shows what was said:
// CRC-32 (IEEE) over the UTF-8 bytes, as 8 hex digits.

const POLYNOMIAL = 0xedb88320;
/** The CRC of each byte, so that a text takes one step per byte. */
const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let state = byte;
  for (let bit = 0; bit < 8; bit++) state = (state >>> 1) ^ (state & 1 ? POLYNOMIAL : 0);
  return state;
});
const encoder = new TextEncoder();

export function digest(text: string): string {
  let state = -1;
  for (const byte of encoder.encode(text)) {
    state = (state >>> 8) ^ TABLE[(state ^ byte) & 0xff]!;
  }
  return (~state >>> 0).toString(16).padStart(8, '0');
}

/** Return the digests by message that the ending of a run carries. */
export function digestsOf(tag: string | undefined): Map<string, string> {
  const pairs = (tag ?? '').split(' ').filter(Boolean);
  return new Map(pairs.map((pair) => {
    const cut = pair.lastIndexOf(':');
    return [pair.slice(0, cut), pair.slice(cut + 1)];
  }));
}
