// How the line is, counted down to the next attempt, with a way not to wait for it.

import { LitElement, css, html, nothing } from 'lit';
import { customElement, property } from 'lit/decorators.js';
import type { LineState } from '../line.ts';
import { base, controls } from '../styles/look.ts';
import { lineText } from '../texts.ts';

@customElement('towpath-connection')
export class ConnectionElement extends LitElement {
  static override styles = [base, controls, css`
    :host { display: flex; align-items: center; gap: .25rem; flex: none; }
    #connection { display: flex; align-items: center; gap: .5rem; font-size: .8125rem; color: var(--_quiet); white-space: nowrap; font-variant-numeric: tabular-nums; }
    #connection::before { content: ""; flex: none; width: .5rem; height: .5rem; border-radius: 50%; background: var(--_warn); }
    [data-state="online"]::before { background: var(--_good) !important; }
    [data-state="signed-out"]::before { background: var(--_bad) !important; }
    :is([data-state="reconnecting"], [data-state="moving"], [data-state="offline"]) { color: var(--_warn) !important; font-weight: 600; }
    @container (max-width: 46rem) {
      [data-state="online"] { font-size: 0 !important; gap: 0 !important; padding: 0 .5rem; }
    }
  `];

  /** Whether the line is down. */
  @property({ type: Boolean, reflect: true }) away = false;
  @property({ attribute: false }) state: LineState = { name: 'connecting' };
  @property({ attribute: false }) retry: () => void = () => undefined;
  private ticking: ReturnType<typeof setInterval> | undefined;

  override willUpdate(): void {
    this.away = 'at' in this.state;
  }

  override render(): unknown {
    const { state } = this;
    // The words for those who listen change with the state, not with each second.
    return html`
      <span class="unseen" role="status">${lineText('at' in state ? { ...state, at: null } : state, 0)}</span>
      <span id="connection" data-state=${state.name} aria-hidden="true">${lineText(state, Date.now())}</span>
      ${this.away ? html`<button id="retry" class="plain tiny" type="button" @click=${this.retry}>Try now</button>` : nothing}`;
  }

  override updated(): void {
    const counting = 'at' in this.state && this.state.at !== null;
    if (counting && this.ticking === undefined) {
      this.ticking = setInterval(() => this.requestUpdate(), 500);
    } else if (!counting) {
      this.still();
    }
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    this.still();
  }

  private still(): void {
    clearInterval(this.ticking);
    this.ticking = undefined;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    'towpath-connection': ConnectionElement;
  }
}
