// The npm SDK on strings: one command per line of stdin, everything it tells per line of stdout.
// Commands carry a number and get one answer; "ask" is the way back, for getToken and getState.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(new URL('../../../web/package.json', import.meta.url));
const { Centrifuge } = require('centrifuge');
const WebSocket = require('ws');

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// What the SDK writes and how its sockets end, seen from outside.
class Watched extends WebSocket {
  constructor(...given) {
    super(...given);
    this.addEventListener('close', ({ code, reason }) => say({ tell: 'close', code, reason }));
  }

  send(data, ...given) {
    const names = (line) => Object.keys(JSON.parse(line)).filter((key) => key !== 'id');
    say({ tell: 'sent', commands: data.trim().split('\n').flatMap(names) });
    super.send(data, ...given);
  }
}

const asked = new Map();
let lastAsk = 0;
const ask = (what) =>
  new Promise((resolve) => {
    lastAsk += 1;
    asked.set(lastAsk, resolve);
    say({ ask: lastAsk, what });
  });

let client;
const subscriptions = new Map();

function open({ url, token, getToken }) {
  client = new Centrifuge(url, {
    websocket: Watched,
    minReconnectDelay: 50,
    maxReconnectDelay: 500,
    ...(token ? { token } : {}),
    ...(getToken ? { getToken: () => ask('token') } : {}),
  });
  for (const name of ['connected', 'connecting', 'disconnected', 'error']) {
    client.on(name, (context) => say({ tell: name, context }));
  }
  for (const name of ['subscribed', 'publication']) {
    client.on(name, (context) => say({ tell: `server.${name}`, context }));
  }
}

function subscribe({ channel, since, getState }) {
  const subscription = client.newSubscription(channel, {
    minResubscribeDelay: 50,
    ...(since ? { since } : {}),
    ...(getState ? { getState: () => ask(channel) } : {}),
  });
  subscriptions.set(channel, subscription);
  for (const name of ['subscribed', 'publication', 'unsubscribed', 'error']) {
    subscription.on(name, (context) => say({ tell: `thread.${name}`, channel, context }));
  }
  subscription.subscribe();
}

const actions = {
  open,
  subscribe,
  connect: () => client.connect(),
  disconnect: () => client.disconnect(),
  setToken: ({ token }) => client.setToken(token),
  unsubscribe: ({ channel }) => subscriptions.get(channel).unsubscribe(),
  resubscribe: ({ channel }) => subscriptions.get(channel).subscribe(),
  rpc: async ({ method, data }) => (await client.rpc(method, data)).data,
};

createInterface({ input: process.stdin })
  .on('line', async (text) => {
    const line = JSON.parse(text);
    if (line.reply !== undefined) {
      asked.get(line.reply)(line.value);
      return;
    }
    try {
      say({ answer: line.id, result: (await actions[line.do](line)) ?? null });
    } catch ({ code, message }) {
      say({ answer: line.id, error: { code: code ?? 0, message } });
    }
  })
  .on('close', () => process.exit(0));
