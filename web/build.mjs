// Build what the gateway serves: the element, the page around it, and the notices of what they hold.
//
// Usage: node build.mjs DIRECTORY

import { copyFile, mkdir, rm } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'vite';
import { collectNotices, writeNotices } from './notices.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const target = resolve(process.argv[2] ?? resolve(here, '../src/towpath/web'));
const bundled = new Set();

async function bundle(entry, fileName, name) {
  await build({
    root: here,
    configFile: false,
    publicDir: false,
    logLevel: 'warn',
    define: { 'process.env.NODE_ENV': '"production"' },
    plugins: [collectNotices(bundled)],
    build: {
      outDir: target,
      emptyOutDir: false,
      target: 'es2022',
      // A classic script: a foreign page may load it without any header of the gateway's.
      lib: { entry: resolve(here, 'src', entry), formats: ['iife'], name, fileName: () => fileName },
    },
  });
}

await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
await bundle('chat.ts', 'towpath-chat.js', 'Towpath');
await bundle('page.ts', 'page.js', 'TowpathPage');
for (const file of ['index.html', 'page.css']) {
  await copyFile(resolve(here, 'page', file), resolve(target, file));
}
await writeNotices(bundled, here, resolve(target, 'THIRD-PARTY-NOTICES.txt'));
