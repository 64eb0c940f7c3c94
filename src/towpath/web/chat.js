// Wires the page: who is signed in, which thread is open, and what each control does.

import { digest } from './digest.js';
import { Line, wordsOf } from './line.js';
import { Thread } from './thread.js';
import { ThreadList, hashOf, idOf } from './threads.js';
import { ThreadView, make } from './view.js';

const USER = 'towpath.user'; // Where this tab remembers its demo user.
const at = (id) => document.getElementById(id);

const view = new ThreadView({
  stream: at('stream'),
  scroll: at('scroll'),
  status: at('run-status'),
  waiting: at('waiting'),
  announce: at('announce'),
  onCancel: cancelWaiting,
  decide,
});
const list = new ThreadList({
  list: at('threads'),
  none: at('no-threads'),
  older: at('older'),
  ask: (parameters) => line.ask('thread.list', parameters),
});

let line = null;
let thread = null; // What is shown of the open thread, null on a blank page.
let current = null; // Its id.
let stopListening = null;
let starting = false;
let agents = [];

// Signing in and out

async function enter() {
  let users = [];
  try {
    users = (await (await fetch('/page.json')).json()).demo_users;
  } catch {
    // Without an answer the page can still take a token.
  }
  at('demo-users').replaceChildren(...users.map(userButton));
  at('demo').hidden = users.length === 0;
  at('token-form').hidden = users.length > 0;
  const known = sessionStorage.getItem(USER);
  if (known && users.includes(known)) {
    signIn({ user: known });
  } else {
    showGate('');
  }
}

function userButton(user) {
  const initial = make('span', 'initial', user.slice(0, 1).toUpperCase());
  initial.setAttribute('aria-hidden', 'true');
  const button = make('button', 'demo-user', initial, user);
  button.type = 'button';
  button.addEventListener('click', () => signIn({ user }));
  return button;
}

function signIn(credential) {
  forget();
  if (credential.user) {
    sessionStorage.setItem(USER, credential.user);
  }
  at('who').textContent = credential.user || '…';
  at('gate').hidden = true;
  at('desk').hidden = false;
  line = new Line(credential, { onState: showState, onNotice: hear, onOnline: catchUp });
  openFromHash();
}

function signOut(reason) {
  forget();
  sessionStorage.removeItem(USER);
  history.replaceState(null, '', location.pathname);
  showGate(reason);
}

// Drop the connection and everything that belongs to the person.
function forget() {
  if (line) {
    line.close();
    line = null;
  }
  stopListening = null;
  current = null;
  starting = false;
  showThread(null);
  list.clear();
  say('');
  at('message').value = '';
  closeDrawer();
}

function showGate(reason) {
  at('gate').hidden = false;
  at('desk').hidden = true;
  at('gate-reason').textContent = reason;
  at('gate-reason').hidden = !reason;
}

function showState(state, reason) {
  if (state === 'signed out') {
    signOut(`Signed out. ${reason}`);
    return;
  }
  const words = { connecting: 'Connecting', reconnecting: 'Reconnecting', online: 'Online' };
  at('connection').textContent = words[state];
  at('connection').dataset.state = state;
  at('retry').hidden = state !== 'reconnecting';
}

// Each time the line is up: who we are, whom we can ask, and which threads there are.
async function catchUp() {
  const asked = line;
  try {
    const [me, known] = await Promise.all([
      asked.ask('whoami'), asked.ask('agent.list'), reload(), look(),
    ]);
    if (asked === line) {
      at('who').textContent = me.user;
      showAgents(known.agents);
      if (at('problem').dataset.about === 'list') {
        say('');
      }
    }
  } catch (error) {
    if (asked === line) {
      say(`Your threads could not be read: ${wordsOf(error)}`, 'list');
    }
  }
}

function showAgents(known) {
  const chosen = at('agent').value;
  agents = known;
  at('agent').replaceChildren(...agents.map(({ name }) => {
    const option = make('option', '', name);
    option.value = name;
    return option;
  }));
  if (agents.some(({ name }) => name === chosen)) {
    at('agent').value = chosen;
  }
  showHint();
}

// Threads

function hear(event) {
  const name = String((event && event.name) || '');
  const id = event && event.value && event.value.thread_id;
  if (name === 'towpath.thread.deleted') {
    list.remove(id);
    if (id === current) {
      go(null);
      say('This thread was deleted.');
    }
  }
  if (name === 'towpath.run.queued' && id === current) {
    waits(event.value.run_id, '');
  }
  if (name.startsWith('towpath.interrupt.') && thread && event.value.run_id === thread.asking) {
    look().catch(() => {}); // Whoever decides is told in any case.
  }
  if (name.startsWith('towpath.thread.') || name.startsWith('towpath.run.')) {
    reload().catch(() => {}); // It is asked for again each time the line comes up.
  }
}

async function reload() {
  await list.load();
  showTitle();
}

function openFromHash() {
  const id = idOf(location.hash);
  if (line && id !== current) {
    open(id);
  }
  closeDrawer();
}

function go(id) {
  history.pushState(null, '', hashOf(id));
  open(id);
}

function open(id) {
  if (stopListening) {
    stopListening();
  }
  current = id;
  stopListening = null;
  list.select(id);
  say('');
  showThread(null);
  if (id !== null) {
    stopListening = line.listen(id, {
      onStart: () => {
        showThread(new Thread());
        showWaiting(thread).catch(() => {}); // They are shown when their turn comes.
      },
      onEvent: take,
      onGone: gone,
    });
  }
}

function take(event, tags) {
  thread.feed(event, tags);
  view.refresh();
  showControls();
  if (event.type === 'RUN_FINISHED') {
    look().catch(() => {});
  }
}

function waits(run, text) {
  if (thread) {
    thread.wait(run, text);
    view.refresh();
  }
}

// Ask which runs wait for the thread that is shown, after all that began before was told.
async function showWaiting(shown) {
  const { runs } = await line.ask('run.list', { thread_id: current });
  if (shown === thread) {
    runs.filter(({ status }) => status === 'pending').reverse().forEach(({ run_id: run }) => waits(run, ''));
  }
}

function gone(code, reason) {
  const words = code === 102 ? 'There is no such thread.' : `${reason} (${code})`;
  stopListening = null;
  go(null);
  say(words);
}

function showThread(shown) {
  thread = shown;
  view.show(shown);
  showTitle();
  showControls();
}

function showTitle() {
  const title = current === null ? 'New thread' : list.title(current);
  at('title').textContent = title;
  document.title = current === null || !title ? 'Towpath' : `${title} · Towpath`;
  at('thread-actions').hidden = current === null;
  if (current === null) {
    closeRename();
  }
}

function showControls() {
  const active = Boolean(thread && thread.active);
  at('empty').hidden = current !== null;
  at('stop').hidden = !active;
  at('send').hidden = active;
  at('send').disabled = starting;
  at('message').readOnly = starting;
}

function showHint() {
  const chosen = agents.find(({ name }) => name === at('agent').value);
  at('empty-hint').textContent = (chosen && chosen.description) || '';
}

// Asking

async function send() {
  const message = at('message').value;
  if (!message.trim() || starting || !line) {
    return;
  }
  if (!at('agent').value) {
    say('Not sent: there is no connection yet.');
    return;
  }
  const asked = { line, thread: current };
  const parameters = { agent: at('agent').value, message };
  if (current !== null) {
    parameters.thread_id = current;
  }
  say('');
  starting = true;
  showControls();
  try {
    const { thread_id: id, run_id: run } = await line.change('run.start', parameters);
    if (asked.line === line) {
      if (thread && thread.waiting.has(run)) {
        waits(run, message); // The notice came first.
      }
      at('message').value = '';
      fit();
      if (asked.thread === null && current === null) {
        go(id);
      }
    }
  } catch (error) {
    if (asked.line === line) {
      say(`Not sent: ${wordsOf(error)}`);
    }
  } finally {
    if (asked.line === line) {
      starting = false;
      showControls();
    }
  }
}

async function stop() {
  try {
    await line.change('run.cancel', { run_id: thread.run.id });
  } catch (error) {
    say(`Not stopped: ${wordsOf(error)}`);
  }
}

async function cancelWaiting(run) {
  const shown = thread;
  try {
    await line.change('run.cancel', { run_id: run });
    shown.waitNoMore(run);
    view.refresh();
  } catch (error) {
    say(`Not cancelled: ${wordsOf(error)}`);
  }
}

// Ask where the questions stand that the open thread waits with.
async function look() {
  const shown = thread;
  if (shown && shown.asking && line) {
    const run = shown.asking;
    const { interrupts } = await line.ask('run.get', { run_id: run });
    shown.stand(run, interrupts);
    view.refresh();
  }
}

async function decide(question, decision, shown) {
  const asked = { line, thread };
  const parameters = { run_id: question.run, interrupt_id: question.id, decision };
  if (shown !== null) {
    parameters.digest = digest(shown);
  }
  const note = (sending) => {
    question.sending = sending;
    asked.thread.changed.add(question.owner);
    view.refresh();
  };
  say('');
  note(true);
  try {
    const { status } = await line.change('run.approve', parameters);
    if (status === 'accepted') {
      asked.thread.settle(question, decision === 'approve' ? 'approved' : 'refused');
    } else {
      await look(); // Somebody else was first, or it was too late.
    }
  } catch (error) {
    if (asked.line === line) {
      say(`Not decided: ${wordsOf(error)}`);
    }
  } finally {
    note(false);
  }
}

async function rename(title) {
  try {
    await line.change('thread.rename', { thread_id: current, title });
    closeRename();
  } catch (error) {
    say(`Not renamed: ${wordsOf(error)}`);
  }
}

async function remove(id) {
  try {
    await line.change('thread.delete', { thread_id: id });
    list.remove(id);
    if (id === current) {
      go(null);
    }
  } catch (error) {
    say(`Not deleted: ${wordsOf(error)}`);
  }
}

function say(problem, about = '') {
  at('problem').dataset.about = about;
  at('problem').textContent = problem;
  at('problem').hidden = !problem;
}

// Controls

function fit() {
  const field = at('message');
  field.style.height = 'auto';
  field.style.height = `${field.scrollHeight}px`;
}

function openRename() {
  at('rename-form').hidden = false;
  at('title').hidden = true;
  at('thread-actions').classList.add('away');
  at('rename-title').value = list.title(current);
  at('rename-title').select();
}

function closeRename() {
  at('rename-form').hidden = true;
  at('title').hidden = false;
  at('thread-actions').classList.remove('away');
}

function openDrawer() {
  at('drawer').classList.add('open');
  at('backdrop').hidden = false;
  at('menu').setAttribute('aria-expanded', 'true');
  at('new-thread').focus();
}

function closeDrawer() {
  if (at('drawer').classList.contains('open')) {
    at('menu').focus();
  }
  at('drawer').classList.remove('open');
  at('backdrop').hidden = true;
  at('menu').setAttribute('aria-expanded', 'false');
}

function confirmDelete() {
  const id = current;
  const dialog = at('confirm');
  at('confirm-text').textContent = `Delete “${list.title(id)}” and everything in it?`;
  dialog.returnValue = 'no';
  dialog.addEventListener('close', () => dialog.returnValue === 'yes' && remove(id), { once: true });
  dialog.showModal();
}

at('token-form').addEventListener('submit', (event) => {
  event.preventDefault();
  const token = at('token').value.trim();
  at('token').value = '';
  signIn({ token });
});
at('retry').addEventListener('click', () => line.retry());
at('sign-out').addEventListener('click', () => signOut(''));
at('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  send();
});
at('message').addEventListener('input', fit);
at('message').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
at('stop').addEventListener('click', stop);
at('agent').addEventListener('change', showHint);
at('new-thread').addEventListener('click', () => {
  closeDrawer();
  at('message').focus();
});
at('rename').addEventListener('click', openRename);
at('rename-cancel').addEventListener('click', closeRename);
at('rename-form').addEventListener('submit', (event) => {
  event.preventDefault();
  rename(at('rename-title').value.trim());
});
at('rename-title').addEventListener('keydown', (event) => event.key === 'Escape' && closeRename());
at('delete').addEventListener('click', confirmDelete);
at('menu').addEventListener('click', openDrawer);
at('backdrop').addEventListener('click', closeDrawer);
document.addEventListener('keydown', (event) => event.key === 'Escape' && closeDrawer());
window.addEventListener('hashchange', openFromHash);

enter();
