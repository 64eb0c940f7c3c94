// One open thread: listening to it, proving that what is shown is what was sent, and what a person
// does in it.

import type { Publication, WireMessage } from './events.ts';
import { digest } from './digest.ts';
import type { Line } from './line.ts';
import { EventLog } from './log.ts';
import type { InterruptRow, Question } from './questions.ts';
import { Thread } from './thread.ts';

export interface ConversationHost {
  changed(): void;
  /** Something a person asked for failed: what, and why. */
  failed(what: string, error: unknown): void;
  gone(code: number, reason: string): void;
  /** Which agent answered last. */
  answeredBy(agent: string): void;
}

interface RunRow {
  readonly run_id: string;
  readonly agent: string;
  readonly status: string;
}

interface MessagePage {
  readonly messages: WireMessage[];
  readonly more: boolean;
}

const PAGE = 50;
const MOST = 200; // What `thread.get` gives at once.

export class Conversation {
  /** What is shown of it; null until the server has answered. */
  thread: Thread | null = null;
  readonly log = new EventLog();
  /** Messages that came damaged and were fetched again. */
  readonly mended = new Set<string>();
  /** Whether there are messages before those that are shown. */
  earlier = false;
  private stopListening: () => void;
  /** What differed: message id to the digest it should have. It is fetched again once. */
  private readonly expected = new Map<string, string>();
  private healing = false;

  constructor(
    readonly id: string,
    private readonly line: Line,
    private readonly host: ConversationHost,
  ) {
    this.stopListening = this.listen();
  }

  close(): void {
    this.stopListening();
  }

  /** Ask where the questions stand that the thread waits with. */
  async look(): Promise<void> {
    const shown = this.thread;
    const run = shown?.questions.asking;
    if (shown && run) {
      const { interrupts } = await this.line.ask<{ interrupts: InterruptRow[] }>('run.get', { run_id: run });
      shown.stand(run, interrupts);
      this.host.changed();
    }
  }

  /** Take note that a run waits for its turn. */
  waits(run: string, text: string): void {
    this.thread?.wait(run, text);
    this.host.changed();
  }

  async stop(): Promise<void> {
    await this.attempt('Not stopped', this.line.change('run.cancel', { run_id: this.thread?.run?.id }));
  }

  async cancelWaiting(run: string): Promise<void> {
    const shown = this.thread;
    const done = await this.attempt('Not cancelled', this.line.change('run.cancel', { run_id: run }));
    if (done) {
      shown?.waiting.delete(run);
      this.host.changed();
    }
  }

  /** Decide on a question.
   *
   * @param shown the arguments of its tool call exactly as the person saw them, null without a call.
   */
  async decide(question: Question, decision: 'approve' | 'refuse', shown: string | null): Promise<void> {
    const { thread } = this;
    const parameters = { run_id: question.run, interrupt_id: question.id, decision };
    const proof = shown === null ? {} : { arguments: shown };
    this.sending(thread, question, true);
    const work = this.line.change<{ status: string }>('run.approve', { ...parameters, ...proof });
    const answer = await this.attempt('Not decided', work);
    if (answer?.status === 'accepted') {
      thread?.settle(question, decision === 'approve' ? 'approved' : 'refused');
    } else if (answer) {
      await this.look().catch(() => undefined); // Somebody else was first, or it was too late.
    }
    this.sending(thread, question, false);
  }

  /** The newest message of the person; asking with its id again adds no second one. */
  get lastAsked(): WireMessage | null {
    const asked = [...(this.thread?.messages.values() ?? [])].filter(({ role }) => role === 'user');
    const last = asked.pop();
    return last ? { id: last.id, role: 'user', content: last.text } : null;
  }

  /** Show what stands before the messages that are shown. */
  async loadEarlier(): Promise<void> {
    const { thread } = this;
    const page = await this.attempt('Earlier messages could not be read', this.before(firstOf(thread), PAGE));
    if (thread && page && thread === this.thread) {
      thread.prepend(page.messages);
      this.earlier = page.more;
      this.host.changed();
    }
  }

  /** Return what a new thread begins with that is this one up to a message, and then another. */
  async branch(before: string, instead: WireMessage): Promise<WireMessage[]> {
    const messages: WireMessage[] = [];
    for (let at = before, more = true; more;) {
      const page = await this.before(at, MOST);
      messages.unshift(...page.messages);
      at = page.messages[0]?.id ?? at;
      more = page.more && page.messages.length > 0;
    }
    return [...messages, instead];
  }

  private before(message: string | null, limit: number): Promise<MessagePage> {
    return this.line.ask('thread.get', { thread_id: this.id, before: message, limit });
  }

  private listen(): () => void {
    return this.line.listen(this.id, {
      onStart: () => this.start(),
      onPublication: (publication) => this.take(publication),
      onGone: (code, reason) => this.host.gone(code, reason),
    });
  }

  private start(): void {
    const thread = new Thread();
    this.thread = thread;
    this.earlier = false;
    this.log.add(null);
    this.host.changed();
    // What began before is told by the prelude, which is handed over with this call.
    queueMicrotask(() => this.compareAgain(thread));
    this.seeRuns(thread).catch(() => undefined); // They are shown when their turn comes.
  }

  private take(publication: Publication): void {
    const { thread } = this;
    if (thread) {
      this.log.add(publication);
      thread.feed(publication.data, publication.tags);
      this.host.changed();
      if (publication.data.type === 'RUN_FINISHED') {
        this.look().catch(() => undefined);
      }
      this.heal(thread);
    }
  }

  /** Ask which runs wait, who answered last, and whether there is more than the prelude told. */
  private async seeRuns(shown: Thread): Promise<void> {
    const { runs } = await this.line.ask<{ runs: RunRow[] }>('run.list', { thread_id: this.id });
    if (shown !== this.thread) {
      return;
    }
    for (const { run_id: run } of runs.filter(({ status }) => status === 'pending').reverse()) {
      this.waits(run, '');
    }
    const last = runs.find(({ run_id: run }) => run === shown.run?.id);
    if (shown.run && last) {
      shown.run.agent ||= last.agent;
      this.host.answeredBy(last.agent);
    }
    // A prelude holds the newest messages, up to a bound.
    const first = firstOf(shown);
    const past = first === null ? [] : (await this.before(first, 1)).messages;
    if (shown === this.thread) {
      this.earlier = past.length > 0;
      this.host.changed();
    }
  }

  // A text that is not what was sent is fetched again from the start, once.
  private heal(thread: Thread): void {
    const fresh = [...thread.differing].filter(([id]) => !this.expected.has(id));
    if (fresh.length && !this.healing) {
      this.healing = true;
      for (const [id, told] of fresh) {
        this.expected.set(id, told);
        this.report(id, told, thread.messages.get(id)?.text ?? '').catch(() => undefined);
      }
      queueMicrotask(() => {
        this.stopListening();
        this.stopListening = this.listen();
      });
    }
  }

  private compareAgain(thread: Thread): void {
    this.healing = false;
    for (const [id, told] of this.expected) {
      const message = thread.messages.get(id);
      if (message && !message.open) {
        thread.verify(id, told);
        if (!thread.differing.has(id) && !this.mended.has(id)) {
          this.mended.add(id);
          thread.mark(id);
        }
      }
    }
    this.host.changed();
  }

  /** Tell the server what came damaged, so that whoever runs it learns of it. */
  private async report(id: string, published: string, text: string): Promise<void> {
    const facts = { thread_id: this.id, message_id: id, published, shown: digest(text) };
    await this.line.ask('digest.report', facts);
  }

  private sending(thread: Thread | null, question: Question, sending: boolean): void {
    question.sending = sending;
    thread?.mark(question.owner);
    this.host.changed();
  }

  private async attempt<Answer>(what: string, work: Promise<Answer>): Promise<Answer | null> {
    try {
      return await work;
    } catch (error) {
      this.host.failed(what, error);
      return null;
    }
  }
}

function firstOf(thread: Thread | null): string | null {
  return thread ? ([...thread.messages.keys()][0] ?? null) : null;
}
