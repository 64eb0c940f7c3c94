// The sentences a person reads: how a run fares, how the line is, why something failed.

import type { LineState } from './line.ts';
import type { Run } from './messages.ts';

const ENDINGS: Readonly<Record<string, string>> = {
  'run.failed': 'the agent broke off',
  'run.deadline': 'the agent took too long',
  'run.lost': 'the server stopped while the agent answered',
  'run.drained': 'the server was taken out of service',
  'run.illegal_event': 'the agent sent something it may not send here',
  'run.too_large': 'the answer grew too large',
  'run.storage': 'the server could not store the answer',
};

/** Return how a run fares. */
export function runWords(run: Run, asking: boolean): string {
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
  1: 'The credential is no longer good.',
  109: 'The token has expired.',
  3500: 'The token was not accepted.',
  3501: 'The server did not understand this page.',
  3502: 'The server did not hear who this is.',
  3503: 'The server ended this connection.',
  3504: 'Too many connections of this user are open.',
  3507: 'You are no longer allowed in.',
};

/** Return why a connection ended for good. */
export function endWords(code: number, reason: string): string {
  return CLOSES[code] ?? `${reason} (${code}).`;
}

const AWAY = {
  reconnecting: 'Reconnecting',
  moving: 'Server is restarting, reconnecting',
  offline: 'Offline, trying again',
} as const;

/** Return how the line is, at a time in milliseconds. */
export function lineWords(state: LineState, now: number): string {
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

/** Return in words a person can use why something failed. */
export function errorWords(error: unknown): string {
  const { code, message, temporary } = asFailure(error);
  if (code !== null && code < 100) {
    return 'there was no answer. Try again, it will not be done twice.';
  }
  if (temporary) {
    return `${message}. Try again, it will not be done twice.`;
  }
  return code === null ? message : `${message} (${code})`;
}

/** Whether a request may have been done although it failed. */
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

/** Return a time of day, or a day and a time where it is not today's. */
export function timeWords(seconds: number, now: Date): string {
  const date = new Date(seconds * 1000);
  const today = date.toDateString() === now.toDateString();
  const shape: Intl.DateTimeFormatOptions = today
    ? { timeStyle: 'short' }
    : { dateStyle: 'medium', timeStyle: 'short' };
  return new Intl.DateTimeFormat(undefined, shape).format(date);
}

/** Return JSON as a person reads it, and any other text as it is. */
export function pretty(text: string): string {
  try {
    const value: unknown = JSON.parse(text);
    const short = JSON.stringify(value);
    return short.length <= 72 ? short : JSON.stringify(value, null, 2);
  } catch {
    return text;
  }
}
