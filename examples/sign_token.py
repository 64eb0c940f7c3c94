"""Sign a token for a user, as a back end of yours does for the people who are signed in.

    python examples/sign_token.py alice

The key is in TOWPATH_JWT_KEY, which the gateway reads too; the token is good for an hour. Paste it
on the chat page.
"""

import os
import sys
import time

from joserfc import jwt
from joserfc.jwk import OctKey


def sign_token(user: str) -> str:
    """Return a token for a user."""
    now = int(time.time())
    claims = {"sub": user, "iat": now, "exp": now + 3600}
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(os.environ["TOWPATH_JWT_KEY"]))


if __name__ == "__main__":
    print(sign_token(sys.argv[1]))  # noqa: T201
