// The chat session of one signed-in person: the connection, the threads, the open thread, and new messages.
//
// No DOM: elements render this state and call its methods; `changed` says when to render.

import { Conversation } from './conversation.ts';
import { Line, newId } from './line.ts';
import type { Credential, LineState } from './line.ts';
import { ThreadList } from './threads.ts';
import { errorText } from './texts.ts';

export interface AgentRow {
  readonly name: string;
  readonly description: string;
}

export interface ChatSessionHost {
  changed(): void;
  /** Another thread is open, null for a new one. */
  opened(id: string | null): void;
  signedOut(reason: string): void;
}

/** An earlier message that is being said differently. */
export interface Edit {
  readonly message: string;
  readonly text: string;
  /** The id of what is said instead: the same however often it is sent. */
  readonly instead: string;
}

interface Notice {
  readonly name?: string;
  readonly value?: { readonly thread_id?: string; readonly run_id?: string };
}

interface Started {
  readonly thread_id: string;
  readonly run_id: string;
}

export class ChatSession {
  state: LineState = { name: 'connecting' };
  user = '';
  agents: readonly AgentRow[] = [];
  agent = '';
  problem = '';
  starting = false;
  conversation: Conversation | null = null;
  editing: Edit | null = null;
  readonly list: ThreadList;
  private readonly line: Line;
  private problemIsTheList = false;
  /** Whether the agent of a thread that is opened does not become the one to ask. */
  private agentChosen: boolean;
  private readonly fixed: boolean;

  /** Connect.
   *
   * @param agent whom to ask unless the person chooses another.
   */
  constructor(url: string, credential: Credential, agent: string, private readonly host: ChatSessionHost) {
    this.agent = agent;
    this.fixed = agent !== '';
    this.agentChosen = this.fixed;
    this.line = new Line(url, credential, {
      onState: (state) => {
        this.state = state;
        if (state.name === 'signed-out') {
          host.signedOut(state.reason);
        }
        host.changed();
      },
      onNotice: (event) => this.hear(event as Notice),
      onOnline: () => void this.catchUp(),
    });
    this.list = new ThreadList((parameters) => this.line.ask('thread.list', parameters));
  }

  get current(): string | null {
    return this.conversation?.id ?? null;
  }

  get title(): string {
    return this.current === null ? 'New thread' : this.list.title(this.current);
  }

  close(): void {
    this.conversation?.close();
    this.line.close();
  }

  retryLine(): void {
    this.line.retry();
  }

  choose(agent: string): void {
    this.agent = agent;
    this.agentChosen = true;
    this.host.changed();
  }

  say(problem: string): void {
    this.problem = problem;
    this.problemIsTheList = false;
    this.host.changed();
  }

  /** Open a thread, or a new one. */
  open(id: string | null): void {
    if (id === this.current) {
      return;
    }
    this.agentChosen = this.fixed;
    this.conversation?.close();
    this.editing = null;
    this.conversation = id === null ? null : new Conversation(id, this.line, {
      changed: this.host.changed,
      failed: (what, error) => this.say(`${what}: ${errorText(error)}`),
      answeredBy: (agent) => this.answeredBy(agent),
      gone: (code, reason) => {
        this.open(null);
        this.say(code === 102 ? 'There is no such thread.' : `${reason} (${code})`);
      },
    });
    this.host.opened(id);
    this.say('');
  }

  /** Ask an agent; return whether the message is on its way. */
  async send(message: string): Promise<boolean> {
    if (!message.trim() || this.starting) {
      return false;
    }
    const { current, editing } = this;
    const { agent, conversation } = this;
    const started = await this.start(async () => {
      if (editing && conversation) {
        const instead = { id: editing.instead, role: 'user', content: message };
        return { agent, input: { messages: await conversation.branch(editing.message, instead) } };
      }
      return { agent, message, ...(current === null ? {} : { thread_id: current }) };
    });
    if (!started) {
      return false;
    }
    if (this.conversation?.thread?.waiting.has(started.run_id)) {
      this.conversation.waits(started.run_id, message); // The notice came first.
    }
    if (current === this.current && started.thread_id !== current) {
      this.open(started.thread_id);
    }
    return true;
  }

  /** Have the newest message answered again: the question is not repeated, the answers stay. */
  async askAgain(): Promise<void> {
    const asked = this.conversation?.lastAsked;
    if (asked && !this.starting) {
      const agent = this.conversation?.thread?.run?.agent || this.agent;
      await this.start(async () => ({ agent, thread_id: this.current, input: { messages: [asked] } }));
    }
  }

  /** Say an earlier message differently, or leave it. */
  edit(message: { id: string; text: string } | null): void {
    this.editing = message && { message: message.id, text: message.text, instead: newId() };
    this.host.changed();
  }

  async rename(title: string): Promise<boolean> {
    try {
      await this.line.change('thread.rename', { thread_id: this.current, title });
      return true;
    } catch (error) {
      this.say(`Not renamed: ${errorText(error)}`);
      return false;
    }
  }

  async remove(id: string): Promise<void> {
    try {
      await this.line.change('thread.delete', { thread_id: id });
      this.list.remove(id);
      if (id === this.current) {
        this.open(null);
      }
      this.host.changed();
    } catch (error) {
      this.say(`Not deleted: ${errorText(error)}`);
    }
  }

  async loadOlder(): Promise<void> {
    try {
      await this.list.loadOlder();
      this.host.changed();
    } catch (error) {
      this.say(`Older threads could not be read: ${errorText(error)}`);
    }
  }

  private async start(parameters: () => Promise<{ agent: string }>): Promise<Started | null> {
    if (!this.agent) {
      this.say('Not sent: there is no connection yet.');
      return null;
    }
    this.say('');
    this.starting = true;
    this.host.changed();
    try {
      const started = await this.line.change<Started>('run.start', await parameters());
      this.agentChosen = true;
      return started;
    } catch (error) {
      this.say(`Not sent: ${errorText(error)}`);
      return null;
    } finally {
      this.starting = false;
      this.host.changed();
    }
  }

  private hear({ name = '', value = {} }: Notice): void {
    const here = value.thread_id === this.current;
    if (name === 'towpath.thread.deleted' && value.thread_id) {
      this.list.remove(value.thread_id);
      if (here) {
        this.open(null);
        this.say('This thread was deleted.');
      }
    }
    if (name === 'towpath.run.queued' && here && value.run_id) {
      this.conversation?.waits(value.run_id, '');
    }
    const asking = this.conversation?.thread?.questions.asking;
    if (name.startsWith('towpath.interrupt.') && asking && value.run_id === asking) {
      this.conversation?.look().catch(() => undefined); // Whoever decides is told in any case.
    }
    if (/^towpath\.(thread|run)\./.test(name)) {
      this.reload().catch(() => undefined); // It is asked for again each time the line comes up.
    }
  }

  private async reload(): Promise<void> {
    await this.list.load();
    this.host.changed();
  }

  // Each time the line is up: who we are, whom we can ask, and which threads there are.
  private async catchUp(): Promise<void> {
    try {
      const [me, known] = await Promise.all([
        this.line.ask<{ user: string }>('whoami'),
        this.line.ask<{ agents: AgentRow[] }>('agent.list'),
        this.reload(),
        this.conversation?.look(),
      ]);
      this.user = me.user;
      this.agents = known.agents;
      if (!this.agents.some(({ name }) => name === this.agent)) {
        this.agent = this.agents[0]?.name ?? '';
      }
      if (this.problemIsTheList) {
        this.say('');
      }
      this.host.changed();
    } catch (error) {
      this.say(`Your threads could not be read: ${errorText(error)}`);
      this.problemIsTheList = true;
    }
  }

  private answeredBy(agent: string): void {
    if (!this.agentChosen && this.agents.some(({ name }) => name === agent)) {
      this.agent = agent;
      this.host.changed();
    }
  }
}
