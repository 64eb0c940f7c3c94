// The smaller rooms: the list of threads, the pace of reconnecting, the words, the address, the log.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hashOf, idOf } from '../src/address.ts';
import { EventLog } from '../src/log.ts';
import { Pace } from '../src/pace.ts';
import { ThreadList, byDay } from '../src/threads.ts';
import type { ThreadRow } from '../src/threads.ts';
import { errorText, lineText, pretty, runText, unanswered } from '../src/texts.ts';

function row(id: string, at: number, title = id): ThreadRow {
  return { id, title, updated_at: at, active_run: null };
}

test('the list shows the latest first, and a reload drops what is gone', async () => {
  let answer = [row('b', 2), row('a', 1)];
  const list = new ThreadList(async () => ({ threads: answer }));
  await list.load();
  assert.deepEqual(list.rows.map(({ id }) => id), ['b', 'a']);
  answer = [row('a', 3)];
  await list.load();
  assert.deepEqual(list.rows.map(({ id }) => id), ['a']);
});

test('older pages stay when the newest is asked for again', async () => {
  const all = Array.from({ length: 70 }, (_, index) => row(`t${index}`, 1000 - index));
  const list = new ThreadList(async ({ limit, before }) => ({
    threads: all.filter((one) => before === undefined || one.updated_at < before).slice(0, limit),
  }));
  await list.load();
  assert.equal(list.more, true);
  await list.loadOlder();
  await list.load();
  assert.equal(list.rows.length, 70);
  assert.equal(list.more, false);
});

test('an answer that comes late does not replace a newer one', async () => {
  const answers: ((rows: ThreadRow[]) => void)[] = [];
  const list = new ThreadList(() => new Promise((resolve) => {
    answers.push((threads) => resolve({ threads }));
  }));
  const first = list.load();
  const second = list.load();
  answers[1]?.([row('new', 2)]);
  answers[0]?.([row('old', 1)]);
  await Promise.all([first, second]);
  assert.deepEqual(list.rows.map(({ id }) => id), ['new']);
});

test('a search finds titles that hold all the words', async () => {
  const list = new ThreadList(async () => ({ threads: [row('a', 2, 'Locks and Weirs'), row('b', 1, 'Locks')] }));
  await list.load();
  assert.deepEqual(list.search('weir LOCK').map(({ id }) => id), ['a']);
  assert.equal(list.search('').length, 2);
});

test('threads stand under the days a person thinks in', () => {
  const now = new Date(2026, 5, 10, 9);
  const at = (hours: number): number => now.getTime() / 1000 - hours * 3600;
  const days = byDay([row('a', at(1)), row('b', at(12)), row('c', at(80)), row('d', at(900))], now);
  assert.deepEqual(days.map(([day, rows]) => [day, rows.length]), [['Today', 1], ['Yesterday', 1], ['This week', 1], ['Earlier', 1]]);
});

test('attempts come later and later, never at once and never after more than 20 s', () => {
  const slow = new Pace(() => 1);
  assert.deepEqual([slow.next(), slow.next(), slow.next()], [1000, 1500, 2500]);
  for (let turn = 0; turn < 40; turn += 1) {
    slow.next();
  }
  assert.equal(slow.next(), 20_000);
  slow.reset();
  assert.equal(slow.next(), 1000);
  assert.equal(new Pace(() => 0).next(), 500);
});

test('an address holds any id, and nothing else is one', () => {
  assert.equal(idOf(hashOf('a/b #ü')), 'a/b #ü');
  assert.equal(idOf('#thread=%'), null);
  assert.equal(idOf('#other'), null);
});

test('a request that may have been done says that it is safe to repeat', () => {
  assert.equal(unanswered({ code: 1, message: 'timeout' }), true);
  assert.match(errorText({ code: 1, message: 'timeout' }), /takes effect only once/);
  assert.match(errorText({ code: 100, message: 'temporarily unavailable', temporary: true }), /^temporarily unavailable\. Try again/);
  assert.equal(unanswered({ code: 409, message: 'conflict' }), false);
  assert.equal(errorText({ code: 409, message: 'a run is active' }), 'a run is active (409)');
});

test('the line counts down to its next attempt', () => {
  assert.equal(lineText({ name: 'reconnecting', at: 4_200 }, 1_000), 'Reconnecting in 4 s');
  assert.equal(lineText({ name: 'reconnecting', at: null }, 0), 'Reconnecting');
  assert.equal(lineText({ name: 'moving', at: 1_000 }, 0), 'Server is restarting, reconnecting in 1 s');
});

test('a failed run says why in words, with its code', () => {
  const run = { id: 'r', agent: 'a', detail: '', phase: 'failed' as const };
  assert.equal(runText({ ...run, code: 'run.lost', message: 'x' }, false), 'Failed: the server stopped while the agent answered (run.lost)');
  assert.equal(runText({ ...run, code: 'model.away', message: 'no model' }, false), 'Failed: no model (model.away)');
});

test('JSON that is short stays on a line, and text is left alone', () => {
  assert.equal(pretty('{ "a": 1 }'), '{"a":1}');
  assert.equal(pretty('not json'), 'not json');
  assert.match(pretty(JSON.stringify({ long: 'x'.repeat(80) })), /\n/);
});

test('the log keeps the newest events and counts all of them', () => {
  const log = new EventLog();
  for (let number = 0; number < 5_000; number += 1) {
    log.add(null);
  }
  assert.equal(log.total, 5_000);
  assert.ok(log.all.length <= 2_000);
  assert.equal(log.all.at(-1)?.number, 5_000);
});
