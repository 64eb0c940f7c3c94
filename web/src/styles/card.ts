// The frame of tool calls and questions.

import { css } from 'lit';

export const card = css`
  :host { display: block; min-width: 0; }
  .card { border: 1px solid var(--_line); border-radius: .75rem; background: var(--_sheet); overflow: hidden; font-size: .875rem; }
  .part { display: grid; grid-template-columns: 5.5rem minmax(0, 1fr); padding: .3125rem .875rem; border-top: 1px solid var(--_line); }
  .label { color: var(--_quiet); font-size: .8125rem; line-height: 1.6rem; }
  pre {
    margin: 0; max-height: 16rem; overflow: auto; font: .8125rem/1.6rem var(--_mono);
    white-space: pre-wrap; overflow-wrap: anywhere;
  }
  @container (max-width: 46rem) { .part { grid-template-columns: minmax(0, 1fr); } }
`;
