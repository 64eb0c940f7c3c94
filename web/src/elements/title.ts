// The title of the open thread, and what may be done with the thread as a whole.

import { LitElement, css, html, nothing } from 'lit';
import type { PropertyValues } from 'lit';
import { customElement, property, query, state } from 'lit/decorators.js';
import type { ChatSession } from '../chat-session.ts';
import { base, controls } from '../styles/look.ts';
import { deleteIcon, renameIcon } from './icons.ts';

@customElement('towpath-title')
export class TitleElement extends LitElement {
  static override styles = [base, controls, css`
    :host { flex: 1; display: flex; align-items: center; gap: .125rem; min-width: 0; }
    h1 { min-width: 0; margin-right: .25rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font: 600 1.0625rem/1.4 var(--_serif); }
    .rename { flex: 1; display: flex; gap: .25rem; min-width: 0; max-width: 32rem; }
    input { flex: 1; min-width: 0; }
    dialog {
      max-width: min(26rem, calc(100vw - 2rem)); border: 1px solid var(--_line); border-radius: 1rem; padding: 1.5rem;
      background: var(--_sheet); color: var(--_ink); overflow-wrap: anywhere; box-shadow: 0 12px 40px var(--_shadow);
    }
    dialog::backdrop { background: rgb(0 0 0 / .4); }
    .dialog-row { display: flex; justify-content: flex-end; gap: .5rem; margin-top: 1.25rem; }
  `];

  @property({ attribute: false }) session!: ChatSession;
  @property({ attribute: false }) current: string | null = null;
  @property({ attribute: false }) words = '';
  @state() private renaming = false;
  @query('input') private readonly input!: HTMLInputElement | null;
  @query('dialog') private readonly dialog!: HTMLDialogElement;
  @query('#rename') private readonly button!: HTMLElement | null;

  override willUpdate(changed: PropertyValues<this>): void {
    if (changed.has('current')) {
      this.renaming = false;
    }
  }

  override render(): unknown {
    const { current, words, renaming } = this;
    return html`
      ${renaming ? html`<form class="rename" @submit=${this.rename} @keydown=${this.pressed}>
          <label class="unseen" for="title">Title of the thread</label>
          <input id="title" maxlength="200" required .value=${words}>
          <button class="primary" type="submit">Save</button>
          <button class="plain" type="button" @click=${() => this.closeRename()}>Cancel</button>
        </form>` : html`<h1 id="title" title=${words}>${words}</h1>
        ${current === null ? nothing : html`
          <button id="rename" class="plain icon" type="button" aria-label="Rename" title="Rename" @click=${this.openRename}>${renameIcon}</button>
          <button id="delete" class="plain icon" type="button" aria-label="Delete" title="Delete" @click=${this.ask}>${deleteIcon}</button>`}`}
      <dialog aria-labelledby="confirm-text" @close=${this.answered}>
        <form method="dialog">
          <p id="confirm-text">Delete “${words}” and everything in it?</p>
          <div class="dialog-row">
            <button value="no" class="plain">Keep it</button>
            <button value="yes" class="primary danger">Delete</button>
          </div>
        </form>
      </dialog>`;
  }

  private async openRename(): Promise<void> {
    this.renaming = true;
    await this.updateComplete;
    this.input?.select();
  }

  private async closeRename(): Promise<void> {
    this.renaming = false;
    await this.updateComplete;
    this.button?.focus();
  }

  private async rename(event: Event): Promise<void> {
    event.preventDefault();
    const title = this.input?.value.trim() ?? '';
    if (title && await this.session.rename(title)) {
      await this.closeRename();
    }
  }

  private pressed(event: KeyboardEvent): void {
    if (event.key === 'Escape') {
      event.stopPropagation();
      void this.closeRename();
    }
  }

  private ask(): void {
    this.dialog.returnValue = 'no';
    this.dialog.showModal();
  }

  private answered(): void {
    if (this.dialog.returnValue === 'yes' && this.current !== null) {
      void this.session.remove(this.current);
    }
  }
}

declare global {
  interface HTMLElementTagNameMap {
    'towpath-title': TitleElement;
  }
}
