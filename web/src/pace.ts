// When to try again: full jitter over a doubling bound, so that people who were cut off together
// do not come back together, and nobody comes back in a tight loop.

const FIRST = 500; // Milliseconds.
const LONGEST = 20_000;

export class Pace {
  private attempts = 0;

  constructor(private readonly random: () => number = Math.random) {}

  /** Return the milliseconds until the next attempt. */
  next(): number {
    const bound = Math.min(LONGEST, FIRST * 2 ** this.attempts);
    this.attempts = Math.min(this.attempts + 1, 16);
    return Math.min(LONGEST, FIRST + this.random() * bound);
  }

  /** Begin anew: an attempt succeeded. */
  reset(): void {
    this.attempts = 0;
  }
}
