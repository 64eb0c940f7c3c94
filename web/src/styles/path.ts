// How a thread is laid out. What an agent does stands along a path: a line with a mark for each step,
// from the question to the end of the run.

import { css } from 'lit';

export const path = css`
  :host { position: relative; display: grid; grid-template: minmax(0, 1fr) / minmax(0, 1fr); min-height: 0; }
  #scroll { overflow-y: auto; overscroll-behavior: contain; scrollbar-gutter: stable; }
  #scroll:focus-visible { outline-offset: -2px; }
  .column { max-width: 46rem; margin: 0 auto; padding: 1.75rem 1.25rem 1.25rem; }
  .opening { padding-top: 18vh; text-align: center; }

  .empty { padding: 16vh 0 0; text-align: center; }
  .empty svg { width: 7.5rem; fill: none; stroke: var(--_accent); stroke-width: 2; stroke-linecap: round; opacity: .7; }
  .empty h2 { margin: 1rem 0 .375rem; font: 600 1.75rem/1.25 var(--_serif); text-wrap: balance; }

  .earlier { display: flex; margin: 0 auto 1rem; }
  #stream { display: flex; flex-direction: column; }
  /* Space below and the line beside are inside a message: what stands out of it would not be drawn. */
  .message { position: relative; padding-bottom: 1rem; content-visibility: auto; contain-intrinsic-block-size: auto 6rem; }
  .message.user { padding-bottom: 1.25rem; }
  .message:not(.user).last { padding-bottom: 0; margin-bottom: 1.75rem; }

  .message:not(.user), .status { padding-left: 1.75rem; }
  .message:not(.user)::before, .status::before {
    content: ""; position: absolute; left: .3125rem; top: 0; bottom: 0; width: 2px; background: var(--_line);
  }
  .message:not(.user)::after {
    content: ""; position: absolute; left: 0; top: .4375rem; width: .75rem; height: .75rem;
    border: 2px solid var(--_line); border-radius: 50%; background: var(--_sheet);
  }
  .message.assistant::after { border-color: var(--_accent); }
  .message.reasoning::after { top: .3125rem; border-style: dotted; border-color: var(--_quiet); }

  .status { position: relative; display: flex; align-items: center; gap: .75rem; min-height: 2rem; }
  .status::before { bottom: 50%; }
  .status button { flex: none; }
  #run-status { color: var(--_quiet); font-size: .8125rem; overflow-wrap: anywhere; }
  #run-status::before {
    content: ""; position: absolute; left: 0; top: calc(50% - .375rem); width: .75rem; height: .75rem;
    border-radius: 50%; background: var(--_accent); animation: breathe 1.2s ease-in-out infinite;
  }
  #run-status[data-phase="finished"]::before { background: var(--_good); animation: none; }
  #run-status[data-phase="cancelled"]::before { background: var(--_quiet); animation: none; }
  #run-status[data-phase="interrupted"]::before { background: var(--_warn); animation: none; }
  #run-status[data-phase="failed"] { color: var(--_bad); }
  #run-status[data-phase="failed"]::before { background: var(--_bad); animation: none; }

  #waiting { display: grid; gap: .75rem; margin-top: 1rem; }
  .waits { display: grid; justify-items: end; gap: .125rem; }
  .waits .text {
    max-width: 85%; padding: .5rem .9375rem; border: 1px dashed var(--_line); border-radius: 1.125rem 1.125rem .25rem 1.125rem;
    color: var(--_quiet); white-space: pre-wrap; overflow-wrap: anywhere;
  }
  .waits-row { display: flex; align-items: center; gap: .5rem; color: var(--_quiet); font-size: .8125rem; }

  .latest {
    position: absolute; left: 50%; bottom: .75rem; transform: translateX(-50%); border-radius: 999px;
    box-shadow: 0 2px 10px var(--_shadow); font-size: .8125rem;
  }
  @container (max-width: 46rem) { .column { padding: 1.25rem .875rem .75rem; } }
`;
