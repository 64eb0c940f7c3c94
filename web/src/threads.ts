// The list of a person's threads, the latest first, as far as it has been asked for.

export interface ThreadRow {
  readonly id: string;
  readonly title: string;
  readonly updated_at: number;
  readonly active_run: string | null;
}

export type AskThreads = (parameters: { limit: number; before?: number }) => Promise<{
  readonly threads: readonly ThreadRow[];
}>;

const PAGE = 50;

export class ThreadList {
  /** Whether there may be older ones than those that are here. */
  more = false;
  /** Whether the list has come at least once. */
  loaded = false;
  private readonly byId = new Map<string, ThreadRow>();
  private asked = 0;

  constructor(private readonly ask: AskThreads) {}

  get rows(): ThreadRow[] {
    return [...this.byId.values()].sort((a, b) => b.updated_at - a.updated_at);
  }

  /** Return the rows whose title holds all the words. */
  search(words: string): ThreadRow[] {
    const wanted = words.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    return this.rows.filter((row) => {
      const title = titleOf(row).toLocaleLowerCase();
      return wanted.every((word) => title.includes(word));
    });
  }

  has(id: string): boolean {
    return this.byId.has(id);
  }

  title(id: string): string {
    const row = this.byId.get(id);
    return row ? titleOf(row) : '';
  }

  /** Ask for the newest page; what is older than it stays as it was. */
  async load(): Promise<void> {
    const turn = (this.asked += 1);
    const { threads } = await this.ask({ limit: PAGE });
    if (turn !== this.asked) {
      return;
    }
    const oldest = threads.length < PAGE ? -Infinity : (threads[PAGE - 1]?.updated_at ?? -Infinity);
    for (const row of this.byId.values()) {
      if (row.updated_at >= oldest) {
        this.byId.delete(row.id);
      }
    }
    this.add(threads);
    if (this.byId.size === threads.length) {
      this.more = threads.length === PAGE;
    }
    this.loaded = true;
  }

  async loadOlder(): Promise<void> {
    const before = Math.min(...this.rows.map((row) => row.updated_at));
    const { threads } = await this.ask({ limit: PAGE, before });
    this.more = threads.length === PAGE;
    this.add(threads);
  }

  remove(id: string): void {
    this.byId.delete(id);
  }

  private add(threads: readonly ThreadRow[]): void {
    threads.forEach((row) => this.byId.set(row.id, row));
  }
}

export function titleOf(row: ThreadRow): string {
  return row.title || 'Untitled';
}

/** Return rows under the days a person thinks in, the latest first. */
export function byDay(rows: readonly ThreadRow[], now: Date): [string, ThreadRow[]][] {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime() / 1000;
  const day = 24 * 3600;
  const groups = new Map<string, ThreadRow[]>();
  for (const row of rows) {
    const since = midnight - row.updated_at;
    const name = since <= 0 ? 'Today' : since <= day ? 'Yesterday' : since <= 7 * day ? 'This week' : 'Earlier';
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  return [...groups];
}
