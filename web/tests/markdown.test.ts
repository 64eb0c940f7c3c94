// Markdown that grows is the Markdown that was there at once.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Blocks } from '../src/markdown.ts';

const PIECES = [
  '# A title\n', 'A *few* words.\n', 'And `code` here\n', '\n', '\n\n', '- one\n', '- two\n', '  - deep\n', '\n  more of it\n',
  '1. first\n', '3. third\n', '```py\n', 'print("<b>")\n', '```\n', '> said\n', '---\n', '===\n', '| a | b |\n', '| - | -: |\n', '| 1 | 2 |\n',
  '<div onclick="x">\n', '</div>\n', '    indented\n', 'a [link](http://x.example) and [ref]\n', '[ref]: http://y.example\n', '![see](http://z.example/p.png)\n',
  '**bold', ' and on**', ' https://auto.example/path ', '\\*no\\*\r\n', '🚣 Grüße\n', '- [x] done\n', '[x](javascript:alert(1))\n', '&lt;b&gt;\n',
];

function whole(text: string): string {
  return shown(text, [text.length]);
}

/** Draw a text that grows to each of these lengths, as the element does. */
function shown(text: string, lengths: readonly number[]): string {
  const blocks = new Blocks();
  let settled: string[] = [];
  let open = '';
  for (const length of [...lengths, text.length]) {
    blocks.set(text.slice(0, length), length === text.length);
    for (let more = true; more;) {
      const step = blocks.step();
      settled = [...(step.anew ? [] : settled), ...step.settled];
      open = step.open ?? '';
      more = step.more;
    }
  }
  assert.equal(open, '', 'a complete text has no open block');
  return settled.join('');
}

/** The numbers of mulberry32: the same for the same seed. */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

test('a text that grows in any steps ends as the one that was there at once', () => {
  for (let seed = 1; seed <= 600; seed += 1) {
    const next = numbers(seed);
    const text = Array.from({ length: 1 + Math.floor(next() * 25) }, () => PIECES[Math.floor(next() * PIECES.length)]).join('');
    const cuts = Array.from({ length: Math.floor(next() * 12) }, () => Math.floor(next() * text.length)).sort((a, b) => a - b);
    assert.equal(shown(text, cuts), whole(text), `seed ${seed}: ${JSON.stringify(text)} cut at ${cuts}`);
  }
});

test('a long text is taken in pieces and none of it is lost or doubled', () => {
  const paragraphs = Array.from({ length: 3000 }, (_, index) => `Paragraph ${index} ends.`);
  const html = whole(paragraphs.join('\n\n'));
  assert.equal(html, paragraphs.map((words) => `<p>${words}</p>\n`).join(''));
});

test('one block larger than a piece is drawn whole', () => {
  const words = Array.from({ length: 20000 }, (_, index) => String(index)).join(' ');
  assert.equal(whole(words), `<p>${words}</p>\n`);
});

test('while a text grows only its last block is open', () => {
  const blocks = new Blocks();
  blocks.set('One.\n\nTwo.\n\n- three\n', false);
  const step = blocks.step();
  assert.deepEqual(step.settled, ['<p>One.</p>\n', '<p>Two.</p>\n']);
  assert.match(step.open ?? '', /<li>three<\/li>/);
  blocks.set('One.\n\nTwo.\n\n- three\n- four\n', false);
  assert.deepEqual(blocks.step().settled, []);
});

test('HTML is shown as it was written', () => {
  const html = whole('<img src=x onerror=alert(1)>\n\nand <b>this</b>');
  assert.equal(html.includes('<img'), false);
  assert.equal(html.includes('<b>'), false);
  assert.match(html, /&#60;img src=x onerror=alert\(1\)&#62;/);
});

test('links lead to the web or to mail, and images become links', () => {
  assert.equal(whole('[x](javascript:alert(1)) [y](data:text/html,z) [z](/here)'), '<p>x y z</p>\n');
  assert.equal(whole('![p](http://a.example/p.png)'), '<p><a href="http://a.example/p.png">p</a></p>\n');
});
