// A person's threads by day, with a search by title.

import { LitElement, css, html, nothing } from 'lit';
import { customElement, property, state } from 'lit/decorators.js';
import { repeat } from 'lit/directives/repeat.js';
import { hashOf } from '../address.ts';
import type { ChatSession } from '../chat-session.ts';
import { byDay, titleOf } from '../threads.ts';
import type { ThreadRow } from '../threads.ts';
import { base, controls } from '../styles/look.ts';
import { newIcon, searchIcon } from './icons.ts';

@customElement('towpath-threads')
export class ThreadsElement extends LitElement {
  static override styles = [base, controls, css`
    :host { display: grid; grid-template-rows: auto minmax(0, 1fr); min-height: 0; }
    .head { display: grid; gap: .5rem; padding: 0 .75rem .5rem; }
    .new {
      display: flex; align-items: center; gap: .625rem; padding: .5rem .75rem; border-radius: .625rem; min-height: 2.5rem;
      border: 1px solid var(--_line); background: var(--_sheet); color: inherit; text-decoration: none; font-weight: 600; text-align: left; justify-content: flex-start;
    }
    .new:hover { border-color: var(--_accent); }
    .new svg { width: 1.125rem; height: 1.125rem; color: var(--_accent); }
    .search { position: relative; display: block; color: var(--_quiet); }
    .search svg { position: absolute; left: .75rem; top: 50%; width: 1rem; height: 1rem; margin-top: -.5rem; pointer-events: none; }
    .search input { width: 100%; padding-left: 2.25rem; border-color: transparent; background: transparent; color: var(--_ink); font-size: .875rem; }
    .search input:hover, .search input:focus { border-color: var(--_line); background: var(--_sheet); }
    .search input::placeholder { color: var(--_quiet); opacity: 1; }
    nav { overflow-y: auto; padding: 0 .75rem .75rem; }
    ul { list-style: none; }
    h3 { padding: .75rem .75rem .25rem; color: var(--_quiet); font-size: .75rem; font-weight: 600; }
    .thread {
      display: flex; align-items: baseline; gap: .75rem; width: 100%; padding: .4375rem .75rem; border: 0; border-radius: .625rem;
      background: none; color: inherit; text-align: left; text-decoration: none; font-size: .9375rem; justify-content: flex-start;
    }
    .thread:hover { background: var(--_tint); }
    .thread[aria-current] { background: var(--_tint); font-weight: 600; }
    .thread-title { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .when { font-size: .75rem; font-weight: 400; color: var(--_quiet); white-space: nowrap; }
    .running .when { display: flex; align-items: center; gap: .375rem; color: var(--_accent); }
    .running .when::before { content: ""; width: .4375rem; height: .4375rem; border-radius: 50%; background: currentColor; animation: breathe 1.2s ease-in-out infinite; }
    nav > p { padding: .75rem; }
    @media (pointer: coarse) { .thread { padding-block: .6875rem; } }
  `];

  @property({ attribute: false }) session!: ChatSession;
  @property({ attribute: false }) revision = 0;
  /** Whether a thread has an address in this page. */
  @property({ attribute: false }) addressed = false;
  @state() private words = '';

  override render(): unknown {
    const { session, words } = this;
    const rows = session.list.search(words);
    return html`
      <div class="head">
        ${this.link(null, html`${newIcon}New thread`, 'new')}
        <label class="search"><span class="unseen">Search threads by title</span>${searchIcon}
          <input type="search" placeholder="Search" autocomplete="off" .value=${words} @input=${this.typed} @keydown=${this.pressed}></label>
      </div>
      <nav id="threads" aria-label="Your threads">
        ${byDay(rows, new Date()).map(([day, some]) => html`<h3>${day}</h3>
          <ul>${repeat(some, ({ id }) => id, (row) => html`<li>${this.row(row)}</li>`)}</ul>`)}
        ${rows.length || !session.list.loaded ? nothing : html`<p class="quiet small">
          ${words ? `No title contains “${words}”.` : 'No threads yet.'}</p>`}
        ${session.list.more ? html`<button class="plain tiny" type="button" @click=${() => void session.loadOlder()}>
          ${words ? 'Search older ones too' : 'Show older'}</button>` : nothing}
      </nav>`;
  }

  private row(row: ThreadRow): unknown {
    const current = row.id === this.session.current;
    const words = html`<span class="thread-title">${titleOf(row)}</span>
      <time class="when">${row.active_run ? 'running' : shortTime(new Date(row.updated_at * 1000))}</time>`;
    return this.link(row.id, words, `thread ${row.active_run ? 'running' : ''}`, current);
  }

  private link(id: string | null, words: unknown, classes: string, current = false): unknown {
    const mark = current ? 'page' : nothing;
    return this.addressed
      ? html`<a class=${classes} href=${hashOf(id)} aria-current=${mark} @click=${(event: Event) => this.chosen(event, id)}>${words}</a>`
      : html`<button class=${classes} type="button" aria-current=${mark} @click=${(event: Event) => this.chosen(event, id)}>${words}</button>`;
  }

  private chosen(event: Event, id: string | null): void {
    const { ctrlKey = false, metaKey = false, shiftKey = false } = event as MouseEvent;
    if (!ctrlKey && !metaKey && !shiftKey) {
      event.preventDefault();
      this.session.open(id);
      this.dispatchEvent(new CustomEvent('chosen', { detail: id }));
    }
  }

  private typed(event: Event): void {
    this.words = (event.target as HTMLInputElement).value;
  }

  private pressed(event: KeyboardEvent): void {
    if (event.key === 'Escape' && this.words) {
      event.stopPropagation();
      this.words = '';
    }
  }
}

function shortTime(date: Date): string {
  const today = date.toDateString() === new Date().toDateString();
  const shape: Intl.DateTimeFormatOptions = today
    ? { hour: '2-digit', minute: '2-digit' }
    : { day: 'numeric', month: 'short' };
  return new Intl.DateTimeFormat(undefined, shape).format(date);
}

declare global {
  interface HTMLElementTagNameMap {
    'towpath-threads': ThreadsElement;
  }
}
