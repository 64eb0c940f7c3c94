// The verifier of @ag-ui/client over the JSON array of events on stdin; says "legal" or what is not.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../../web/package.json', import.meta.url));
const { verifyEvents } = require('@ag-ui/client');
const { from } = require('rxjs');

for (const events of JSON.parse(readFileSync(0, 'utf8'))) {
  from(events)
    .pipe(verifyEvents(false))
    .subscribe({
      error: (error) => console.log(JSON.stringify(error.message)),
      complete: () => console.log(JSON.stringify('legal')),
    });
}
