// The list of a person's threads, the latest first, as far as it has been asked for.

import { make } from './view.js';

const PAGE = 50;

export class ThreadList {
  constructor({ list, none, older, ask }) {
    Object.assign(this, { list, none, older, ask });
    this.rows = new Map();
    this.current = null;
    this.asked = 0;
    older.addEventListener('click', () => this.loadOlder());
  }

  title(id) {
    const row = this.rows.get(id);
    return row ? row.title || 'Untitled' : '';
  }

  // Ask for the newest page; what is older than it stays as it was.
  async load() {
    const turn = (this.asked += 1);
    const { threads } = await this.ask({ limit: PAGE });
    if (turn !== this.asked) {
      return;
    }
    const oldest = threads.length < PAGE ? -Infinity : threads[PAGE - 1].updated_at;
    for (const row of [...this.rows.values()]) {
      if (row.updated_at >= oldest) {
        this.rows.delete(row.id);
      }
    }
    this.add(threads);
    if (this.rows.size === threads.length) {
      this.older.hidden = threads.length < PAGE;
    }
  }

  async loadOlder() {
    const before = Math.min(...[...this.rows.values()].map((row) => row.updated_at));
    const { threads } = await this.ask({ limit: PAGE, before });
    this.older.hidden = threads.length < PAGE;
    this.add(threads);
  }

  add(threads) {
    threads.forEach((row) => this.rows.set(row.id, row));
    this.draw();
  }

  remove(id) {
    this.rows.delete(id);
    this.draw();
  }

  select(id) {
    this.current = id;
    this.draw();
  }

  clear() {
    this.asked += 1;
    this.rows.clear();
    this.current = null;
    this.draw();
  }

  draw() {
    const rows = [...this.rows.values()].sort((a, b) => b.updated_at - a.updated_at);
    const focused = document.activeElement && document.activeElement.dataset.thread;
    this.list.replaceChildren(...rows.map((row) => this.item(row)));
    this.none.hidden = rows.length > 0;
    if (focused) {
      const link = [...this.list.querySelectorAll('a')].find((a) => a.dataset.thread === focused);
      if (link) {
        link.focus();
      }
    }
  }

  item(row) {
    const when = make('time', 'when', shortTime(new Date(row.updated_at * 1000)));
    const link = make('a', 'thread', make('span', 'thread-title', row.title || 'Untitled'), when);
    if (row.active_run) {
      when.textContent = 'running';
      link.classList.add('running');
    }
    link.href = hashOf(row.id);
    link.dataset.thread = row.id;
    if (row.id === this.current) {
      link.setAttribute('aria-current', 'page');
    }
    return make('li', '', link);
  }
}

export function hashOf(id) {
  return id === null ? '#' : `#thread=${encodeURIComponent(id)}`;
}

export function idOf(hash) {
  const found = /^#thread=(.+)$/.exec(hash);
  try {
    return found && decodeURIComponent(found[1]);
  } catch {
    return null;
  }
}

function shortTime(date) {
  const today = date.toDateString() === new Date().toDateString();
  const shape = today
    ? { hour: '2-digit', minute: '2-digit' }
    : { day: 'numeric', month: 'short' };
  return new Intl.DateTimeFormat(undefined, shape).format(date);
}
