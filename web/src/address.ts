// The open thread in the address of a page, where the page leaves that to the chat.

export function hashOf(id: string | null): string {
  return id === null ? '#' : `#thread=${encodeURIComponent(id)}`;
}

export function idOf(hash: string): string | null {
  const found = /^#thread=(.+)$/.exec(hash)?.[1];
  try {
    return found === undefined ? null : decodeURIComponent(found);
  } catch {
    return null;
  }
}
