// The developer's drawer: the events of the open thread exactly as they came, with their offsets.

import { LitElement, css, html, nothing } from 'lit';
import { customElement, property, state } from 'lit/decorators.js';
import { repeat } from 'lit/directives/repeat.js';
import type { Entry, EventLog } from '../log.ts';
import { base, controls } from '../styles/look.ts';
import { closeIcon } from './icons.ts';

const SHOWN = 200; // The newest; the log holds more.
const PAUSE = 250; // Milliseconds between drawings: people read more slowly than this.

@customElement('towpath-events')
export class EventsElement extends LitElement {
  static override styles = [base, controls, css`
    :host { display: grid; grid-template-rows: auto minmax(0, 1fr); min-height: 0; background: var(--_paper); border-left: 1px solid var(--_line); }
    header { display: flex; align-items: center; gap: .5rem; padding: .5rem .5rem .5rem 1rem; min-height: 3.5rem; border-bottom: 1px solid var(--_line); }
    h2 { flex: 1; font-size: .875rem; font-weight: 600; }
    ol { list-style: none; overflow: auto; font: .75rem/1.5 var(--_mono); }
    li { border-bottom: 1px solid var(--_line); }
    summary { display: grid; grid-template-columns: 3.25rem minmax(0, 1fr); gap: .5rem; padding: .25rem .75rem; cursor: pointer; list-style: none; }
    summary:hover { background: var(--_tint); }
    .offset { color: var(--_quiet); text-align: right; }
    .type { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
    .prelude { padding: .375rem .75rem; color: var(--_accent); }
    pre { margin: 0; padding: .25rem .75rem .5rem 4.5rem; white-space: pre-wrap; overflow-wrap: anywhere; }
    .none { padding: 1rem; }
  `];

  @property({ attribute: false }) log: EventLog | null = null;
  @state() private paused = false;
  private timer: ReturnType<typeof setInterval> | undefined;
  private drawn = -1;

  override connectedCallback(): void {
    super.connectedCallback();
    this.addEventListener('keydown', this.pressed);
    this.timer = setInterval(() => {
      if (!this.paused && this.log && this.log.total !== this.drawn) {
        this.requestUpdate();
      }
    }, PAUSE);
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    clearInterval(this.timer);
  }

  private readonly pressed = (event: KeyboardEvent): void => {
    if (event.key === 'Escape') {
      event.stopPropagation();
      this.close();
    }
  };

  override render(): unknown {
    this.drawn = this.log?.total ?? -1;
    const entries = this.log?.all.slice(-SHOWN).reverse() ?? [];
    return html`<header>
        <h2>Events <span class="quiet">${this.log?.total ?? 0}</span></h2>
        <button class="plain tiny" type="button" aria-pressed=${this.paused} @click=${this.pause}>${this.paused ? 'Resume' : 'Pause'}</button>
        <button class="plain icon" type="button" aria-label="Close events" @click=${this.close}>${closeIcon}</button>
      </header>
      ${entries.length ? nothing : html`<p class="quiet small none">Events of the open thread appear here, newest first.</p>`}
      <ol tabindex="0" aria-label="Events, the newest first">${repeat(entries, ({ number }) => number, entry)}</ol>`;
  }

  private pause(): void {
    this.paused = !this.paused;
  }

  private close(): void {
    this.dispatchEvent(new CustomEvent('closed'));
  }
}

function entry({ publication }: Entry): unknown {
  if (!publication) {
    return html`<li class="prelude">Snapshot: the following events rebuild the thread</li>`;
  }
  const { data, offset, tags } = publication;
  const detail = 'delta' in data ? ` ${JSON.stringify(data.delta)}` : '';
  const body = (event: Event): void => {
    const details = event.target as HTMLDetailsElement;
    const pre = details.querySelector('pre');
    if (details.open && pre && !pre.textContent) {
      pre.textContent = JSON.stringify({ offset, tags, data }, null, 2);
    }
  };
  return html`<li><details @toggle=${body}><summary>
    <span class="offset">${offset ?? 'none'}</span><span class="type">${data.type}<span class="quiet">${detail}</span></span>
    </summary><pre></pre></details></li>`;
}

declare global {
  interface HTMLElementTagNameMap {
    'towpath-events': EventsElement;
  }
}
