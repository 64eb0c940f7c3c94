// How the chat is laid out: threads, the open one, and the events beside it. It looks at its own
// width, not the window's, so that it fits a phone and a corner of a page alike.

import { css } from 'lit';

export const frame = css`
  :host {
    display: block; height: 100%; min-height: 20rem; container-type: inline-size; color-scheme: light dark;
    background: var(--_sheet); color: var(--_ink); font: 1rem/1.6 var(--_sans);
    -webkit-text-size-adjust: 100%;
  }
  :host([theme="light"]) { color-scheme: light; }
  :host([theme="dark"]) { color-scheme: dark; }
  .session {
    position: relative; height: 100%; overflow: hidden; display: grid; grid-auto-flow: column;
    grid-template: minmax(0, 1fr) / 17rem minmax(0, 1fr); grid-auto-columns: 24rem;
  }
  aside { display: grid; grid-template-rows: auto minmax(0, 1fr) auto; min-height: 0; border-right: 1px solid var(--_line); background: var(--_paper); }
  .brand { padding: 1rem 1.5rem .75rem; font: 700 1.125rem/1.4 var(--_serif); color: var(--_accent); }
  .brand::before { content: "≈" / ""; margin-right: .4em; font-weight: 400; }
  footer { min-height: 3.5rem; padding: .5rem .75rem .5rem 1.5rem; border-top: 1px solid var(--_line); display: grid; align-items: center; }
  main { display: grid; grid-template: auto minmax(0, 1fr) auto / minmax(0, 1fr); min-width: 0; min-height: 0; background: var(--_sheet); }
  header { display: flex; border-bottom: 1px solid var(--_line); align-items: center; gap: .5rem; min-height: 3.5rem; padding: .5rem .75rem .5rem 1.5rem; }
  #menu { display: none; }
  .backdrop { position: absolute; inset: 0; z-index: 1; background: rgb(0 0 0 / .4); }
  .gate { height: 100%; display: grid; place-content: center; justify-items: center; gap: .75rem; padding: 1.5rem; text-align: center; }
  .gate h2 { font: 600 1.5rem/1.3 var(--_serif); }

  @container (max-width: 64rem) {
    towpath-events { position: absolute; inset: 0 0 0 auto; z-index: 2; width: min(24rem, 100%); box-shadow: 0 0 24px var(--_shadow); }
  }
  @container (max-width: 46rem) {
    .session { grid-template-columns: minmax(0, 1fr); }
    aside {
      position: absolute; inset: 0 auto 0 0; z-index: 2; width: min(19rem, 85%);
      visibility: hidden; transform: translateX(-100%); transition: transform .18s ease, visibility .18s;
    }
    aside.open { visibility: visible; transform: none; transition: transform .18s ease; } /* It can have the focus at once. */
    #menu { display: inline-flex; }
    header { padding: .5rem .5rem .5rem .375rem; gap: .125rem; flex-wrap: wrap; }
    towpath-title { flex-basis: 0; }
    towpath-connection[away] { order: 1; flex-basis: 100%; justify-content: center; }
  }
`;
