"""Contexts and principals: who a person is, in application code."""

from datetime import datetime
from typing import Any, assert_type

from towpath import Principal, UserExecutionContext

context = UserExecutionContext(tenant="acme", user="alice", thread="t-1")
child = context.create_child_context(run="r-1")
principal = Principal(tenant="acme", user="alice", roles=frozenset({"towpath:operator"}))


def values_have_their_types() -> None:
    """Ids are texts, times are datetimes, and a child is a context."""
    assert_type(context.user, str)
    assert_type(context.thread, str | None)
    assert_type(context.created, datetime)
    assert_type(child, UserExecutionContext)
    assert_type(UserExecutionContext.of(principal, thread="t-1"), UserExecutionContext)
    assert_type(child.get_scoped_key("basket"), str)
    assert_type(child.verify_isolation(context), bool)
    assert_type(child.to_dict(), dict[str, Any])
    assert_type(principal.roles, frozenset[str])
    assert_type(principal.expires_at, float | None)


def mistakes() -> None:
    """A type checker finds each of these before the program runs."""
    UserExecutionContext(tenant="acme")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    UserExecutionContext("acme", "alice")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Principal(tenant="acme", user=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    context.user = "bob"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    principal.user = "bob"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
