// The colours, type and spaces of every element, named once for light and once for dark.
//
// A page that embeds the chat sets the `--towpath-*` properties; `--_*` is what the elements use.

import { css } from 'lit';

export const look = css`
  :host {
    --_paper: var(--towpath-paper, light-dark(#f6f3ec, #12181a));
    --_sheet: var(--towpath-sheet, light-dark(#fffdf9, #182022));
    --_line: var(--towpath-line, light-dark(#e3ddd0, #2c3739));
    --_ink: var(--towpath-ink, light-dark(#22292b, #e7e4dc));
    --_quiet: var(--towpath-quiet, light-dark(#5e6766, #9caaa8));
    --_accent: var(--towpath-accent, light-dark(#0d6560, #67c7bb));
    --_on-accent: var(--towpath-on-accent, light-dark(#ffffff, #0a2220));
    --_tint: var(--towpath-tint, light-dark(#e4efeb, #1f3432));
    --_bad: var(--towpath-bad, light-dark(#a02f1d, #f49d88));
    --_bad-tint: var(--towpath-bad-tint, light-dark(#fbeae5, #38211c));
    --_warn: var(--towpath-warn, light-dark(#855600, #e3b860));
    --_warn-tint: var(--towpath-warn-tint, light-dark(#fbf1dc, #322a18));
    --_good: var(--towpath-good, light-dark(#2a7648, #7fcf9c));
    --_code: var(--towpath-code, light-dark(#f3efe6, #11191b));
    --_shadow: light-dark(rgb(60 50 30 / .08), rgb(0 0 0 / .35));
    --_sans: var(--towpath-font, system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif);
    --_serif: var(--towpath-title-font, "Iowan Old Style", "Palatino Linotype", Palatino, "Source Serif 4", "Noto Serif", "DejaVu Serif", Georgia, serif);
    --_mono: var(--towpath-mono, ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace);
  }
`;

export const base = css`
  :host { box-sizing: border-box; }
  :host([hidden]), [hidden] { display: none !important; }
  *, *::before, *::after { box-sizing: border-box; }
  h1, h2, h3, p, ul, ol, figure { margin: 0; padding: 0; font-size: inherit; }
  :focus-visible { outline: 2px solid var(--_accent); outline-offset: 2px; }
  .quiet { color: var(--_quiet); }
  .small { font-size: .8125rem; }
  .unseen {
    position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); white-space: nowrap;
  }
  @keyframes breathe { 50% { opacity: .25; } }
  @media (prefers-reduced-motion: reduce) {
    *, *::before, *::after { animation: none !important; transition: none !important; }
  }
`;

export const controls = css`
  button, input, select, textarea { font: inherit; color: inherit; letter-spacing: inherit; }
  button {
    display: inline-flex; align-items: center; justify-content: center; gap: .5rem;
    border: 1px solid var(--_line); border-radius: .625rem; background: var(--_sheet);
    padding: .3125rem .75rem; min-height: 2.25rem; cursor: pointer; white-space: nowrap;
  }
  button:enabled:hover { border-color: var(--_accent); }
  button:disabled { opacity: .5; cursor: default; }
  button.primary { background: var(--_accent); border-color: var(--_accent); color: var(--_on-accent); font-weight: 600; }
  button.primary:enabled:hover { filter: brightness(1.08); }
  button.danger { background: var(--_bad); border-color: var(--_bad); color: var(--_sheet); }
  button.plain { border-color: transparent; background: transparent; color: var(--_quiet); }
  button.plain:enabled:hover { color: var(--_ink); background: var(--_tint); border-color: transparent; }
  button.icon { min-width: 2.25rem; padding: 0; }
  button.tiny { min-height: 1.75rem; padding: .125rem .5rem; font-size: .8125rem; gap: .375rem; }
  button svg { width: 1.125rem; height: 1.125rem; flex: none; }
  button.tiny svg { width: .9375rem; height: .9375rem; }
  input, select {
    border: 1px solid var(--_line); border-radius: .625rem; background: var(--_sheet);
    padding: .3125rem .625rem; min-height: 2.25rem;
  }
  @media (pointer: coarse) {
    button, input, select { min-height: 2.75rem; }
    button.icon { min-width: 2.75rem; }
    button.tiny { min-height: 2.25rem; }
  }
`;
