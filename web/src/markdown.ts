// Markdown, block by block, while it is still being written.
//
// How to think about it
// =====================
//
// A text only ever grows at its end. Of the blocks that a prefix of it consists of, all but the last
// are settled: nothing that may follow changes them. So a settled block is turned into HTML once, and
// only the last one again and again until something stands behind it. A long text that is there at
// once is taken in pieces, because whoever draws has a frame to keep.
//
// One thing in Markdown reaches back: `[name]: address` gives links above it their target. When a
// text is complete and has such definitions, it is done once more from the start.
//
// HTML in the text is shown as it was written, never used. What comes out is sanitised again where it
// enters the page; neither relies on the other.

import { Marked } from 'marked';
import type { Token, TokensList } from 'marked';

const PIECE = 2_500; // Characters drawn at a time; some milliseconds on a slow phone.
const ADDRESS = /^(?:https?:\/\/|mailto:)/i;

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escape(text),
    link({ href, tokens }) {
      const words = this.parser.parseInline(tokens);
      return ADDRESS.test(href) ? `<a href="${escape(href)}">${words}</a>` : words;
    },
    // An image would tell a stranger's server that it is looked at, so only its address is shown.
    image({ href, text }) {
      const words = escape(text || 'image');
      return ADDRESS.test(href) ? `<a href="${escape(href)}">${words}</a>` : words;
    },
    checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
  },
});

/** What is to be drawn next. */
export interface Step {
  /** Drop all that was drawn before. */
  readonly anew: boolean;
  /** HTML of blocks that are complete, in order. */
  readonly settled: readonly string[];
  /** HTML of the block that may still change, null if there is none. */
  readonly open: string | null;
  /** Whether another step is needed now. */
  readonly more: boolean;
}

export class Blocks {
  private text = '';
  private complete = false;
  private at = 0;
  private links: TokensList['links'] = {};
  /** How many definitions were known when the first block was drawn. */
  private known = 0;
  private anew = false;

  /** Take the text as it is now, and whether it is complete. */
  set(given: string, complete: boolean): void {
    const text = given.replace(/\r\n?/g, '\n'); // As the lexer does.
    if (!text.startsWith(this.text)) {
      this.restart(0);
      this.links = {};
    }
    this.text = text;
    this.complete = complete;
  }

  /** Return what to draw next, of at most about a piece of the text. */
  step(): Step {
    const { anew } = this;
    this.anew = false;
    for (let size = PIECE; ; size *= 4) {
      const end = this.cut(size);
      const whole = end === this.text.length;
      const done = whole && this.complete;
      // A line that is half written can change how the one before it is read.
      const lines = done ? end : this.text.lastIndexOf('\n', end - 1) + 1;
      const tokens = this.lex(this.at, lines);
      this.links = { ...tokens.links };
      const settled = tokens.slice(0, done ? tokens.length : lastBlock(tokens));
      if (!whole && settled.length === 0) {
        continue; // One block is larger than the piece.
      }
      const known = Object.keys(this.links).length;
      if (done && known > this.known) {
        this.restart(known);
        return { anew, settled: [], open: null, more: true };
      }
      this.at += settled.reduce((sum, { raw }) => sum + raw.length, 0);
      const open = whole && !done ? render(this.lex(this.at, end)) : '';
      return {
        anew,
        settled: settled.map((token) => render([token])).filter(Boolean),
        open: open || null,
        more: !whole,
      };
    }
  }

  private restart(known: number): void {
    this.at = 0;
    this.known = known;
    this.anew = true;
  }

  /** Return where the next piece ends: behind a blank line where there is one, or behind a line. */
  private cut(size: number): number {
    const end = this.at + size;
    if (end >= this.text.length) {
      return this.text.length;
    }
    const blank = this.text.lastIndexOf('\n\n', end);
    return blank > this.at ? blank + 2 : Math.max(end, this.text.indexOf('\n', end) + 1);
  }

  private lex(from: number, to: number): TokensList {
    const lexer = new marked.Lexer(marked.defaults);
    Object.assign(lexer.tokens.links, this.links);
    return lexer.lex(this.text.slice(from, to));
  }
}

/** Return the index of the last block that is not blank; 0 where there is none. */
function lastBlock(tokens: readonly Token[]): number {
  for (let index = tokens.length - 1; index > 0; index -= 1) {
    if (tokens[index]?.type !== 'space') {
      return index;
    }
  }
  return 0;
}

function render(tokens: Token[]): string {
  return marked.parser(tokens);
}

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (mark) => `&#${mark.charCodeAt(0)};`);
}
