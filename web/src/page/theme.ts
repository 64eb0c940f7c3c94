// Light or dark: what the system says, unless the person said otherwise in this browser.

import type { ChatElement } from '../elements/chat.ts';

const THEME = 'towpath.theme';
const dark = matchMedia('(prefers-color-scheme: dark)');

function chosen(): 'light' | 'dark' | '' {
  const theme = localStorage.getItem(THEME);
  return theme === 'light' || theme === 'dark' ? theme : '';
}

/** Show the theme that is chosen. */
export function showTheme(chat: ChatElement): void {
  const theme = chosen();
  document.documentElement.dataset.theme = theme;
  chat.theme = theme;
}

/** Go to the other theme; one that is the system's own is followed from then on. */
export function switchTheme(chat: ChatElement): void {
  const system = dark.matches ? 'dark' : 'light';
  const other = (chosen() || system) === 'dark' ? 'light' : 'dark';
  if (other === system) {
    localStorage.removeItem(THEME);
  } else {
    localStorage.setItem(THEME, other);
  }
  showTheme(chat);
}
