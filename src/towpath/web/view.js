// Draws a Thread. Everything an agent or a person wrote goes through textContent or a text node.

import { STANDING } from './thread.js';

const SPEAKERS = { user: 'You', assistant: 'Agent', reasoning: 'Reasoning' };
const FRAME = 16; // Milliseconds between drawings; events that come faster share one.
const SHORT = 72; // Characters of JSON that stay on one line.
const NEAR = 80; // Pixels from the end within which the reader is taken to follow.

export class ThreadView {
  // `decide(question, decision, shown)` is called when a person decides on what they were shown,
  // `onCancel(run)` when a question is not to have its turn.
  constructor({ stream, scroll, status, waiting, announce, decide, onCancel }) {
    Object.assign(this, { stream, scroll, status, waiting, announce, decide, onCancel });
    this.thread = null;
    this.rows = new Map();
    this.timer = null;
    this.following = true;
    scroll.addEventListener('scroll', () => {
      this.following = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR;
    });
    new ResizeObserver(() => this.follow()).observe(scroll);
  }

  // Take another Thread, or null; what was shown goes.
  show(thread) {
    this.thread = thread;
    this.rows.clear();
    this.stream.replaceChildren();
    this.waiting.replaceChildren();
    this.announce.replaceChildren();
    this.following = true;
    this.draw();
  }

  // Draw soon what has changed.
  refresh() {
    if (this.timer === null) {
      this.timer = setTimeout(() => this.draw(), FRAME);
    }
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = null;
    const thread = this.thread;
    if (thread) {
      thread.changed.forEach((id) => this.drawMessage(thread.messages.get(id)));
      thread.changed.clear();
      if (thread.reordered) {
        this.reorder();
      }
      if (thread.said.length) {
        this.announce.replaceChildren(thread.said.splice(0).join(' '));
      }
      if (thread.waited) {
        thread.waited = false;
        this.drawWaiting(thread.waiting);
      }
    }
    this.drawStatus(thread && thread.run, Boolean(thread && thread.asking));
    this.follow();
  }

  follow() {
    if (this.following) {
      this.scroll.scrollTop = this.scroll.scrollHeight;
    }
  }

  reorder() {
    this.thread.reordered = false;
    for (const [id, row] of this.rows) {
      if (!this.thread.messages.has(id)) {
        row.element.remove();
        this.rows.delete(id);
      }
    }
    for (const id of this.thread.messages.keys()) {
      this.stream.append(this.rows.get(id).element);
    }
  }

  drawMessage(message) {
    if (!message) {
      return;
    }
    let row = this.rows.get(message.id);
    if (!row) {
      row = newRow(message);
      this.rows.set(message.id, row);
      this.stream.append(row.element);
    }
    drawText(row, message);
    row.element.classList.toggle('open', message.open);
    const asked = (call) => message.questions.some((one) => one.call === call && one.state === 'open');
    message.calls.forEach((call) => drawCall(row, call, this.thread.active, asked(call)));
    message.questions.forEach((question) => drawQuestion(row, question, this.decide));
    row.differs.hidden = !message.differs;
  }

  drawWaiting(waiting) {
    this.waiting.replaceChildren(...Array.from(waiting, ([run, text]) => {
      const cancel = make('button', 'plain', 'Cancel');
      cancel.type = 'button';
      cancel.addEventListener('click', () => this.onCancel(run));
      const said = make('div', 'text', text || 'A question asked elsewhere');
      return make('article', 'message user', said, make('div', 'waiting-row', 'Waits for its turn', cancel));
    }));
  }

  drawStatus(run, asking) {
    this.status.hidden = !run;
    if (run) {
      const words = wordsFor(run, asking);
      if (this.status.textContent !== words) {
        this.status.textContent = words;
      }
      this.status.dataset.phase = run.phase;
    }
  }
}

function wordsFor(run, asking) {
  switch (run.phase) {
    case 'started': return 'Started';
    case 'thinking': return run.detail ? `Thinking: ${run.detail}` : 'Thinking';
    case 'tool': return `Using ${run.detail}`;
    case 'writing': return 'Writing';
    case 'finished': return 'Finished';
    case 'cancelled': return 'Cancelled';
    case 'interrupted': return asking ? 'Waiting for a decision' : 'Ended without a decision';
    default: return `Failed: ${run.message}${run.code ? ` (${run.code})` : ''}`;
  }
}

function newRow(message) {
  const element = make('article', `message ${message.role}`);
  element.dataset.role = message.role;
  const body = document.createTextNode('');
  const text = make('div', 'text', body);
  if (message.role === 'reasoning') {
    element.append(make('details', 'reasoning', make('summary', '', SPEAKERS.reasoning), text));
  } else {
    element.append(make('h2', 'unseen', SPEAKERS[message.role] || message.role), text);
  }
  const calls = make('div', 'calls');
  const asked = make('div', 'calls');
  const differs = make('p', 'differs', 'This text differs from what was sent. Reload the page.');
  differs.setAttribute('role', 'alert');
  differs.hidden = true;
  element.append(calls, asked, differs);
  return {
    element, text, body, calls, asked, differs,
    length: 0, version: 0, cards: new Map(), questions: new Map(),
  };
}

function drawText(row, message) {
  if (row.version !== message.version) {
    row.version = message.version;
    row.length = 0;
    row.body.data = '';
  }
  if (message.text.length > row.length) {
    row.body.appendData(message.text.slice(row.length));
    row.length = message.text.length;
  }
  row.text.hidden = message.text === '';
}

function drawCall(row, call, active, asked) {
  let card = row.cards.get(call.id);
  if (!card) {
    card = newCard(call);
    row.cards.set(call.id, card);
    row.calls.append(card.element);
  }
  card.given.textContent = call.complete ? pretty(call.text) : call.text;
  card.result.textContent = call.result === null ? '' : pretty(call.result);
  card.result.parentElement.hidden = call.result === null;
  const ended = asked ? 'waiting' : 'no result';
  const state = call.result !== null ? 'done' : active ? 'working' : ended;
  card.state.textContent = state;
  card.element.dataset.state = state;
}

function newCard(call) {
  const state = make('span', 'call-state');
  const given = make('pre', 'call-arguments');
  const result = make('pre', 'call-result');
  const head = make('div', 'call-head', make('span', 'call-name', call.name), state);
  const element = make('section', 'call', head, labelled('Arguments', given), labelled('Result', result));
  element.setAttribute('aria-label', `Tool ${call.name}`);
  return { element, state, given, result };
}

function drawQuestion(row, question, decide) {
  let card = row.questions.get(question);
  if (!card) {
    card = newQuestion(question, decide);
    row.questions.set(question, card);
    row.asked.append(card.element);
  }
  const open = question.state === 'open';
  const off = !open || question.sending;
  if (off && card.buttons.includes(document.activeElement)) {
    card.outcome.focus(); // A button that is off cannot keep it.
  }
  card.buttons.forEach((button) => {
    button.disabled = off;
  });
  card.outcome.textContent = open ? waitingWords(question) : STANDING[question.state];
  card.element.dataset.state = question.state;
}

function newQuestion(question, decide) {
  const text = make('p', 'question-text', question.text);
  const element = make('section', 'call question', text);
  let given = null;
  if (question.call) {
    // Exactly as the run asked about them: it is this text that the decision is on.
    given = make('pre', 'call-arguments', question.call.text);
    element.append(labelled('Tool', make('pre', '', question.call.name)), labelled('Arguments', given));
  }
  const outcome = make('p', 'question-state');
  outcome.tabIndex = -1;
  const buttons = [['approve', 'Approve', 'primary'], ['refuse', 'Refuse', '']].map(
    ([decision, words, className]) => {
      const button = make('button', className, words);
      button.type = 'button';
      button.addEventListener('click', () => decide(question, decision, given && given.textContent));
      return button;
    },
  );
  element.append(make('div', 'question-row', outcome, ...buttons));
  element.setAttribute('aria-label', 'Decision');
  return { element, outcome, buttons };
}

function waitingWords({ sending, until }) {
  if (sending) {
    return 'Sending';
  }
  return until === null ? 'Waiting for you' : `Waiting for you until ${timeOf(until)}`;
}

function timeOf(seconds) {
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === new Date().toDateString();
  const shape = today ? { timeStyle: 'short' } : { dateStyle: 'medium', timeStyle: 'short' };
  return new Intl.DateTimeFormat(undefined, shape).format(date);
}

function labelled(label, content) {
  return make('div', 'call-part', make('span', 'call-label', label), content);
}

export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) {
    element.className = className;
  }
  element.append(...children);
  return element;
}

function pretty(text) {
  try {
    const value = JSON.parse(text);
    const short = JSON.stringify(value);
    return short.length <= SHORT ? short : JSON.stringify(value, null, 2);
  } catch {
    return text;
  }
}
