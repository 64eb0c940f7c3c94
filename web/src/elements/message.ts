// One message: what a person said as they typed it, what an agent said as Markdown, with its tool
// calls and questions.

import { LitElement, css, html, nothing } from 'lit';
import { customElement, property } from 'lit/decorators.js';
import type { Message } from '../messages.ts';
import { base, controls } from '../styles/look.ts';
import { againIcon, copyIcon, renameIcon } from './icons.ts';
import './markdown.ts';
import './question.ts';
import type { Decide } from './question.ts';
import './tool.ts';

const SPEAKERS = { user: 'You', assistant: 'Agent', reasoning: 'Reasoning' } as const;

/** What a person may do with a message; absent where they may not. */
export interface MessageActions {
  readonly copy?: (() => void) | undefined;
  readonly again?: (() => void) | undefined;
  readonly edit?: (() => void) | undefined;
}

@customElement('towpath-message')
export class MessageElement extends LitElement {
  static override styles = [base, controls, css`
    :host { display: block; min-width: 0; }
    .said { display: flex; flex-direction: row-reverse; align-items: center; gap: .25rem; }
    .said > .text {
      width: fit-content; max-width: 85%; padding: .5rem .9375rem; white-space: pre-wrap; overflow-wrap: anywhere;
      background: var(--_tint); border-radius: 1.125rem 1.125rem .25rem 1.125rem;
    }
    .actions { display: flex; gap: .125rem; min-height: 1.75rem; }
    .said .actions { opacity: 0; transition: opacity .12s; }
    .said:is(:hover, :focus-within) .actions { opacity: 1; }
    @media (hover: none) { .said .actions { opacity: 1; } }
    .told .actions { margin: .25rem 0 0 -.5rem; }
    summary { width: fit-content; cursor: pointer; color: var(--_quiet); font-size: .875rem; border-radius: .25rem; }
    summary:hover { color: var(--_ink); }
    details .text { margin-top: .375rem; color: var(--_quiet); font-size: .9375rem; }
    .cards { display: grid; gap: .5rem; }
    .text:not([hidden]) ~ .cards { margin-top: .625rem; }
    .differs { margin-top: .5rem; color: var(--_bad); font-size: .875rem; }
    .mended { margin-top: .375rem; color: var(--_quiet); font-size: .8125rem; }
    .differs::before { content: "⚠ " / ""; }
    .mended::before { content: "✓ " / ""; }
    @container (max-width: 46rem) { .said > .text { max-width: 92%; } }
  `];

  @property({ attribute: false }) message!: Message;
  /** Changes whenever the message does. */
  @property({ attribute: false }) revision = 0;
  /** Whether its run goes on. */
  @property({ attribute: false }) active = false;
  @property({ attribute: false }) differs = false;
  @property({ attribute: false }) mended = false;
  @property({ attribute: false }) actions: MessageActions = {};
  @property({ attribute: false }) decide!: Decide;

  override render(): unknown {
    const { message } = this;
    return message.role === 'user' ? this.said(message) : this.told(message);
  }

  private said({ text }: Message): unknown {
    return html`<article class="said">
      <h2 class="unseen">${SPEAKERS.user}</h2>
      <div class="text">${text}</div>
      ${this.row()}
    </article>`;
  }

  private told(message: Message): unknown {
    const { role, text, open } = message;
    const shown = html`<towpath-markdown class="text" .text=${text} .complete=${!open} ?hidden=${!text}></towpath-markdown>`;
    const asked = new Map(message.questions.map(({ call, state }) => [call?.id, state]));
    return html`<article class="told">
      ${role === 'reasoning'
        ? html`<details><summary>${SPEAKERS.reasoning}</summary>${shown}</details>`
        : html`<h2 class="unseen">${SPEAKERS.assistant}</h2>${shown}`}
      ${message.calls.length + message.questions.length ? html`<div class="cards">
        ${message.calls.map((call) => html`<towpath-tool .call=${call} .revision=${this.revision}
          .active=${this.active} .asked=${asked.get(call.id) ?? null}></towpath-tool>`)}
        ${message.questions.map((question) => html`<towpath-question .question=${question}
          .revision=${this.revision} .decide=${this.decide}></towpath-question>`)}
      </div>` : nothing}
      ${this.differs ? html`<p class="differs" role="alert">This text differs from the text that was sent, also after
        it was loaded again.</p>` : nothing}
      ${this.mended ? html`<p class="mended">This text arrived damaged and was loaded again. It is complete.</p>` : nothing}
      ${this.row()}
    </article>`;
  }

  private row(): unknown {
    const { copy, again, edit } = this.actions;
    if (!copy && !again && !edit) {
      return nothing;
    }
    return html`<div class="actions">
      ${copy ? html`<button class="plain tiny" type="button" @click=${copy}>${copyIcon}Copy text</button>` : nothing}
      ${edit ? html`<button class="plain icon tiny" type="button" aria-label="Edit" title="Edit" @click=${edit}>${renameIcon}</button>` : nothing}
      ${again ? html`<button class="plain tiny" type="button" @click=${again}>${againIcon}Answer again</button>` : nothing}
    </div>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    'towpath-message': MessageElement;
  }
}
