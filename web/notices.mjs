// The licences of the packages whose code is in the bundles, as their authors ask for.

import { readFile, readdir, writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';

const PACKAGE = /node_modules\/((?:@[^/]+\/)?[^/]+)\//;

/** Return a plugin that notes the packages a bundle is made of. */
export function collectNotices(packages) {
  return {
    name: 'notices',
    generateBundle(_, bundle) {
      for (const chunk of Object.values(bundle)) {
        for (const module of Object.keys(chunk.modules ?? {})) {
          const name = PACKAGE.exec(module)?.[1];
          if (name) {
            packages.add(name);
          }
        }
      }
    },
  };
}

/** Write one file with each package's name, version and licence. */
export async function writeNotices(packages, root, target) {
  const parts = ['The scripts in this folder hold code of these packages.\n'];
  for (const name of [...packages].sort()) {
    const folder = resolve(root, 'node_modules', name);
    const { version, license } = JSON.parse(await readFile(resolve(folder, 'package.json'), 'utf8'));
    const files = (await readdir(folder)).filter((file) => /^licen[cs]e/i.test(file)).sort();
    if (files.length === 0) {
      throw new Error(`${name} has no licence file`);
    }
    const text = await readFile(resolve(folder, files[0]), 'utf8');
    parts.push(`${'='.repeat(78)}\n${name} ${version} (${license})\n${'='.repeat(78)}\n\n${text.trim()}\n`);
  }
  await writeFile(target, parts.join('\n'));
}
