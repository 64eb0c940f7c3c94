// HttpAgent of @ag-ui/client, driven by one JSON object on stdin; what its subscriber saw on stdout.
// The resuming fetch and the agent that connects are the guide's own code, handed in as text.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../../web/package.json', import.meta.url));
const client = require('@ag-ui/client');

const given = JSON.parse(readFileSync(0, 'utf8'));
const { url, token, threadId, runId, message, forwardedProps, code, connect } = given;
const { resumingFetch, ThreadAgent } = new Function(
  ...Object.keys(client),
  `${code}; return { resumingFetch, ThreadAgent };`,
)(...Object.values(client));

const seen = { types: [], errors: [], console: [] };
const subscriber = {
  onEvent: ({ event }) => {
    seen.types.push(event.type);
  },
  onRunFailed: ({ error }) => {
    seen.errors.push(error.message);
  },
  onRunErrorEvent: ({ event }) => {
    seen.errors.push(event.message);
  },
};
process.on('unhandledRejection', (error) => seen.console.push(`unhandled: ${error.message}`));
for (const name of ['warn', 'error']) console[name] = (...words) => seen.console.push(words.join(' '));

const agent = new ThreadAgent({
  url,
  threadId,
  headers: { Authorization: `Bearer ${token}` },
  ...(given.resuming ? { fetch: resumingFetch } : {}),
});
try {
  if (connect) {
    await agent.connectAgent({ runId }, subscriber);
  } else {
    agent.addMessage({ id: 'asked', role: 'user', content: message });
    await agent.runAgent({ runId, forwardedProps }, subscriber);
  }
} catch (error) {
  seen.errors.push(error.message);
}
process.stdout.write(JSON.stringify({ ...seen, messages: agent.messages, state: agent.state }));
