// What the events of one thread amount to: messages, tool calls, questions, and how the latest run
// fares.
//
// A stream is fed event by event in the order it comes. It never looks at offsets: what arrives is
// either a prelude, which starts with RUN_STARTED on a fresh Thread, or what follows it. `changed`
// collects the ids of messages to draw again; whoever draws empties it.

import { digest } from './digest.js';

const PHASES = {
  REASONING_START: 'thinking',
  REASONING_MESSAGE_START: 'thinking',
  STEP_STARTED: 'thinking',
  TOOL_CALL_START: 'tool',
  TOOL_CALL_RESULT: 'thinking',
  TEXT_MESSAGE_START: 'writing',
};
const OUTCOMES = { success: 'finished', cancelled: 'cancelled', interrupt: 'interrupted' };
const OVER = new Set(['finished', 'cancelled', 'interrupted', 'failed']);
export const STANDING = {
  approved: 'Approved',
  refused: 'Refused',
  expired: 'Expired, nobody decided in time',
  gone: 'Left behind, the conversation went on without it',
};
const SHOWN = new Set(['user', 'assistant', 'reasoning']);

export class Thread {
  constructor() {
    this.messages = new Map();
    this.calls = new Map();
    this.questions = []; // What runs asked before they ended, and what became of it.
    this.run = null;
    this.changed = new Set();
    this.reordered = false;
    this.said = []; // Texts that were completed while we listened, to be read out.
    this.begun = new Set(); // Ids of runs that began while we listened.
    this.waiting = new Map(); // Questions that wait for their turn: run id to text, if we know it.
    this.waited = false; // Whether that is to be drawn again.
  }

  get active() {
    return this.run !== null && !OVER.has(this.run.phase);
  }

  feed(event, tags) {
    const handler = HANDLERS[event.type];
    if (handler) {
      handler.call(this, event, tags || {});
    }
    const phase = PHASES[event.type];
    if (phase && this.active) {
      this.run.phase = phase;
      this.run.detail = event.toolCallName || event.stepName || '';
    }
  }

  // Take note that a run waits; its question may be known to other devices only.
  wait(run, text) {
    if (!this.begun.has(run)) {
      this.waiting.set(run, text || this.waiting.get(run) || '');
      this.waited = true;
    }
  }

  waitNoMore(run) {
    this.waited = this.waiting.delete(run) || this.waited;
  }

  message(id, role) {
    let message = this.messages.get(id);
    if (!message) {
      message = {
        id, role, text: '', version: 0, calls: [], questions: [], open: false, differs: false,
      };
      this.messages.set(id, message);
    }
    this.changed.add(id);
    return message;
  }

  take(given) {
    if (given.role === 'tool') {
      this.result(given.toolCallId, textOf(given.content));
      return;
    }
    if (!SHOWN.has(given.role)) {
      return;
    }
    const message = this.message(given.id, given.role);
    message.role = given.role;
    message.text = textOf(given.content);
    message.version += 1;
    message.open = false;
    message.differs = false;
    for (const call of given.toolCalls || []) {
      const known = this.call(call.id, call.function.name, given.id);
      known.text = call.function.arguments;
      known.complete = true;
    }
  }

  call(id, name, owner) {
    let call = this.calls.get(id);
    if (!call) {
      call = { id, name, owner, text: '', complete: false, result: null };
      this.calls.set(id, call);
      this.message(owner, 'assistant').calls.push(call);
    }
    this.changed.add(call.owner);
    return call;
  }

  result(id, text) {
    const call = this.calls.get(id) || this.call(id, 'tool', id);
    call.result = text;
    this.changed.add(call.owner);
  }

  // The run that waits for a person's decision, null if none does.
  get asking() {
    const open = this.questions.find(({ state }) => state === 'open');
    return open ? open.run : null;
  }

  ask(run, asked) {
    const last = [...this.messages.keys()].pop() || run;
    for (const { id, toolCallId, message, reason } of asked) {
      const call = this.calls.get(toolCallId) || null;
      const owner = call ? call.owner : last;
      const text = message || reason;
      const question = { id, run, text, call, owner, state: 'open', until: null, sending: false };
      this.questions.push(question);
      this.message(owner, 'assistant').questions.push(question);
      this.said.push(`${text} Approve or refuse.`);
    }
  }

  // Note where a question stands; what has been decided stays as it is.
  settle(question, state) {
    if (question.state === 'open' && state !== 'open') {
      question.state = state;
      this.said.push(`${question.text} ${STANDING[state]}.`);
    }
    this.changed.add(question.owner);
  }

  // Take what the server says of a run's questions.
  stand(run, rows) {
    for (const question of this.questions.filter((one) => one.run === run)) {
      const row = rows.find(({ interrupt_id: id }) => id === question.id);
      question.until = row ? row.expires_at : null;
      this.settle(question, row ? row.status : 'gone');
    }
  }

  // A run begins: with the answers to what was open, or without them.
  leave({ parentRunId, input }) {
    const answers = (input && input.resume) || [];
    for (const question of this.questions.filter(({ state }) => state === 'open')) {
      const answer = answers.find(({ interruptId }) => interruptId === question.id);
      const answered = answer && parentRunId === question.run;
      this.settle(question, answered ? (isRefusal(answer) ? 'refused' : 'approved') : 'gone');
    }
  }

  replaceAll(given) {
    const ids = new Set(given.map((message) => message.id));
    const thought = given.some((message) => message.role === 'reasoning');
    for (const [id, message] of this.messages) {
      const kept = message.role === 'reasoning' && !thought;
      if (!ids.has(id) && !kept) {
        message.calls.forEach((call) => this.calls.delete(call.id));
        this.messages.delete(id);
      }
    }
    given.forEach((message) => this.take(message));
    this.reordered = true;
  }

  verify(id, expected) {
    const message = this.messages.get(id);
    if (message && expected && digest(message.text) !== expected) {
      message.differs = true;
      this.changed.add(id);
    }
  }

  end(phase, { code = '', message = '' } = {}, digests = '') {
    if (!this.run) {
      this.run = { id: '', phase, detail: '' };
    }
    Object.assign(this.run, { phase, code, message, detail: '' });
    for (const [id, shown] of this.messages) {
      if (shown.open || shown.calls.length) {
        shown.open = false;
        this.changed.add(id);
      }
    }
    for (const pair of digests.split(' ').filter(Boolean)) {
      const cut = pair.lastIndexOf(':');
      this.verify(pair.slice(0, cut), pair.slice(cut + 1));
    }
  }
}

const HANDLERS = {
  RUN_STARTED(event) {
    this.leave(event);
    this.run = { id: event.runId, phase: 'started', detail: '', code: '', message: '' };
    this.begun.add(event.runId);
    this.waitNoMore(event.runId);
    for (const message of (event.input && event.input.messages) || []) {
      if (!this.messages.has(message.id)) {
        this.take(message);
      }
    }
  },
  RUN_FINISHED(event, tags) {
    const { type = 'success', interrupts = [] } = event.outcome || {};
    this.end(OUTCOMES[type] || 'finished', {}, tags.digest);
    this.ask(event.runId, interrupts);
  },
  RUN_ERROR(event, tags) {
    this.end('failed', event, tags.digest);
  },
  MESSAGES_SNAPSHOT(event) {
    this.replaceAll(event.messages);
  },
  TEXT_MESSAGE_START(event) {
    this.message(event.messageId, event.role || 'assistant').open = true;
  },
  TEXT_MESSAGE_CONTENT(event) {
    this.message(event.messageId, 'assistant').text += event.delta;
  },
  TEXT_MESSAGE_END(event, tags) {
    const message = this.message(event.messageId, 'assistant');
    message.open = false;
    this.verify(event.messageId, tags.digest);
    if (message.role === 'assistant') {
      this.said.push(message.text);
    }
  },
  REASONING_MESSAGE_START(event) {
    this.message(event.messageId, 'reasoning').open = true;
  },
  REASONING_MESSAGE_CONTENT(event) {
    this.message(event.messageId, 'reasoning').text += event.delta;
  },
  REASONING_MESSAGE_END(event) {
    this.message(event.messageId, 'reasoning').open = false;
  },
  TOOL_CALL_START(event) {
    this.call(event.toolCallId, event.toolCallName, event.parentMessageId || event.toolCallId);
  },
  TOOL_CALL_ARGS(event) {
    const call = this.calls.get(event.toolCallId);
    if (call) {
      call.text += event.delta;
      this.changed.add(call.owner);
    }
  },
  TOOL_CALL_END(event) {
    const call = this.calls.get(event.toolCallId);
    if (call) {
      call.complete = true;
      this.changed.add(call.owner);
    }
  },
  TOOL_CALL_RESULT(event) {
    this.result(event.toolCallId, textOf(event.content));
  },
};

function isRefusal({ status, payload }) {
  return status === 'cancelled' || Boolean(payload && payload.approved === false);
}

function textOf(content) {
  if (typeof content === 'string') {
    return content;
  }
  if (!Array.isArray(content)) {
    return content === undefined || content === null ? '' : JSON.stringify(content);
  }
  return content.map((part) => (part.type === 'text' ? part.text : `[${part.type}]`)).join(' ');
}
