// The texts a person reads: the state of a run, the state of the connection, why something failed.

import type { LineState } from './line.ts';
import type { Run } from './messages.ts';

const ENDINGS: Readonly<Record<string, string>> = {
  'run.failed': 'the agent failed',
  'run.deadline': 'the agent took too long',
  'run.lost': 'the server stopped while the agent answered',
  'run.drained': 'the server was shut down',
  'run.illegal_event': 'the agent sent an event that is not allowed here',
  'run.too_large': 'the answer became too large',
  'run.storage': 'the server could not store the answer',
};

/** Return the state of a run. */
export function runText(run: Run, asking: boolean): string {
  switch (run.phase) {
    case 'started': return 'Started';
    case 'thinking': return run.detail ? `Thinking: ${run.detail}` : 'Thinking';
    case 'tool': return `Using ${run.detail}`;
    case 'writing': return 'Writing';
    case 'finished': return 'Finished';
    case 'cancelled': return 'Cancelled';
    case 'interrupted': return asking ? 'Waiting for a decision' : 'Ended without a decision';
    case 'failed': return `Failed: ${ENDINGS[run.code] ?? (run.message || 'no reason was given')}`
      + (run.code ? ` (${run.code})` : '');
  }
}

const CLOSES: Readonly<Record<number, string>> = {
  1: 'The credential is not valid any more.',
  109: 'The token has expired.',
  3500: 'The token was not accepted.',
  3501: 'The server could not read a message of this page.',
  3502: 'The page did not authenticate in time.',
  3503: 'The server closed this connection.',
  3504: 'This user has too many open connections.',
  3507: 'Your access was revoked.',
};

/** Return why a connection ended and will not reconnect. */
export function endText(code: number, reason: string): string {
  return CLOSES[code] ?? `${reason} (${code}).`;
}

const AWAY = {
  reconnecting: 'Reconnecting',
  moving: 'Server is restarting, reconnecting',
  offline: 'Offline, retrying',
} as const;

/** Return the state of the connection, at a time in milliseconds. */
export function lineText(state: LineState, now: number): string {
  switch (state.name) {
    case 'connecting': return 'Connecting';
    case 'online': return 'Online';
    case 'signed-out': return 'Signed out';
    default: {
      const seconds = state.at === null ? 0 : Math.ceil((state.at - now) / 1000);
      return AWAY[state.name] + (seconds > 0 ? ` in ${seconds} s` : '');
    }
  }
}

/** Return why something failed, for a person. */
export function errorText(error: unknown): string {
  const { code, message, temporary } = asFailure(error);
  if (code !== null && code < 100) {
    return 'there was no answer. Try again: it takes effect only once.';
  }
  if (temporary) {
    return `${message}. Try again: it takes effect only once.`;
  }
  return code === null ? message : `${message} (${code})`;
}

/** Whether a request may have taken effect although it failed. */
export function unanswered(error: unknown): boolean {
  const { code, temporary } = asFailure(error);
  return (code !== null && code < 100) || temporary;
}

function asFailure(error: unknown): { code: number | null; message: string; temporary: boolean } {
  const given = (error ?? {}) as { code?: unknown; message?: unknown; temporary?: unknown };
  return {
    code: typeof given.code === 'number' ? given.code : null,
    message: typeof given.message === 'string' && given.message ? given.message : String(error),
    temporary: given.temporary === true,
  };
}

/** Return a time of day, or a date and a time if it is not today. */
export function timeText(seconds: number, now: Date): string {
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === now.toDateString();
  const shape: Intl.DateTimeFormatOptions = today
    ? { timeStyle: 'short' }
    : { dateStyle: 'medium', timeStyle: 'short' };
  return new Intl.DateTimeFormat(undefined, shape).format(date);
}

/** Return JSON indented, and any other text unchanged. */
export function pretty(text: string): string {
  try {
    const value: unknown = JSON.parse(text);
    const short = JSON.stringify(value);
    return short.length <= 72 ? short : JSON.stringify(value, null, 2);
  } catch {
    return text;
  }
}
