// The one connection of this tab: signing in, asking, and listening to a thread.
//
// The SDK holds the state machine; this room gives it a credential and turns what it says into
// three callbacks: `onState(state, reason)`, `onNotice(event)` and `onOnline()`.

const TERMINAL_WORDS = {
  1: 'The credential is no longer good.',
  109: 'The token has expired.',
  3500: 'The token was not accepted.',
  3503: 'The server ended this connection.',
  3504: 'Too many connections of this user are open.',
  3507: 'You are no longer allowed in.',
};

export class Line {
  // `credential` is {user} for a demo user or {token}.
  constructor(credential, { onState, onNotice, onOnline }) {
    this.ids = new Map();
    this.centrifuge = new Centrifuge(address(), {
      token: credential.token || '',
      getToken: () => (credential.user ? demoToken(credential.user) : expired()),
    });
    let before = false;
    this.centrifuge.on('connecting', () => onState(before ? 'reconnecting' : 'connecting', ''));
    this.centrifuge.on('connected', () => {
      before = true;
      onState('online', '');
      onOnline();
    });
    this.centrifuge.on('disconnected', ({ code, reason }) => {
      if (code !== 0) {
        onState('signed out', TERMINAL_WORDS[code] || `${reason} (${code}).`);
      }
    });
    this.centrifuge.on('publication', ({ channel, data }) => {
      if (channel === 'user') {
        onNotice(data);
      }
    });
    this.centrifuge.connect();
  }

  // Try to connect at once instead of at the next turn; nothing while the line is up.
  retry() {
    if (this.centrifuge.state === Centrifuge.State.Connecting) {
      this.centrifuge.disconnect();
      this.centrifuge.connect();
    }
  }

  close() {
    this.centrifuge.disconnect();
  }

  async ask(method, parameters = {}) {
    return (await this.centrifuge.rpc(method, parameters)).data;
  }

  // Ask for a change. Until the server has answered, asking the same again is the same request:
  // it carries the same id, so that a lost answer does nothing twice.
  async change(method, parameters) {
    const key = JSON.stringify([method, parameters]);
    const id = this.ids.get(key) || newId();
    this.ids.set(key, id);
    try {
      const answer = await this.ask(method, { ...parameters, request_id: id });
      this.ids.delete(key);
      return answer;
    } catch (error) {
      if (!unanswered(error)) {
        this.ids.delete(key);
      }
      throw error;
    }
  }

  // Listen to a thread from its beginning; return what ends it. `onStart` says that what follows
  // rebuilds the thread from nothing, `onEvent` brings each event, `onGone` that there is none.
  listen(thread, { onStart, onEvent, onGone }) {
    const subscription = this.centrifuge.newSubscription(`thread:${thread}`, {
      since: { offset: 0, epoch: '' },
    });
    let fresh = true;
    subscription.on('subscribed', ({ recovered }) => {
      if (fresh || !recovered) {
        onStart();
      }
      fresh = false;
    });
    subscription.on('publication', ({ data, tags }) => onEvent(data, tags));
    subscription.on('unsubscribed', ({ code, reason }) => {
      if (code !== 0) {
        onGone(code, reason);
      }
    });
    subscription.subscribe();
    return () => {
      subscription.unsubscribe();
      this.centrifuge.removeSubscription(subscription);
    };
  }
}

// Say in words a person can use why something failed.
export function wordsOf(error) {
  if (unanswered(error)) {
    return 'there was no answer. Try again, it will not be done twice.';
  }
  return error && error.code ? `${error.message} (${error.code})` : String(error);
}

function unanswered(error) {
  return Boolean(error) && (error.code < 100 || error.temporary === true);
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function address() {
  const scheme = location.protocol === 'https:' ? 'wss:' : 'ws:';
  return `${scheme}//${location.host}/connection/websocket`;
}

async function demoToken(user) {
  const answer = await fetch('/dev/token', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ user }),
  });
  if (answer.status === 404) {
    throw new Centrifuge.UnauthorizedError('no such demo user');
  }
  if (!answer.ok) {
    throw new Error(`no token now (${answer.status})`);
  }
  return (await answer.json()).token;
}

async function expired() {
  throw new Centrifuge.UnauthorizedError('the pasted token has expired');
}
