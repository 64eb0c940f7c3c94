// `<towpath-chat>`: the whole chat as one element that any page can hold.
//
// What it takes: `url` (the gateway), `token` or `getToken`, `agent` (asked without a choice), `thread`
// (the open one), `hash` (keep it in the page's address), `theme` (`light` or `dark`), `developer`
// (offer the events). What it tells: `towpath-thread` and `towpath-signed-out`. The slot `foot` stands
// below the list of threads.

import { LitElement, html, nothing } from 'lit';
import type { PropertyValues } from 'lit';
import { customElement, property, query, state } from 'lit/decorators.js';
import { hashOf, idOf } from '../address.ts';
import { ChatSession } from '../chat-session.ts';
import type { GetToken } from '../line.ts';
import { base, controls, look } from '../styles/look.ts';
import { frame } from '../styles/frame.ts';
import './composer.ts';
import type { ComposerElement } from './composer.ts';
import './connection.ts';
import './conversation.ts';
import type { ConversationElement } from './conversation.ts';
import './events.ts';
import './title.ts';
import './threads.ts';
import { eventsIcon, menuIcon } from './icons.ts';

@customElement('towpath-chat')
export class ChatElement extends LitElement {
  static override styles = [look, base, controls, frame];

  @property() url = '';
  @property() agent = '';
  @property() thread: string | null = null;
  @property({ reflect: true }) theme: 'light' | 'dark' | '' = '';
  @property({ type: Boolean }) hash = false;
  @property({ type: Boolean }) developer = false;
  @property({ attribute: false }) token: string | undefined;
  @property({ attribute: false }) getToken: GetToken | undefined;

  @state() private session: ChatSession | null = null;
  @state() private revision = 0;
  @state() private drawer = false;
  @state() private events = false;
  @state() private ended = '';
  @query('towpath-composer') private readonly composer!: ComposerElement | null;
  @query('towpath-conversation') private readonly conversation!: ConversationElement | null;
  @query('#menu') private readonly menu!: HTMLElement | null;
  private frame = 0;
  private told = '';

  override connectedCallback(): void {
    super.connectedCallback();
    window.addEventListener('hashchange', this.followHash);
    window.addEventListener('popstate', this.followHash);
    if (this.hasUpdated) {
      this.begin();
    }
  }

  override disconnectedCallback(): void {
    super.disconnectedCallback();
    window.removeEventListener('hashchange', this.followHash);
    window.removeEventListener('popstate', this.followHash);
    this.leave();
  }

  override willUpdate(changed: PropertyValues<this>): void {
    if (['url', 'token', 'getToken', 'agent'].some((name) => changed.has(name as keyof ChatElement))) {
      this.begin();
    } else if (changed.has('thread')) {
      this.session?.open(this.thread);
    }
  }

  /** Connect again after the end. */
  begin(): void {
    this.leave();
    this.ended = '';
    if (this.token || this.getToken) {
      const credential = { token: this.token, getToken: this.getToken };
      this.session = new ChatSession(this.url || '.', credential, this.agent, {
        changed: () => this.changed(),
        opened: (id) => this.opened(id),
        signedOut: (reason) => this.end(reason),
      });
      this.session.open(this.hash ? idOf(location.hash) : this.thread);
    }
  }

  override render(): unknown {
    const { session, revision } = this;
    if (!session) {
      return html`<div class="gate"><h2>Signed out</h2>
        <p class="quiet" role="alert">${this.ended || 'There is no token to connect with.'}</p>
        ${this.ended ? html`<button class="primary" type="button" @click=${() => this.begin()}>Connect again</button>` : nothing}
      </div>`;
    }
    return html`<div class="session" @keydown=${this.pressed}>
      <div class="backdrop" ?hidden=${!this.drawer} @click=${() => this.closeDrawer()}></div>
      <aside id="drawer" class=${this.drawer ? 'open' : ''} aria-label="Threads">
        <slot name="head"><p class="brand">Towpath</p></slot>
        <towpath-threads .session=${session} .revision=${revision} .addressed=${this.hash} @chosen=${this.chosen}></towpath-threads>
        <footer><slot name="foot"><span class="quiet small">${session.user}</span></slot></footer>
      </aside>
      <main>
        <header>
          <button id="menu" class="plain icon" type="button" aria-controls="drawer" aria-expanded=${this.drawer}
            aria-label="Threads" @click=${() => this.openDrawer()}>${menuIcon}</button>
          <towpath-title .session=${session} .current=${session.current} .words=${session.title}></towpath-title>
          <towpath-connection .state=${session.state} .retry=${() => session.retryLine()}></towpath-connection>
          ${this.developer ? html`<button id="events" class="plain icon" type="button" aria-label="Events" title="Events"
            aria-pressed=${this.events} @click=${() => { this.events = !this.events; }}>${eventsIcon}</button>` : nothing}
        </header>
        <towpath-conversation .session=${session} .revision=${revision}></towpath-conversation>
        <towpath-composer .session=${session} .revision=${revision} .fixed=${this.agent !== ''}
          @sent=${() => this.conversation?.latest()}></towpath-composer>
      </main>
      ${this.events ? html`<towpath-events .log=${session.conversation?.log ?? null}
        @closed=${() => this.closeEvents()}></towpath-events>` : nothing}
    </div>`;
  }

  override updated(): void {
    const { session } = this;
    if (session) {
      const detail = { thread: session.current, title: session.title, user: session.user };
      const told = JSON.stringify(detail);
      if (told !== this.told) {
        this.told = told;
        this.tell('towpath-thread', detail);
      }
    }
  }

  // However many events come within a frame, they are drawn together.
  private changed(): void {
    if (this.frame === 0) {
      this.frame = requestAnimationFrame(() => this.draw());
      // A page out of sight has no frames; what it says and how it is has to go on there too.
      if (document.hidden) {
        setTimeout(() => this.draw(), 100);
      }
    }
  }

  private draw(): void {
    if (this.frame !== 0) {
      cancelAnimationFrame(this.frame);
      this.frame = 0;
      this.revision += 1;
    }
  }

  private opened(id: string | null): void {
    this.thread = id;
    if (this.hash && idOf(location.hash) !== id) {
      history.pushState(null, '', hashOf(id));
    }
    this.changed();
  }

  private readonly followHash = (): void => {
    if (this.hash) {
      this.session?.open(idOf(location.hash));
      this.drawer = false;
    }
  };

  private end(reason: string): void {
    this.leave();
    this.ended = reason;
    this.tell('towpath-signed-out', { reason });
  }

  private leave(): void {
    this.session?.close();
    this.session = null;
    this.drawer = false;
  }

  private chosen(event: CustomEvent<string | null>): void {
    this.closeDrawer();
    if (event.detail === null) {
      this.composer?.focus();
    }
  }

  private openDrawer(): void {
    this.drawer = true;
    void this.updateComplete.then(() => {
      this.renderRoot.querySelector('towpath-threads')?.shadowRoot?.querySelector<HTMLElement>('.new')?.focus();
    });
  }

  private closeDrawer(): void {
    if (this.drawer) {
      this.drawer = false;
      this.menu?.focus();
    }
  }

  private closeEvents(): void {
    this.events = false;
    this.renderRoot.querySelector<HTMLElement>('#events')?.focus();
  }

  private pressed(event: KeyboardEvent): void {
    if (event.key === 'Escape') {
      this.closeDrawer();
    }
  }

  private tell(name: string, detail: object): void {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }
}

declare global {
  interface HTMLElementTagNameMap {
    'towpath-chat': ChatElement;
  }
}
