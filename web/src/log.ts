// The last events of a thread exactly as they came, for whoever builds on it.

import type { Publication } from './events.ts';

const KEPT = 1_000; // A run of some minutes; what a person can look through.

export interface Entry {
  /** Counts all that ever came, so that it stays when older ones go. */
  readonly number: number;
  readonly at: Date;
  /** Null where the thread began anew with a prelude. */
  readonly publication: Publication | null;
}

export class EventLog {
  private entries: Entry[] = [];
  private count = 0;

  /** The newest last. */
  get all(): readonly Entry[] {
    return this.entries;
  }

  get total(): number {
    return this.count;
  }

  add(publication: Publication | null): void {
    this.count += 1;
    this.entries.push({ number: this.count, at: new Date(), publication });
    if (this.entries.length > KEPT * 2) {
      this.entries = this.entries.slice(-KEPT);
    }
  }
}
