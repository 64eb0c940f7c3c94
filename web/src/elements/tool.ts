// One tool call: what was asked of it, and what it said.

import { LitElement, css, html, nothing } from 'lit';
import { customElement, property } from 'lit/decorators.js';
import type { Standing } from '../questions.ts';
import type { Call } from '../messages.ts';
import { base } from '../styles/look.ts';
import { card } from '../styles/card.ts';
import { pretty } from '../texts.ts';

@customElement('towpath-tool')
export class ToolElement extends LitElement {
  static override styles = [base, card, css`
    header { display: flex; align-items: center; justify-content: space-between; gap: .75rem; padding: .4375rem .875rem; }
    .call-name { font-family: var(--_mono); font-weight: 600; font-size: .8125rem; overflow-wrap: anywhere; }
    .call-state { display: flex; align-items: center; gap: .4rem; color: var(--_quiet); font-size: .8125rem; white-space: nowrap; }
    .call-state::before { content: ""; width: .45rem; height: .45rem; border-radius: 50%; background: var(--_line); }
    [data-state="done"] .call-state::before { background: var(--_good); }
    [data-state="working"] .call-state::before { background: var(--_accent); animation: breathe 1.2s ease-in-out infinite; }
    [data-state="waiting"] .call-state::before { background: var(--_warn); }
  `];

  @property({ attribute: false }) call!: Call;
  @property({ attribute: false }) revision = 0;
  @property({ attribute: false }) active = false;
  /** How a question about it stands, which shows the arguments itself; null where there is none. */
  @property({ attribute: false }) asked: Standing | null = null;

  override render(): unknown {
    const { call } = this;
    const ended = this.asked === 'open' ? 'waiting' : 'no result';
    const state = call.result !== null ? 'done' : this.active ? 'working' : ended;
    return html`<section class="card call" data-state=${state} aria-label="Tool ${call.name}">
      <header><span class="call-name">${call.name}</span><span class="call-state">${state}</span></header>
      ${this.asked ? nothing : html`<div class="part"><span class="label">Arguments</span>
        <pre class="call-arguments" tabindex="0">${call.complete ? pretty(call.text) : call.text}</pre></div>`}
      ${call.result === null ? nothing : html`<div class="part"><span class="label">Result</span>
        <pre class="call-result" tabindex="0">${pretty(call.result)}</pre></div>`}
    </section>`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    'towpath-tool': ToolElement;
  }
}
