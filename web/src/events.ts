// The AG-UI 1.0 events that the page shows, and what the wire puts around them.

export type Tags = Readonly<Record<string, string>>;

/** One publication on a thread, as it came. */
export interface Publication {
  readonly data: AgEvent;
  readonly tags: Tags;
  /** Absent in a prelude and inside a joined tail. */
  readonly offset: number | undefined;
}

export interface ToolCall {
  readonly id: string;
  readonly type?: string;
  readonly function: { readonly name: string; readonly arguments: string };
}

/** A message as AG-UI writes it. */
export interface WireMessage {
  readonly id: string;
  readonly role: string;
  readonly content?: unknown;
  readonly toolCalls?: readonly ToolCall[];
  readonly toolCallId?: string;
}

export interface Interrupt {
  readonly id: string;
  readonly reason?: string;
  readonly message?: string;
  readonly toolCallId?: string;
}

export interface Resume {
  readonly interruptId: string;
  readonly status?: string;
  readonly payload?: { readonly approved?: boolean } | null;
}

export interface RunStarted {
  readonly type: 'RUN_STARTED';
  readonly runId: string;
  readonly parentRunId?: string;
  readonly input?: { readonly messages?: readonly WireMessage[]; readonly resume?: readonly Resume[] };
}

export interface RunFinished {
  readonly type: 'RUN_FINISHED';
  readonly runId: string;
  readonly outcome?: { readonly type?: string; readonly interrupts?: readonly Interrupt[] };
}

export type AgEvent =
  | RunStarted
  | RunFinished
  | { readonly type: 'RUN_ERROR'; readonly message?: string; readonly code?: string }
  | { readonly type: 'STEP_STARTED'; readonly stepName: string }
  | { readonly type: 'MESSAGES_SNAPSHOT'; readonly messages: readonly WireMessage[] }
  | { readonly type: 'TEXT_MESSAGE_START'; readonly messageId: string; readonly role?: string }
  | { readonly type: 'TEXT_MESSAGE_CONTENT'; readonly messageId: string; readonly delta: string }
  | { readonly type: 'TEXT_MESSAGE_END'; readonly messageId: string }
  | { readonly type: 'REASONING_START'; readonly messageId: string }
  | { readonly type: 'REASONING_MESSAGE_START'; readonly messageId: string }
  | { readonly type: 'REASONING_MESSAGE_CONTENT'; readonly messageId: string; readonly delta: string }
  | { readonly type: 'REASONING_MESSAGE_END'; readonly messageId: string }
  | {
      readonly type: 'TOOL_CALL_START';
      readonly toolCallId: string;
      readonly toolCallName: string;
      readonly parentMessageId?: string;
    }
  | { readonly type: 'TOOL_CALL_ARGS'; readonly toolCallId: string; readonly delta: string }
  | { readonly type: 'TOOL_CALL_END'; readonly toolCallId: string }
  | { readonly type: 'TOOL_CALL_RESULT'; readonly toolCallId: string; readonly content: unknown };

/** Return the text of a message's content, whichever of AG-UI's shapes it has. */
export function textOf(content: unknown): string {
  if (typeof content === 'string') {
    return content;
  }
  if (!Array.isArray(content)) {
    return content === undefined || content === null ? '' : JSON.stringify(content);
  }
  return content
    .map((part: { type?: string; text?: string }) => (part.type === 'text' ? part.text : `[${part.type}]`))
    .join(' ');
}
