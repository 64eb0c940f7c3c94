// Where a person writes. Enter sends, Shift+Enter starts a line, Escape leaves an edit.

import { LitElement, css, html, nothing } from 'lit';
import { customElement, property, query } from 'lit/decorators.js';
import type { ChatSession, Edit } from '../chat-session.ts';
import { base, controls } from '../styles/look.ts';
import { sendIcon } from './icons.ts';

@customElement('towpath-composer')
export class ComposerElement extends LitElement {
  static override styles = [base, controls, css`
    :host { display: block; padding: .25rem 0 1rem; padding-bottom: max(1rem, env(safe-area-inset-bottom)); }
    form { max-width: 46rem; margin: 0 auto; padding: 0 1.25rem; }
    #problem {
      margin-bottom: .5rem; padding: .5rem .875rem; border-radius: .75rem; overflow-wrap: anywhere;
      background: var(--_bad-tint); color: var(--_bad); font-size: .875rem;
    }
    .editing {
      display: flex; align-items: center; gap: .75rem; margin-bottom: .5rem; padding: .375rem .5rem .375rem .875rem;
      border-radius: .75rem; background: var(--_tint); font-size: .875rem;
    }
    .editing span { flex: 1; }
    .field {
      border: 1px solid var(--_line); border-radius: 1.375rem; background: var(--_sheet); padding: .5rem;
      box-shadow: 0 2px 12px var(--_shadow);
    }
    .field:focus-within { border-color: var(--_accent); box-shadow: 0 0 0 1px var(--_accent), 0 2px 12px var(--_shadow); }
    textarea {
      display: block; width: 100%; max-height: 35vh; padding: .375rem .625rem; border: 0; outline: 0; min-height: 0;
      background: transparent; resize: none; overflow-y: auto; line-height: 1.5; field-sizing: content;
    }
    textarea:focus-visible { outline: none; } /* The field around it shows the focus. */
    textarea::placeholder { color: var(--_quiet); opacity: 1; }
    .row { display: flex; align-items: center; gap: .75rem; padding-left: .625rem; }
    .agent { display: flex; align-items: center; gap: .5rem; font-size: .8125rem; min-width: 0; }
    .agent select { min-height: 2rem; padding: .125rem .375rem; border-color: transparent; background: transparent; max-width: 12rem; }
    .agent select:hover, .agent select:focus-visible { border-color: var(--_line); }
    .agent option { background: var(--_sheet); color: var(--_ink); }
    .hint { margin-left: auto; }
    .send { border-radius: 50%; }
    #stop { border-color: var(--_bad); color: var(--_bad); font-weight: 600; border-radius: 999px; }
    #stop::before { content: ""; width: .625rem; height: .625rem; border-radius: 2px; background: currentColor; }
    .gap { flex: 1; }
    @container (max-width: 46rem) { form { padding: 0 .875rem; } .hint { display: none; } }
  `];

  @property({ attribute: false }) session!: ChatSession;
  @property({ attribute: false }) revision = 0;
  /** Whether the agent is chosen by the page. */
  @property({ attribute: false }) fixed = false;
  @query('textarea') private readonly input!: HTMLTextAreaElement;
  private editing: Edit | null = null;

  override render(): unknown {
    const { session } = this;
    const active = Boolean(session.conversation?.thread?.active);
    return html`<form @submit=${this.submitted}>
      ${session.problem ? html`<p id="problem" role="alert">${session.problem}</p>` : nothing}
      ${session.editing ? html`<div class="editing" role="status">
        <span>Sending an edited message starts a new thread from here. This thread does not change.</span>
        <button class="plain tiny" type="button" @click=${() => this.leaveEdit()}>Cancel</button></div>` : nothing}
      <div class="field">
        <label class="unseen" for="message">Your message</label>
        <textarea id="message" rows="1" placeholder="Write a message" enterkeyhint="send"
          ?readonly=${session.starting} @input=${this.fit} @keydown=${this.pressed}></textarea>
        <div class="row">
          ${this.fixed ? nothing : html`<label class="agent"><span class="quiet">Agent</span>
            <select id="agent" .value=${session.agent} @change=${this.chosen}>
              ${session.agents.map(({ name }) => html`<option value=${name} ?selected=${name === session.agent}>${name}</option>`)}
            </select></label>`}
          <span class="gap"></span>
          <span class="quiet small hint">Enter sends, Shift+Enter starts a line</span>
          ${active
            ? html`<button id="stop" type="button" @click=${() => void session.conversation?.stop()}>Stop</button>`
            : html`<button id="send" class="primary icon send" type="submit" aria-label="Send" title="Send"
                ?disabled=${session.starting}>${sendIcon}</button>`}
        </div>
      </div>
    </form>`;
  }

  override updated(): void {
    if (this.editing !== this.session.editing) {
      this.editing = this.session.editing;
      this.input.value = this.editing?.text ?? '';
      this.fit();
      if (this.editing) {
        this.input.focus();
      }
    }
  }

  // Where the style sheet cannot say that a field is as high as its text.
  private fit(): void {
    if (!CSS.supports('field-sizing', 'content')) {
      this.input.style.height = 'auto';
      this.input.style.height = `${this.input.scrollHeight}px`;
    }
  }

  override focus(): void {
    this.input.focus();
  }

  private leaveEdit(): void {
    this.session.edit(null);
    this.input.focus();
  }

  private chosen(event: Event): void {
    this.session.choose((event.target as HTMLSelectElement).value);
  }

  private submitted(event: Event): void {
    event.preventDefault();
    void this.send();
  }

  private pressed(event: KeyboardEvent): void {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      void this.send();
    } else if (event.key === 'Escape' && this.session.editing) {
      event.stopPropagation();
      this.leaveEdit();
    }
  }

  private async send(): Promise<void> {
    const { session } = this;
    if (await session.send(this.input.value)) {
      if (session === this.session) {
        this.input.value = '';
        this.fit();
        session.edit(null);
        this.dispatchEvent(new CustomEvent('sent'));
      }
    }
  }
}

declare global {
  interface HTMLElementTagNameMap {
    'towpath-composer': ComposerElement;
  }
}
