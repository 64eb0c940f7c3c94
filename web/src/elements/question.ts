// The card on which a person decides what an agent may do, with exactly what would be done.

import { LitElement, css, html, nothing } from 'lit';
import { customElement, property, query } from 'lit/decorators.js';
import { STANDING } from '../questions.ts';
import type { Question } from '../questions.ts';
import { base, controls } from '../styles/look.ts';
import { card } from '../styles/card.ts';
import { timeText } from '../texts.ts';

/** `shown` is the text of the arguments as it stands on the card, null where there is none. */
export type Decide = (question: Question, decision: 'approve' | 'refuse', shown: string | null) => void;

@customElement('towpath-question')
export class QuestionElement extends LitElement {
  static override styles = [base, controls, card, css`
    [data-state="open"] { border-color: var(--_warn); background: var(--_warn-tint); }
    .question-text { padding: .75rem .875rem; font: 600 1.0625rem/1.4 var(--_serif); overflow-wrap: anywhere; }
    .row { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem; padding: .625rem .875rem; border-top: 1px solid var(--_line); }
    .row button { min-width: 6rem; }
    .question-state { flex: 1 1 10rem; display: flex; align-items: baseline; gap: .4rem; color: var(--_quiet); font-size: .8125rem; }
    .question-state::before { content: ""; flex: none; width: .45rem; height: .45rem; border-radius: 50%; background: var(--_quiet); }
    [data-state="open"] .question-state::before { background: var(--_warn); }
    [data-state="approved"] .question-state::before { background: var(--_good); }
    [data-state="refused"] .question-state::before { background: var(--_bad); }
    @container (max-width: 46rem) {
      .question-state { flex-basis: 100%; }
      .row button { flex: 1; }
    }
  `];

  @property({ attribute: false }) question!: Question;
  @property({ attribute: false }) revision = 0;
  @property({ attribute: false }) decide!: Decide;

  @query('.call-arguments') private readonly arguments!: HTMLElement | null;
  @query('.question-state') private readonly outcome!: HTMLElement;
  /** Exactly as the run asked about them: it is this text that the decision is on. */
  private given: string | null = null;

  override render(): unknown {
    const { question } = this;
    const open = question.state === 'open';
    const off = !open || question.sending;
    this.given ??= question.call?.text ?? null;
    return html`<section class="card question" data-state=${question.state} aria-label="Decision">
      <p class="question-text">${question.text}</p>
      ${question.call ? html`
        <div class="part"><span class="label">Tool</span><pre>${question.call.name}</pre></div>
        <div class="part"><span class="label">Arguments</span>
          <pre class="call-arguments" tabindex="0">${this.given}</pre></div>` : nothing}
      <div class="row">
        <p class="question-state" tabindex="-1">${question.state === 'open' ? this.waiting() : STANDING[question.state]}</p>
        <button class="primary" type="button" ?disabled=${off} @click=${() => this.press('approve')}>Approve</button>
        <button type="button" ?disabled=${off} @click=${() => this.press('refuse')}>Refuse</button>
      </div>
    </section>`;
  }

  private press(decision: 'approve' | 'refuse'): void {
    this.outcome.focus(); // A button that is off cannot keep it.
    this.decide(this.question, decision, this.arguments?.textContent ?? null);
  }

  private waiting(): string {
    const { sending, until } = this.question;
    if (sending) {
      return 'Sending';
    }
    return until === null ? 'Waiting for you' : `Waiting for you until ${timeText(until, new Date())}`;
  }
}

declare global {
  interface HTMLElementTagNameMap {
    'towpath-question': QuestionElement;
  }
}
