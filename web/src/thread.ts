// What the events of one thread amount to: messages, tool calls, questions, and how the latest run
// fares.
//
// A thread is fed event by event in the order they come. It never looks at offsets: what arrives is
// either a prelude, which starts with RUN_STARTED on a fresh Thread, or what follows it. Each change
// of a message raises its `revision`, so that whoever draws can tell what to draw again.

import { digest, digestsOf } from './digest.ts';
import { textOf } from './events.ts';
import type { AgEvent, RunFinished, RunStarted, Tags, WireMessage } from './events.ts';
import type { Call, Message, Phase, Role, Run } from './messages.ts';
import { Questions } from './questions.ts';
import type { InterruptRow, Question, Standing } from './questions.ts';

const SHOWN: ReadonlySet<string> = new Set(['user', 'assistant', 'reasoning']);
const OVER: ReadonlySet<Phase> = new Set(['finished', 'cancelled', 'interrupted', 'failed']);
const OUTCOMES: Readonly<Record<string, Phase>> = {
  success: 'finished', cancelled: 'cancelled', interrupt: 'interrupted',
};

export class Thread {
  readonly messages = new Map<string, Message>();
  readonly questions = new Questions();
  /** Texts that differ from what was sent: message id to the digest that was told. */
  readonly differing = new Map<string, string>();
  /** Runs that wait for their turn: their question, if we know it. */
  readonly waiting = new Map<string, string>();
  run: Run | null = null;
  /** Sentences and texts to be read out, completed while we listened. */
  readonly said: string[] = [];
  private readonly calls = new Map<string, Call>();
  private readonly begun = new Set<string>();

  get active(): boolean {
    return this.run !== null && !OVER.has(this.run.phase);
  }

  /** Take one event.
   *
   * @param event as it was published.
   * @param tags of its publication; empty in a prelude.
   */
  feed(event: AgEvent, tags: Tags = {}): void {
    switch (event.type) {
      case 'RUN_STARTED': this.begin(event, tags); break;
      case 'RUN_FINISHED': this.finish(event, tags); break;
      case 'RUN_ERROR': this.end('failed', event, tags); break;
      case 'MESSAGES_SNAPSHOT': this.replaceAll(event.messages); break;
      case 'STEP_STARTED': this.phase('thinking', event.stepName); break;
      case 'REASONING_START': this.phase('thinking'); break;
      case 'TEXT_MESSAGE_START': {
        const role = SHOWN.has(event.role ?? '') ? (event.role as Role) : 'assistant';
        this.message(event.messageId, role).open = true;
        this.phase('writing');
        break;
      }
      case 'REASONING_MESSAGE_START':
        this.message(event.messageId, 'reasoning').open = true;
        this.phase('thinking');
        break;
      case 'TEXT_MESSAGE_CONTENT': this.message(event.messageId, 'assistant').text += event.delta; break;
      case 'REASONING_MESSAGE_CONTENT': this.message(event.messageId, 'reasoning').text += event.delta; break;
      case 'TEXT_MESSAGE_END': this.close(event.messageId, tags); break;
      case 'REASONING_MESSAGE_END': this.message(event.messageId, 'reasoning').open = false; break;
      case 'TOOL_CALL_START':
        this.call(event.toolCallId, event.toolCallName, event.parentMessageId || event.toolCallId);
        this.phase('tool', event.toolCallName);
        break;
      case 'TOOL_CALL_ARGS': this.touch(event.toolCallId, (call) => { call.text += event.delta; }); break;
      case 'TOOL_CALL_END': this.touch(event.toolCallId, (call) => { call.complete = true; }); break;
      case 'TOOL_CALL_RESULT':
        this.result(event.toolCallId, textOf(event.content));
        this.phase('thinking');
        break;
    }
  }

  /** Take messages that stand before all that is here. */
  prepend(given: readonly WireMessage[]): void {
    const later = [...this.messages];
    this.messages.clear();
    given.forEach((message) => this.take(message));
    later.forEach(([id, message]) => this.messages.set(id, message));
  }

  /** Take note that a run waits; its question may be known to other devices only. */
  wait(run: string, text: string): void {
    if (!this.begun.has(run)) {
      this.waiting.set(run, text || this.waiting.get(run) || '');
    }
  }

  /** Take what the server says of a run's questions. */
  stand(run: string, rows: readonly InterruptRow[]): void {
    this.questions.stand(run, rows).forEach(({ owner }) => this.mark(owner));
  }

  /** Note where a question stands. */
  settle(question: Question, state: Standing): void {
    this.questions.settle(question, state);
    this.mark(question.owner);
  }

  /** Compare a message with the digest it was sent with, and keep in mind if they differ. */
  verify(id: string, expected: string | undefined): void {
    const message = this.messages.get(id);
    if (!message || !expected) {
      return;
    }
    const differs = digest(message.text) !== expected;
    if (differs !== this.differing.has(id)) {
      this.mark(id);
    }
    if (differs) {
      this.differing.set(id, expected);
    } else {
      this.differing.delete(id);
    }
  }

  /** Have a message drawn again. */
  mark(id: string): void {
    const message = this.messages.get(id);
    if (message) {
      message.revision += 1;
    }
  }

  private phase(phase: Phase, detail = ''): void {
    if (this.run && this.active) {
      this.run.phase = phase;
      this.run.detail = detail;
    }
  }

  private begin(event: RunStarted, tags: Tags): void {
    this.questions.leave(event).forEach(({ owner }) => this.mark(owner));
    this.run = {
      id: event.runId, agent: tags.agent ?? '', phase: 'started', detail: '', code: '', message: '',
    };
    this.begun.add(event.runId);
    this.waiting.delete(event.runId);
    for (const message of event.input?.messages ?? []) {
      if (!this.messages.has(message.id)) {
        this.take(message);
      }
    }
  }

  private finish(event: RunFinished, tags: Tags): void {
    const { type = 'success', interrupts = [] } = event.outcome ?? {};
    this.end(OUTCOMES[type] ?? 'finished', {}, tags);
    const last = [...this.messages.keys()].pop() ?? event.runId;
    for (const asked of interrupts) {
      const call = this.calls.get(asked.toolCallId ?? '') ?? null;
      const owner = call ? call.owner : last;
      const question = this.questions.ask(event.runId, asked, call, owner);
      this.message(owner, 'assistant').questions.push(question);
    }
  }

  private end(phase: Phase, { code = '', message = '' }, tags: Tags): void {
    const run = this.run ?? { id: '', agent: '', phase, detail: '', code, message };
    this.run = Object.assign(run, { phase, code, message, detail: '' });
    for (const shown of this.messages.values()) {
      if (shown.open || shown.calls.length) {
        shown.open = false;
        shown.revision += 1;
      }
    }
    digestsOf(tags.digest).forEach((expected, id) => this.verify(id, expected));
  }

  private close(id: string, tags: Tags): void {
    const message = this.message(id, 'assistant');
    message.open = false;
    this.verify(id, tags.digest);
    if (message.role === 'assistant') {
      this.said.push(message.text);
    }
  }

  private message(id: string, role: Role): Message {
    let message = this.messages.get(id);
    if (!message) {
      message = { id, role, text: '', revision: 0, calls: [], questions: [], open: false };
      this.messages.set(id, message);
    }
    message.revision += 1;
    return message;
  }

  private take(given: WireMessage): void {
    if (given.role === 'tool') {
      this.result(given.toolCallId ?? '', textOf(given.content));
    }
    if (!SHOWN.has(given.role)) {
      return;
    }
    const message = this.message(given.id, given.role as Role);
    message.role = given.role as Role;
    message.text = textOf(given.content);
    message.open = false;
    for (const call of given.toolCalls ?? []) {
      const known = this.call(call.id, call.function.name, given.id);
      known.text = call.function.arguments;
      known.complete = true;
    }
  }

  private call(id: string, name: string, owner: string): Call {
    let call = this.calls.get(id);
    if (!call) {
      call = { id, name, owner, text: '', complete: false, result: null };
      this.calls.set(id, call);
      this.message(owner, 'assistant').calls.push(call);
    }
    this.mark(call.owner);
    return call;
  }

  private touch(id: string, change: (call: Call) => void): void {
    const call = this.calls.get(id);
    if (call) {
      change(call);
      this.mark(call.owner);
    }
  }

  private result(id: string, text: string): void {
    const call = this.calls.get(id) ?? this.call(id, 'tool', id);
    call.result = text;
    this.mark(call.owner);
  }

  /** Take the agent's own account of the conversation. */
  private replaceAll(given: readonly WireMessage[]): void {
    const ids = new Set(given.map(({ id }) => id));
    const thought = given.some(({ role }) => role === 'reasoning');
    for (const [id, message] of this.messages) {
      const kept = message.role === 'reasoning' && !thought;
      if (!ids.has(id) && !kept) {
        message.calls.forEach((call) => this.calls.delete(call.id));
        this.messages.delete(id);
      }
    }
    given.forEach((message) => this.take(message));
  }
}
