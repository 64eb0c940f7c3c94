// What a thread's events amount to.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { digest, digestsOf } from '../src/digest.ts';
import type { AgEvent, Tags } from '../src/events.ts';
import { Thread } from '../src/thread.ts';

function fed(...events: (AgEvent | [AgEvent, Tags])[]): Thread {
  const thread = new Thread();
  for (const event of events) {
    if (Array.isArray(event)) {
      thread.feed(event[0], event[1]);
    } else {
      thread.feed(event);
    }
  }
  return thread;
}

const started: AgEvent = {
  type: 'RUN_STARTED', runId: 'r1', input: { messages: [{ id: 'u1', role: 'user', content: 'hi' }] },
};

function says(id: string, text: string): AgEvent[] {
  return [
    { type: 'TEXT_MESSAGE_START', messageId: id, role: 'assistant' },
    { type: 'TEXT_MESSAGE_CONTENT', messageId: id, delta: text },
  ];
}

test('the digest is the one the wire describes', () => {
  assert.equal(digest(''), '00000000');
  assert.equal(digest('a'), 'e8b7be43');
  assert.equal(digest('123456789'), 'cbf43926');
  assert.equal(digest('Grüße 🚣'), '64b17b4d');
  assert.equal(digest('Grüße 🚣'), digest('Grüße ' + '\u{1F6A3}'));
  assert.deepEqual([...digestsOf('a:b:1234 c:5')], [['a:b', '1234'], ['c', '5']]);
});

test('a run goes from started over tools and text to its one ending', () => {
  const thread = fed(started);
  const phases = [thread.run?.phase];
  const then: AgEvent[] = [
    { type: 'REASONING_START', messageId: 't' },
    { type: 'TOOL_CALL_START', toolCallId: 'c', toolCallName: 'look' },
    { type: 'TOOL_CALL_RESULT', toolCallId: 'c', content: 'found' },
    ...says('m', 'it is'),
    { type: 'RUN_FINISHED', runId: 'r1' },
  ];
  for (const event of then) {
    thread.feed(event);
    phases.push(thread.run?.phase);
  }
  assert.deepEqual(phases, ['started', 'thinking', 'tool', 'thinking', 'writing', 'writing', 'finished']);
  assert.equal(thread.active, false);
  assert.deepEqual([...thread.messages.keys()], ['u1', 'c', 'm']);
  assert.equal(thread.messages.get('c')?.calls[0]?.result, 'found');
});

test('a text that is not what was sent is marked, and no longer when it is', () => {
  const thread = fed(started, ...says('m', 'fire'), [{ type: 'TEXT_MESSAGE_END', messageId: 'm' }, { digest: digest('fine') }]);
  assert.deepEqual([...thread.differing], [['m', digest('fine')]]);
  thread.verify('m', digest('fire'));
  assert.equal(thread.differing.size, 0);
});

test('the ending of a run checks every text it names', () => {
  const digests = `m:${digest('whole')} n:${digest('other')}`;
  const thread = fed(started, ...says('m', 'whole'), ...says('n', 'damaged'), [{ type: 'RUN_FINISHED', runId: 'r1' }, { digest: digests }]);
  assert.deepEqual([...thread.differing.keys()], ['n']);
});

test('a snapshot replaces what it does not name, but keeps reasoning it knows nothing of', () => {
  const thread = fed(
    started,
    { type: 'REASONING_MESSAGE_START', messageId: 't' },
    ...says('m', 'gone'),
    { type: 'MESSAGES_SNAPSHOT', messages: [{ id: 'u1', role: 'user', content: 'hi' }, { id: 'n', role: 'assistant', content: 'new' }] },
  );
  assert.deepEqual([...thread.messages.keys()], ['u1', 't', 'n']);
});

test('asking again with a message that is there adds none', () => {
  const thread = fed(started, ...says('m', 'one'), { type: 'RUN_FINISHED', runId: 'r1' });
  thread.feed({ ...started, runId: 'r2' } as AgEvent);
  assert.deepEqual([...thread.messages.keys()], ['u1', 'm']);
  assert.equal(thread.active, true);
});

test('a question is open until it is answered, and an answer is never taken back', () => {
  const thread = fed(started, {
    type: 'RUN_FINISHED', runId: 'r1', outcome: { type: 'interrupt', interrupts: [{ id: 'q', message: 'May I?' }] },
  });
  const [question] = thread.questions.all;
  assert.ok(question);
  assert.equal(thread.questions.asking, 'r1');
  thread.feed({ type: 'RUN_STARTED', runId: 'r2', parentRunId: 'r1', input: { resume: [{ interruptId: 'q', payload: { approved: false } }] } });
  assert.equal(question.state, 'refused');
  thread.stand('r1', [{ interrupt_id: 'q', status: 'approved', expires_at: 1 }]);
  assert.equal(question.state, 'refused');
  assert.deepEqual(thread.questions.said, ['May I? Approve or refuse.', 'May I? Refused.']);
});

test('a question is left behind by a run that does not answer it', () => {
  const thread = fed(started, {
    type: 'RUN_FINISHED', runId: 'r1', outcome: { type: 'interrupt', interrupts: [{ id: 'q', message: 'May I?' }] },
  }, { type: 'RUN_STARTED', runId: 'r2' });
  assert.equal(thread.questions.all[0]?.state, 'gone');
});

test('a run that waits stops waiting when it begins, and does not wait once it began', () => {
  const thread = fed(started);
  thread.wait('r2', 'later');
  thread.wait('r2', '');
  assert.deepEqual([...thread.waiting], [['r2', 'later']]);
  thread.feed({ type: 'RUN_STARTED', runId: 'r2' });
  thread.wait('r2', 'too late');
  assert.equal(thread.waiting.size, 0);
});

test('every change of a message shows in its revision', () => {
  const thread = fed(started, ...says('m', 'a'));
  const before = thread.messages.get('m')?.revision ?? 0;
  thread.feed({ type: 'TEXT_MESSAGE_CONTENT', messageId: 'm', delta: 'b' });
  assert.ok((thread.messages.get('m')?.revision ?? 0) > before);
  assert.equal(thread.messages.get('m')?.text, 'ab');
});

test('earlier messages stand before the others, with the results of their tools', () => {
  const thread = fed(started, ...says('m', 'later'));
  thread.prepend([
    { id: 'u0', role: 'user', content: 'before' },
    { id: 'a0', role: 'assistant', toolCalls: [{ id: 'c0', function: { name: 'look', arguments: '{}' } }] },
    { id: 't0', role: 'tool', toolCallId: 'c0', content: 'found' },
  ]);
  assert.deepEqual([...thread.messages.keys()], ['u0', 'a0', 'u1', 'm']);
  assert.equal(thread.messages.get('a0')?.calls[0]?.result, 'found');
  assert.equal(thread.messages.get('m')?.text, 'later');
});
