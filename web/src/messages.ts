// What is shown of a thread: messages, the tool calls in them, and the latest run.

import type { Question } from './questions.ts';

export type Role = 'user' | 'assistant' | 'reasoning';
export type Phase =
  | 'started' | 'thinking' | 'tool' | 'writing' | 'finished' | 'cancelled' | 'interrupted' | 'failed';

export interface Call {
  readonly id: string;
  readonly name: string;
  readonly owner: string;
  text: string;
  complete: boolean;
  result: string | null;
}

export interface Message {
  readonly id: string;
  role: Role;
  text: string;
  revision: number;
  readonly calls: Call[];
  readonly questions: Question[];
  /** Whether more of it may come. */
  open: boolean;
}

export interface Run {
  readonly id: string;
  /** Who answers; empty where a prelude does not say. */
  agent: string;
  phase: Phase;
  detail: string;
  code: string;
  message: string;
}
