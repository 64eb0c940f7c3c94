// oauth2-mock-server on strings: one command per line of stdin, one answer per line of stdout.
// It ends with its stdin, so nothing outlives the test that started it.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const require = createRequire(new URL('../../web/package.json', import.meta.url));
const { OAuth2Server } = await import(pathToFileURL(require.resolve('oauth2-mock-server')));

const server = new OAuth2Server();
const { keys } = server.issuer;
const published = [];

// The package adds keys and never takes one away, and signs with each in turn.
const list = keys.toJSON.bind(keys);
keys.toJSON = (secret) => list(secret).filter(({ kid }) => published.includes(kid));
const pick = keys.get.bind(keys);
keys.get = (kid) => pick(kid ?? published.at(-1));

// What a rule or an action of a hosted provider does: claims of its own, here from the request.
server.service.on('beforeTokenSigning', ({ payload }, { body }) => {
  Object.assign(payload, JSON.parse(body.claims ?? '{}'));
});

async function rotate({ algorithm, keepOld }) {
  const { kid } = await keys.generate(algorithm);
  published.splice(0, keepOld ? 0 : published.length);
  published.push(kid);
}

async function act(command) {
  if (command.do === 'start') {
    await rotate(command);
    await server.start(command.port, '127.0.0.1');
  } else if (command.do === 'rotate') {
    await rotate(command);
  } else if (command.do === 'issuer') {
    server.issuer.url = command.url;
  }
  return { port: server.address().port, kids: published };
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await act(JSON.parse(line)))}\n`);
}
process.exit();
