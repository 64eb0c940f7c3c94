"""Retired names: a type checker reports what PEP 702 can express, and knows no other old name.

`tests/test_aliases.py` checks that each retired method of the table stands here.
"""

import towpath
from towpath import UnifiedAuthenticationService
from towpath.auth.revocations import Revocation


def methods(service: UnifiedAuthenticationService, revocation: Revocation) -> None:
    """Each of them still has the type of its replacement."""
    service.hear(revocation)  # type: ignore[deprecated]  # pyright: ignore[reportDeprecated]
    service.hear(5)  # type: ignore[arg-type, deprecated]  # pyright: ignore[reportDeprecated, reportArgumentType]
    repr(UnifiedAuthenticationService.hear)  # type: ignore[deprecated]  # pyright: ignore[reportDeprecated]


def names() -> None:
    """The old place of a name is unknown, and so is a name that never was."""
    repr(towpath.hooks)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    repr(towpath.Gatewey)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
