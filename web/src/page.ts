// The page around `<towpath-chat>`: who is signed in, the theme, and the title of the tab.
//
// It uses the element as any other page would: by its properties and its events.

import type { ChatElement } from './elements/chat.ts';
import { demoToken, demoUsers } from './page/demo.ts';
import { showTheme, switchTheme } from './page/theme.ts';

const USER = 'towpath.user'; // Where this tab remembers its demo user.

function at<Kind extends HTMLElement>(id: string): Kind {
  return document.getElementById(id) as Kind;
}

const chat = at<ChatElement>('chat');

async function enter(): Promise<void> {
  const users = await demoUsers();
  at('demo-users').replaceChildren(...users.map(userButton));
  at('demo').hidden = users.length === 0;
  at('token-form').hidden = users.length > 0;
  const known = sessionStorage.getItem(USER);
  if (known && users.includes(known)) {
    signInAs(known);
  } else {
    showGate('');
  }
}

function userButton(user: string): HTMLElement {
  const initial = document.createElement('span');
  initial.className = 'initial';
  initial.ariaHidden = 'true';
  initial.textContent = user.slice(0, 1).toUpperCase();
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'demo-user';
  button.append(initial, user);
  button.addEventListener('click', () => signInAs(user));
  return button;
}

function signInAs(user: string): void {
  sessionStorage.setItem(USER, user);
  show(user);
  chat.getToken = () => demoToken(user);
}

function signInWith(token: string): void {
  show('…');
  chat.token = token;
}

function show(user: string): void {
  at('who').textContent = user;
  at('gate').hidden = true;
  chat.hidden = false;
}

function signOut(reason: string): void {
  chat.token = undefined;
  chat.getToken = undefined;
  sessionStorage.removeItem(USER);
  history.replaceState(null, '', location.pathname);
  showGate(reason);
}

function showGate(reason: string): void {
  chat.hidden = true;
  at('gate').hidden = false;
  at('gate-reason').textContent = reason;
  at('gate-reason').hidden = !reason;
  document.title = 'Towpath';
}

chat.addEventListener('towpath-thread', (event) => {
  const { thread, title, user } = (event as CustomEvent<{ thread: string | null; title: string; user: string }>).detail;
  document.title = thread === null || !title ? 'Towpath' : `${title} · Towpath`;
  if (user) {
    at('who').textContent = user;
  }
});
chat.addEventListener('towpath-signed-out', (event) => {
  signOut(`Signed out. ${(event as CustomEvent<{ reason: string }>).detail.reason}`);
});
at('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const field = at<HTMLInputElement>('token');
  const token = field.value.trim();
  field.value = '';
  signInWith(token);
});
at('sign-out').addEventListener('click', () => signOut(''));
at('theme').addEventListener('click', () => switchTheme(chat));
showTheme(chat);
void enter();
