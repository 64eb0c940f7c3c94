"""Every number on the wire says one thing, and says whether to come back."""

import inspect
import json
import re

import pytest

from towpath import codes
from towpath.codes import CloseCode, ErrorCode

ERRORS_OF_THE_WIRE = {100, 102, 103, 104, 105, 106, 107, 108, 109, 111, 112} | {
    403,
    404,
    409,
    410,
    413,
    422,
}
"""WIRE section 7."""

COME_BACK = {3000: True, 3001: True, 3005: True, 3008: True, 3011: True, 3012: True} | {
    3013: True,
    3014: True,
    3500: False,
    3501: False,
    3502: False,
    3503: False,
    3504: False,
    3507: False,
}
"""WIRE section 3, by number."""


def names_of(kind: type[ErrorCode] | type[CloseCode]) -> list[ErrorCode | CloseCode]:
    """Return every code the module names."""
    return [value for value in vars(codes).values() if isinstance(value, kind)]


CLOSES = [code for code in names_of(CloseCode) if isinstance(code, CloseCode)]


@pytest.mark.parametrize("code", CLOSES, ids=lambda code: f"{code.number} {code.reason[:9]}")
def test_r07_every_close_reason_fits_the_frame_and_is_no_json(code: CloseCode) -> None:
    """A reason is 1 to 123 bytes of UTF-8 and never parses as JSON, or SDKs skip the code."""
    assert 1 <= len(code.reason.encode()) <= 123
    with pytest.raises(ValueError):
        json.loads(code.reason)


@pytest.mark.parametrize(("number", "come_back"), COME_BACK.items())
def test_r62_each_situation_of_the_wire_has_its_code_and_advice(
    number: int, come_back: bool
) -> None:
    """The table of the wire document and ours give the same advice for the same number."""
    assert codes.CLOSES[number].come_back is come_back


@pytest.mark.parametrize(
    ("number", "come_back"),
    [
        (3000, True),
        (3499, True),
        (3500, False),
        (3999, False),
        (4000, True),
        (4499, True),
        (4500, False),
        (4999, False),
        (1009, True),
    ],
)
def test_r62_the_advice_is_a_matter_of_the_range_alone(number: int, come_back: bool) -> None:
    """Clients look at the range, so the edges of the ranges are the whole rule."""
    assert CloseCode(number=number, reason="some reason").come_back is come_back


def test_r62_every_close_of_ours_is_in_the_table_of_the_wire() -> None:
    """Above the codes of RFC 6455 there is no close code without a documented situation."""
    assert {number for number in codes.CLOSES if number >= 3000} == COME_BACK.keys()


def test_r09_no_close_of_ours_says_that_all_went_well() -> None:
    """Abnormal ends never use 1000, nor a number that must not stand in a frame."""
    assert codes.CLOSES.keys().isdisjoint({1000, 1004, 1005, 1006, 1012, 1015})


@pytest.mark.parametrize(("kind", "table"), [(ErrorCode, codes.ERRORS), (CloseCode, codes.CLOSES)])
def test_every_named_code_stands_in_its_table_once(
    kind: type[ErrorCode] | type[CloseCode], table: dict[int, ErrorCode | CloseCode]
) -> None:
    """No named code is missing from the printed table; one number alone has a second sentence."""
    named = names_of(kind)
    assert {code.number for code in named} == table.keys()
    second = [code for code in named if code is not table[code.number]]
    assert second == ([codes.NO_CREDENTIAL] if kind is CloseCode else [])
    assert len({id(code) for code in named}) == len(table) + len(second)


def test_r62_no_credential_is_an_invalid_token_that_says_how_to_bring_one() -> None:
    """The same number, so the same advice: log in; its reason names both ways, within the frame."""
    assert codes.NO_CREDENTIAL.number == codes.INVALID_TOKEN.number == 3500
    assert not codes.NO_CREDENTIAL.come_back
    for way in ("connect.token", "ticket", "Authorization: Bearer"):
        assert way in codes.NO_CREDENTIAL.reason


def test_the_errors_are_those_of_the_wire() -> None:
    """Each error of WIRE section 7 is there, and no other."""
    assert codes.ERRORS.keys() == ERRORS_OF_THE_WIRE


def test_only_outages_and_limits_are_temporary() -> None:
    """A client asks again by itself exactly where nothing has to change first."""
    assert {number for number, code in codes.ERRORS.items() if code.temporary} == {100, 111}


@pytest.mark.parametrize("number", sorted(ERRORS_OF_THE_WIRE))
def test_every_error_has_a_sentence_and_a_status(number: int) -> None:
    """Errors always carry code and message, and REST has a status for each."""
    error = codes.ERRORS[number]
    assert error.message
    assert 400 <= error.http_status <= 599
    assert number < 400 or error.http_status == number


@pytest.mark.parametrize("code", ["canal.closed", "model.failed", "running", "rerun.failed", "run"])
def test_an_agent_chooses_its_codes(code: str) -> None:
    """A code outside the gateway's name space is published as it is."""
    assert codes.agent_code(code) == code


@pytest.mark.parametrize(
    "code",
    [
        *codes.RUN_CODES,
        "run.mine",
        "run.",
        " run.lost",
        "run.lost\n",
        "RUN.LOST",
        "Run.Deadline ",
        "\u200brun.lost",
        "ru\u00adn.lost",
        "\xa0run.lost",
        "\uff52\uff55\uff4e.lost",
        "run\uff0elost",
        "",
        "  ",
        "\u200b",
    ],
)
def test_r121_no_agents_code_reads_like_one_of_the_gateway(code: str) -> None:
    """However `run.` is spelt, with marks nobody sees, it is the gateway's own."""
    assert codes.agent_code(code) == "agent.failed"


@pytest.mark.parametrize("code", codes.RUN_CODES)
def test_r44_every_run_code_names_the_run_and_has_a_sentence(code: str) -> None:
    """A run that fails says why, under one prefix."""
    assert code.startswith("run.")
    assert codes.RUN_CODES[code]


@pytest.mark.parametrize(
    "name", [name for name, one in vars(codes).items() if isinstance(one, ErrorCode | CloseCode)]
)
def test_every_code_says_when_it_is_sent(name: str) -> None:
    """The string below each code, which the reference prints, says it, or that nothing sends it."""
    source = inspect.getsource(codes)
    (below,) = re.findall(rf'^{name}: Final = [^"]*"[^"]*"[^"]*?\)\n"""(.*)', source, re.MULTILINE)
    assert below.startswith(
        ("Sent for ", "Sent if ", "Sent while ", "Sent to ", "Sent after ", "Reserved for ")
    )


@pytest.mark.parametrize("code", codes.RUN_CODES)
def test_every_run_code_says_when_it_is_sent(code: str) -> None:
    """A comment above each says it."""
    source = inspect.getsource(codes)
    assert re.search(rf'^    # .*\.\n    "{re.escape(code)}": ', source, re.MULTILINE)
