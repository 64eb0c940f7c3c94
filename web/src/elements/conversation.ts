// The open thread as it is read: messages along the path, how the run fares, what waits for its turn.
//
// It stays at the end while the reader is there, and leaves them where they are otherwise.

import { LitElement, html, nothing } from 'lit';
import { customElement, property, query, state } from 'lit/decorators.js';
import { repeat } from 'lit/directives/repeat.js';
import type { Conversation } from '../conversation.ts';
import type { ChatSession } from '../chat-session.ts';
import type { Message } from '../messages.ts';
import type { Thread } from '../thread.ts';
import { base, controls } from '../styles/look.ts';
import { path } from '../styles/path.ts';
import { runText } from '../texts.ts';
import { againIcon, downIcon } from './icons.ts';
import './message.ts';
import type { MessageActions } from './message.ts';
import type { Decide } from './question.ts';

const READ_OUT = 1_500; // Characters: a screen reader would speak longer texts for minutes.
const NEAR = 80; // Pixels from the end within which the reader is taken to follow.

@customElement('towpath-conversation')
export class ConversationElement extends LitElement {
  static override styles = [base, controls, path];

  @property({ attribute: false }) session!: ChatSession;
  /** Changes whenever something in it does. */
  @property({ attribute: false }) revision = 0;
  @state() private following = true;
  @query('#scroll') private readonly scroller!: HTMLElement;
  @query('.column') private readonly column!: HTMLElement;
  @query('#announce') private readonly live!: HTMLElement;
  private shown: Thread | null = null;
  private lastTop = 0;
  private readonly grown = new ResizeObserver(() => this.follow());

  override render(): unknown {
    const conversation = this.session.conversation;
    const thread = conversation?.thread ?? null;
    return html`
      <div id="scroll" tabindex="0" role="region" aria-label="Conversation" @scroll=${this.scrolled}>
        <div class="column">
          ${conversation ? nothing : this.blank()}
          ${conversation && !thread ? html`<p class="quiet opening">Opening…</p>` : nothing}
          ${conversation?.earlier ? html`<button class="plain tiny earlier" type="button"
            @click=${() => void this.loadEarlier(conversation)}>Earlier messages</button>` : nothing}
          <div id="stream">${thread && conversation ? this.messages(conversation, thread) : nothing}</div>
          ${thread ? this.status(thread) : nothing}
          ${thread?.waiting.size ? this.waiting(thread) : nothing}
        </div>
      </div>
      <div id="announce" class="unseen" aria-live="polite"></div>
      ${this.following ? nothing : html`<button class="latest" type="button" @click=${this.latest}>
        ${downIcon}<span>Latest</span></button>`}`;
  }

  override firstUpdated(): void {
    this.grown.observe(this.scroller);
    this.grown.observe(this.column);
  }

  override updated(): void {
    const thread = this.session.conversation?.thread ?? null;
    if (thread !== this.shown) {
      this.shown = thread;
      this.latest();
      this.live.textContent = '';
    }
    const said = thread ? [...thread.said.splice(0), ...thread.questions.said.splice(0)] : [];
    if (said.length) {
      this.live.textContent = said.map((words) => shorten(words)).join(' ');
    }
  }

  /** Go to the end and stay there. */
  latest(): void {
    this.following = true;
    this.follow();
  }

  // What comes above pushes down what is read: the reader stays with it.
  private async loadEarlier(conversation: Conversation): Promise<void> {
    const below = this.scroller.scrollHeight - this.scroller.scrollTop;
    this.following = false;
    await conversation.loadEarlier();
    requestAnimationFrame(() => requestAnimationFrame(() => {
      this.scroller.scrollTop = this.scroller.scrollHeight - below;
    }));
  }

  private blank(): unknown {
    const { agents, agent } = this.session;
    const chosen = agents.find(({ name }) => name === agent);
    return html`<div class="empty">
      <svg viewBox="0 0 120 40" aria-hidden="true"><path d="M4 14h112" /><path d="M4 30q14-9 28 0t28 0 28 0 28 0" /></svg>
      <h2>What would you like to ask?</h2>
      <p id="empty-hint" class="quiet">${chosen?.description ?? ''}</p>
    </div>`;
  }

  private messages(conversation: Conversation, thread: Thread): unknown {
    const all = [...thread.messages.values()];
    return repeat(all, ({ id }) => id, (message, index) => {
      const last = (all[index + 1]?.role ?? (thread.run ? 'status' : 'user')) === 'user';
      return html`<towpath-message class="message ${message.role} ${last ? 'last' : ''}" data-role=${message.role}
        .message=${message} .revision=${message.revision} .active=${thread.active}
        .differs=${thread.differing.has(message.id)} .mended=${conversation.mended.has(message.id)}
        .actions=${this.actions(thread, message, index === all.length - 1)}
        .decide=${this.decide}></towpath-message>`;
    });
  }

  private actions(thread: Thread, message: Message, last: boolean): MessageActions {
    const known = this.known.get(message) ?? new Map<string, MessageActions>();
    this.known.set(message, known);
    const over = !thread.active;
    const key = `${over} ${last} ${message.open} ${message.text === ''} ${thread.run?.phase}`;
    let actions = known.get(key);
    if (!actions) {
      const again = over && last && message.role === 'assistant' && thread.run?.phase === 'finished';
      const told = message.role === 'assistant' && !message.open && message.text !== '';
      actions = {
        copy: told ? () => void navigator.clipboard.writeText(message.text) : undefined,
        again: again ? () => void this.session.askAgain() : undefined,
        edit: over && message.role === 'user' ? () => this.session.edit(message) : undefined,
      };
      known.set(key, actions);
    }
    return actions;
  }

  // The same actions are the same object, so that a message is not drawn again for them.
  private readonly known = new WeakMap<Message, Map<string, MessageActions>>();

  private status(thread: Thread): unknown {
    const { run } = thread;
    if (!run) {
      return nothing;
    }
    const retry = run.phase === 'failed' || run.phase === 'cancelled';
    return html`<div class="status">
      <p id="run-status" role="status" data-phase=${run.phase}>${runText(run, thread.questions.asking !== null)}</p>
      ${retry && this.session.conversation?.lastAsked ? html`<button class="tiny" type="button"
        @click=${() => void this.session.askAgain()}>${againIcon}Try again</button>` : nothing}
    </div>`;
  }

  private waiting(thread: Thread): unknown {
    return html`<div id="waiting" role="status">${[...thread.waiting].map(([run, text]) => html`
      <article class="waits">
        <h2 class="unseen">You, waiting</h2>
        <div class="text">${text || 'A question asked elsewhere'}</div>
        <div class="waits-row">Waits for its turn
          <button class="plain tiny" type="button" @click=${() => void this.session.conversation?.cancelWaiting(run)}>Cancel</button>
        </div>
      </article>`)}</div>`;
  }

  private readonly decide: Decide = (question, decision, shown) => {
    this.session.say('');
    void this.session.conversation?.decide(question, decision, shown);
  };

  private follow(): void {
    if (this.following && this.scroller) {
      this.scroller.scrollTop = this.scroller.scrollHeight;
      this.lastTop = this.scroller.scrollTop;
    }
  }

  // Text that grows moves the end away from a reader who follows; only going up is leaving it.
  private scrolled(): void {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    const near = scrollHeight - scrollTop - clientHeight < NEAR;
    if (near) {
      this.following = true;
    } else if (scrollTop < this.lastTop - 1) {
      this.following = false;
    }
    this.lastTop = scrollTop;
  }
}

/** Return the beginning of what is read out; the rest is there to be read at one's own pace. */
function shorten(words: string): string {
  return words.length <= READ_OUT ? words : `${words.slice(0, READ_OUT)} … The answer goes on.`;
}

declare global {
  interface HTMLElementTagNameMap {
    'towpath-conversation': ConversationElement;
  }
}
