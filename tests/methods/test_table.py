"""The table of methods is consistent, and a call of it ends in a result or in an error of ours."""

import re
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.methods.stage import methods_staged
from tests.runs.stage import ALICE
from towpath.errors import BadRequest, MethodNotFound, StorageError, Unavailable
from towpath.methods.method import Caller, Method
from towpath.methods.table import METHODS

ROWS = list(METHODS.values())
NOT_REPEATED = {"ticket.create", "digest.report"}
"""A ticket is a secret that is good once, and not to be remembered; a report changes nothing."""


def named(method: Method[Any]) -> str:
    return method.name


@pytest.mark.parametrize("method", ROWS, ids=named)
def test_a_row_says_what_its_handler_takes_and_returns(method: Method[Any]) -> None:
    """The types of the table are those of the handler's signature."""
    hints = typing.get_type_hints(method.handler)
    result = hints.pop("return")
    assert list(hints.values()) == [Caller, method.params]
    assert result is method.result


@pytest.mark.parametrize("method", ROWS, ids=named)
def test_a_route_names_parameters_of_the_method(method: Method[Any]) -> None:
    """What stands in braces in a path is a required parameter."""
    fields = {one.name: one.required for one in msgspec.structs.fields(method.params)}
    assert all(fields[name] for name in re.findall(r"\{(\w+)\}", method.route[1]))


def test_a_name_and_a_route_stand_for_one_method() -> None:
    """No two methods share a name or a route."""
    assert all(name == one.name for name, one in METHODS.items())
    assert len({one.route for one in ROWS}) == len(ROWS) == 18


def test_p8_what_is_no_get_takes_effect_once() -> None:
    """Every method that changes something carries a request id; one that only reads has none."""
    changing = {one.name for one in ROWS if one.route[0] != "GET"}
    assert {one.name for one in ROWS if one.mutates} == changing - NOT_REPEATED


PARAMETERS = {
    "run.start": "request_id agent thread_id message input resume",
    "run.cancel": "request_id run_id",
    "run.approve": "request_id run_id interrupt_id decision payload digest arguments",
    "thread.create": "request_id thread_id title",
    "thread.rename": "request_id thread_id title",
    "thread.delete": "request_id thread_id",
    "session.revoke": "request_id jti user tenant",
    "session.disconnect": "request_id user",
    "notice.publish": "request_id name value user",
}


def test_p8_the_order_of_parameters_is_the_one_of_stored_keys() -> None:
    """A request that was stored before an upgrade is recognised after it: its digest is the same.

    The key that is stored with a result holds a digest of the encoded parameters.
    """
    order = {one.name: " ".join(one.params.__struct_fields__) for one in ROWS if one.mutates}
    assert order == PARAMETERS


async def test_a_method_that_does_not_exist_is_said_so(tmp_path: Path) -> None:
    """An unknown name is answered with the start of it."""
    async with methods_staged(tmp_path) as stage:
        with pytest.raises(MethodNotFound, match=f"no method '{'x' * 64}'$"):
            await stage.call("x" * 100)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"run_id":7}', b"{}"])
async def test_parameters_of_another_shape_are_a_bad_request(tmp_path: Path, data: bytes) -> None:
    """What does not decode into the parameters of the method never reaches its handler."""
    async with methods_staged(tmp_path) as stage:
        with pytest.raises(BadRequest):
            await stage.methods.call("run.get", data, Caller(principal=ALICE))


async def test_a_log_that_cannot_be_used_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the storage is temporary for the client, whether reading or writing failed."""

    async def unreadable(*_: object, **__: object) -> None:
        raise StorageError("the log cannot be read now")

    async with methods_staged(tmp_path) as stage:
        stage.broker.broken = True
        with pytest.raises(Unavailable, match="the disk is full"):
            await stage.call("thread.create", request_id="q")
        monkeypatch.setattr(stage.runs.store, "threads", unreadable)
        with pytest.raises(Unavailable, match="cannot be read"):
            await stage.call("thread.list")
