// What runs asked before they ended, and what became of it.
//
// A question is open until somebody decides, its time is over, or the thread goes on without it.
// Whatever is heard first stays: a decision is never taken back.

import type { Interrupt, RunStarted } from './events.ts';

export type Standing = 'open' | 'approved' | 'refused' | 'expired' | 'gone';

export interface Question {
  readonly id: string;
  readonly run: string;
  readonly text: string;
  /** The tool call it is about. */
  readonly call: { readonly id: string; readonly name: string; readonly text: string } | null;
  /** The id of the message it is shown with. */
  readonly owner: string;
  state: Standing;
  /** When it expires, in Unix seconds, where that is known. */
  until: number | null;
  /** Whether a decision is on its way. */
  sending: boolean;
}

/** How a question stands on the server: a row of `run.get`. */
export interface InterruptRow {
  readonly interrupt_id: string;
  readonly status: Standing;
  readonly expires_at: number;
}

export const STANDING: Readonly<Record<Exclude<Standing, 'open'>, string>> = {
  approved: 'Approved',
  refused: 'Refused',
  expired: 'Expired, nobody decided in time',
  gone: 'Not decided, the conversation continued without it',
};

export class Questions {
  readonly all: Question[] = [];
  /** Sentences to be read out. */
  readonly said: string[] = [];

  /** The run that waits for a person's decision, null if none does. */
  get asking(): string | null {
    return this.all.find(({ state }) => state === 'open')?.run ?? null;
  }

  ask(run: string, asked: Interrupt, call: Question['call'], owner: string): Question {
    const text = asked.message || asked.reason || 'A decision is needed.';
    const question: Question = {
      id: asked.id, run, text, call, owner, state: 'open', until: null, sending: false,
    };
    this.all.push(question);
    this.said.push(`${text} Approve or refuse.`);
    return question;
  }

  /** Note where a question stands; what has been decided stays as it is. */
  settle(question: Question, state: Standing): void {
    if (question.state === 'open' && state !== 'open') {
      question.state = state;
      this.said.push(`${question.text} ${STANDING[state]}.`);
    }
  }

  /** Take what the server says of a run's questions; return those it is about. */
  stand(run: string, rows: readonly InterruptRow[]): Question[] {
    const mine = this.all.filter((one) => one.run === run);
    for (const question of mine) {
      const row = rows.find(({ interrupt_id: id }) => id === question.id);
      question.until = row ? row.expires_at : null;
      this.settle(question, row ? row.status : 'gone');
    }
    return mine;
  }

  /** A run begins, with the answers to what was open or without them; return what was open. */
  leave({ parentRunId, input }: RunStarted): Question[] {
    const answers = input?.resume ?? [];
    const open = this.all.filter(({ state }) => state === 'open');
    for (const question of open) {
      const answer = answers.find(({ interruptId }) => interruptId === question.id);
      const refused = answer?.status === 'cancelled' || answer?.payload?.approved === false;
      const answered = answer && parentRunId === question.run;
      this.settle(question, answered ? (refused ? 'refused' : 'approved') : 'gone');
    }
    return open;
  }
}
