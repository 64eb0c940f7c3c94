"""Parameters are valid from birth, and a caller acts in their own tenant with a role only."""

from typing import Any

import msgspec
import pytest

from towpath.auth.policy import Action
from towpath.errors import BadRequest, PermissionDenied
from towpath.identity import Principal
from towpath.methods.method import Caller, Id, Method, Mutation, ShortText
from towpath.methods.table import METHODS

IDS = {"request_id", "thread_id", "run_id", "interrupt_id"}
MALFORMED = ("a\nb", "a\x00", " ", "\u2028", "\ufeff")


class Sample(Mutation, frozen=True, kw_only=True):
    """Parameters of a method that does not exist."""

    before: Id | None = None
    note: ShortText = "-"


def decoded(**fields: Any) -> Sample:
    return msgspec.json.decode(msgspec.json.encode(fields), type=Sample)


def converted(**fields: Any) -> Sample:
    return msgspec.convert(fields, Sample)


@pytest.mark.parametrize("read", [decoded, converted, Sample])
@pytest.mark.parametrize("value", MALFORMED)
def test_a_malformed_id_makes_no_parameters(read: Any, value: str) -> None:
    """RPC, REST and Python code refuse an unprintable or blank id with the same sentence."""
    with pytest.raises(BadRequest, match="107 request_id must be 1 to 128 printable"):
        read(request_id=value)
    with pytest.raises(BadRequest, match="107 before must be 1 to 128 printable"):
        read(request_id="q", before=value)


@pytest.mark.parametrize("read", [decoded, converted])
def test_what_is_no_id_may_hold_any_characters(read: Any) -> None:
    """Text that is no id, and an optional id that is left out, are taken as they are."""
    made = read(request_id="q", note="a\nb")
    assert (made.request_id, made.before, made.note) == ("q", None, "a\nb")


@pytest.mark.parametrize("value", ["", "x" * 129])
def test_an_id_has_a_length(value: str) -> None:
    """The bounds of an id's length are part of its type."""
    with pytest.raises(msgspec.ValidationError):
        decoded(request_id=value)


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda one: str(one.name))
def test_every_field_that_is_named_as_an_id_is_one(method: Method[Any]) -> None:
    """No method takes a request, thread, run or interrupt id that is not validated."""
    fields = {one.name: one.type for one in msgspec.structs.fields(method.params)}
    assert {name for name in IDS & fields.keys() if fields[name] not in (Id, Id | None)} == set()


def test_a_caller_acts_in_their_own_tenant_with_a_role() -> None:
    """A role gives an action in the caller's tenant, and nothing else does."""
    operator = Principal(tenant="acme", user="o", roles=frozenset({"towpath:operator"}))
    assert Caller(principal=operator).require(Action.REVOKE) == "acme"
    assert Caller(principal=operator).require(Action.REVOKE, "acme") == "acme"
    for action, tenant in ((Action.REVOKE, "globex"), (Action.PUBLISH, None)):
        with pytest.raises(PermissionDenied):
            Caller(principal=operator).require(action, tenant)
    with pytest.raises(PermissionDenied):
        Caller(principal=Principal(tenant="acme", user="alice")).require(Action.INSPECT)
