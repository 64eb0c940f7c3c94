// How Markdown looks.

import { css } from 'lit';

export const prose = css`
  .block > * + *, .block:not(:empty) + .block > * { margin-top: .75em; }
  p, li, h1, h2, h3, h4, h5, h6, td, th { overflow-wrap: anywhere; }
  h1, h2, h3, h4, h5, h6 { margin: 0; font-family: var(--_serif); font-weight: 600; line-height: 1.3; text-wrap: balance; }
  .block > :is(h1, h2, h3, h4):not(:first-child) { margin-top: 1.25em; }
  h1 { font-size: 1.5rem; }
  h2 { font-size: 1.25rem; }
  h3 { font-size: 1.0625rem; }
  ul, ol { margin: 0; padding-left: 1.5em; }
  li + li, li > :is(ul, ol, p) { margin-top: .25em; }
  li::marker { color: var(--_quiet); }
  a { color: var(--_accent); text-underline-offset: .2em; overflow-wrap: anywhere; }
  hr { height: 1px; border: 0; background: var(--_line); }
  blockquote { margin: 0; padding-left: 1em; border-left: 3px solid var(--_line); color: var(--_quiet); }
  blockquote > * + * { margin-top: .5em; }
  code { font-family: var(--_mono); font-size: .875em; background: var(--_code); border-radius: .3em; padding: .1em .3em; overflow-wrap: anywhere; }
  figure { border: 1px solid var(--_line); border-radius: .75rem; background: var(--_code); overflow: hidden; }
  figcaption {
    display: flex; align-items: center; justify-content: space-between; padding: .125rem .375rem .125rem .875rem;
    border-bottom: 1px solid var(--_line); color: var(--_quiet); font: .8125rem/1.5 var(--_mono);
  }
  figcaption button { font-family: var(--_sans); }
  pre { margin: 0; padding: .75rem .875rem; max-height: 32rem; overflow: auto; font: .8125rem/1.6 var(--_mono); tab-size: 4; }
  pre:focus-visible { outline-offset: -2px; border-radius: 0 0 .75rem .75rem; }
  pre code { font: inherit; background: none; padding: 0; overflow-wrap: normal; }
  .table { overflow-x: auto; }
  table { border-collapse: collapse; font-size: .9375em; }
  th, td { padding: .375em .75em; border-bottom: 1px solid var(--_line); text-align: left; vertical-align: top; overflow-wrap: normal; min-width: 5em; }
  :is(th, td):first-child { padding-left: 0; }
  th { font-weight: 600; border-bottom-width: 2px; }
  td[align="right"], th[align="right"] { text-align: right; }
  td[align="center"], th[align="center"] { text-align: center; }
`;
