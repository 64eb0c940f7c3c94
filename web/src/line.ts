// The one connection of this element, and the truth about it.
//
// The unmodified SDK holds the protocol; this room gives it a credential, says in five words how the
// line is, and decides when to try again, so that the countdown a person sees is the one that runs.
// It uses what the SDK documents, nothing else.

import { Centrifuge, State, UnauthorizedError } from 'centrifuge';
import type { Subscription } from 'centrifuge';
import type { Publication, AgEvent, Tags } from './events.ts';
import { Pace } from './pace.ts';
import { endText, unanswered } from './texts.ts';

const OURS = 30_000; // Milliseconds; longer than any pace of ours, so that the SDK's never comes first.
const MOVING = 3001;

export type LineState =
  | { readonly name: 'connecting' }
  | { readonly name: 'online' }
  /** `at` is when it tries again, null while it tries. A server that said it leaves is `moving`;
   * a device that has no network is `offline`, and may all the same reach a server on itself. */
  | { readonly name: 'reconnecting' | 'moving' | 'offline'; readonly at: number | null }
  | { readonly name: 'signed-out'; readonly reason: string };

/** Gives a token; nothing means that there is none any more. */
export type GetToken = () => Promise<string | null | undefined> | string | null | undefined;

export interface Credential {
  readonly token?: string | undefined;
  readonly getToken?: GetToken | undefined;
}

export interface LineListener {
  onState(state: LineState): void;
  /** A notice for this person. */
  onNotice(event: unknown): void;
  /** Each time the line is up. */
  onOnline(): void;
}

export interface ThreadListener {
  /** What follows rebuilds the thread from nothing. */
  onStart(): void;
  onPublication(publication: Publication): void;
  /** There is none, or it may not be read. */
  onGone(code: number, reason: string): void;
}

export class Line {
  state: LineState = { name: 'connecting' };
  private readonly centrifuge: Centrifuge;
  private readonly pace = new Pace();
  private readonly requests = new Map<string, string>();
  private timer: ReturnType<typeof setTimeout> | undefined;
  private wasOnline = false;
  private moving = false;

  /** Connect.
   *
   * @param url of the gateway, where its page is; `http` and `https` become `ws` and `wss`.
   */
  constructor(url: string, credential: Credential, private readonly listener: LineListener) {
    this.centrifuge = new Centrifuge(addressOf(url), {
      token: credential.token ?? '',
      getToken: async () => {
        const token = await credential.getToken?.();
        if (!token) {
          throw new UnauthorizedError('there is no token any more');
        }
        return token;
      },
      minReconnectDelay: OURS,
      maxReconnectDelay: OURS,
    });
    this.centrifuge.on('connecting', ({ code }) => this.trying(code));
    this.centrifuge.on('error', () => this.failed());
    this.centrifuge.on('connected', () => this.arrived());
    this.centrifuge.on('disconnected', ({ code, reason }) => {
      if (code !== 0) {
        this.tell({ name: 'signed-out', reason: endText(code, reason) });
      }
    });
    this.centrifuge.on('publication', ({ channel, data }) => {
      if (channel === 'user') {
        listener.onNotice(data);
      }
    });
    window.addEventListener('offline', this.network);
    window.addEventListener('online', this.network);
    this.centrifuge.connect();
  }

  /** Try to connect at once instead of at the next turn; nothing while the line is up. */
  retry(): void {
    if (this.centrifuge.state === State.Connecting) {
      clearTimeout(this.timer);
      this.centrifuge.disconnect();
      this.centrifuge.connect();
    }
  }

  close(): void {
    clearTimeout(this.timer);
    window.removeEventListener('offline', this.network);
    window.removeEventListener('online', this.network);
    this.centrifuge.removeAllListeners();
    this.centrifuge.disconnect();
  }

  async ask<Answer>(method: string, parameters: object = {}): Promise<Answer> {
    return (await this.centrifuge.rpc(method, parameters)).data as Answer;
  }

  /** Ask for a change.
   *
   * Until the server has answered, asking the same again is the same request: it carries the same
   * id, so that a lost answer does nothing twice.
   */
  async change<Answer>(method: string, parameters: object): Promise<Answer> {
    const key = JSON.stringify([method, parameters]);
    const id = this.requests.get(key) ?? newId();
    this.requests.set(key, id);
    try {
      const answer = await this.ask<Answer>(method, { ...parameters, request_id: id });
      this.requests.delete(key);
      return answer;
    } catch (error) {
      if (!unanswered(error)) {
        this.requests.delete(key);
      }
      throw error;
    }
  }

  /** Listen to a thread from its beginning; return what ends it. */
  listen(thread: string, listener: ThreadListener): () => void {
    const subscription = this.centrifuge.newSubscription(`thread:${thread}`, {
      since: { offset: 0, epoch: '' },
    });
    let fresh = true;
    subscription.on('subscribed', ({ recovered }) => {
      if (fresh || !recovered) {
        listener.onStart();
      }
      fresh = false;
    });
    subscription.on('publication', ({ data, tags, offset }) => {
      listener.onPublication({ data: data as AgEvent, tags: (tags ?? {}) as Tags, offset });
    });
    subscription.on('unsubscribed', ({ code, reason }) => {
      if (code !== 0) {
        listener.onGone(code, reason);
      }
    });
    subscription.subscribe();
    return () => this.leave(subscription);
  }

  private leave(subscription: Subscription): void {
    subscription.removeAllListeners();
    subscription.unsubscribe();
    this.centrifuge.removeSubscription(subscription);
  }

  // The SDK tries at once when the network is back; until then the pace goes on.
  private readonly network = (): void => {
    if (this.centrifuge.state === State.Connecting) {
      this.tell(this.away('at' in this.state ? this.state.at : null));
    }
  };

  private trying(code: number): void {
    this.moving = code === MOVING || (this.moving && code <= 1);
    this.tell(this.away(null));
    if (code !== 0) {
      this.failed(); // The line was lost, and nothing has been tried yet.
    }
  }

  private failed(): void {
    if (this.centrifuge.state !== State.Connecting) {
      return;
    }
    clearTimeout(this.timer);
    const delay = this.pace.next();
    this.timer = setTimeout(() => this.retry(), delay);
    this.tell(this.away(Date.now() + delay));
  }

  private away(at: number | null): LineState {
    if (!navigator.onLine) {
      return { name: 'offline', at };
    }
    return this.wasOnline || at !== null
      ? { name: this.moving ? 'moving' : 'reconnecting', at }
      : { name: 'connecting' };
  }

  private arrived(): void {
    clearTimeout(this.timer);
    this.pace.reset();
    this.wasOnline = true;
    this.moving = false;
    this.tell({ name: 'online' });
    this.listener.onOnline();
  }

  private tell(state: LineState): void {
    this.state = state;
    this.listener.onState(state);
  }
}

export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Return the address of the socket of the gateway whose page is at `url`. */
export function addressOf(url: string): string {
  const base = new URL(url, document.baseURI);
  const path = base.pathname.endsWith('/') ? base.pathname : `${base.pathname}/`;
  const address = new URL(`${path}connection/websocket`, base);
  address.protocol = base.protocol === 'http:' || base.protocol === 'ws:' ? 'ws:' : 'wss:';
  return address.href;
}
