// The few pictures there are, drawn with one pen.

import { svg } from 'lit';
import type { TemplateResult } from 'lit';

function icon(path: string): TemplateResult {
  return svg`<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.75"
    stroke-linecap="round" stroke-linejoin="round" aria-hidden="true"><path d=${path} /></svg>`;
}

export const menuIcon = icon('M4 7h16M4 12h16M4 17h10');
export const newIcon = icon('M12 5v14M5 12h14');
export const searchIcon = icon('M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14M16 16l4.5 4.5');
export const renameIcon = icon('M4 20h4L19 9a2.1 2.1 0 0 0-3-3L5 17l-1 3M14 8l3 3');
export const deleteIcon = icon('M5 7h14M10 7V4.5h4V7M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5');
export const eventsIcon = icon('M8 7l-5 5 5 5M16 7l5 5-5 5M13.5 5l-3 14');
export const sendIcon = icon('M12 19V5M6 11l6-6 6 6');
export const copyIcon = icon('M9 9h10v11H9zM15 9V5H5v11h4');
export const againIcon = icon('M5 12a7 7 0 1 0 2.2-5.1M4.5 4v4h4');
export const downIcon = icon('M12 5v14M6 13l6 6 6-6');
export const closeIcon = icon('M6 6l12 12M18 6L6 18');
