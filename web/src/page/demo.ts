// Demo users, whom a gateway in development offers to pages on its own machine.

/** Return their names; none in production, or if the server does not answer. */
export async function demoUsers(): Promise<string[]> {
  try {
    const answer = await fetch('page.json');
    return ((await answer.json()) as { demo_users: string[] }).demo_users;
  } catch {
    return []; // The page can still take a token.
  }
}

/** Return a token for a demo user, null if there is no such user any more. */
export async function demoToken(user: string): Promise<string | null> {
  const answer = await fetch('dev/token', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ user }),
  });
  if (answer.status === 404) {
    return null;
  }
  if (!answer.ok) {
    throw new Error(`no token now (${answer.status})`);
  }
  return ((await answer.json()) as { token: string }).token;
}
