"""State that an operator sets at a Restate server is what the handlers there would have kept."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from perdure import InvalidInput
from perdure._client._restate_values import kept_of
from perdure.restate._values import private_bytes, private_payload
from perdure.serde import UNTYPED, serde_for

VALUES = [
    *(
        None,
        True,
        0,
        -1,
        2**53 + 1,
        2**63,
        1.0,
        1e300,
        float("inf"),
        "",
        "é\0",
        [],
        {},
        b"",
        b"\xff",
    ),
    [1, "a", None, [2.5]],
    {"a": {"b": [1]}},
    {1: "a"},
    {2, 1},
    datetime(2026, 1, 31, 12, 30, tzinfo=UTC),
    uuid.UUID(int=7),
    Decimal("1.10"),
    [{"at": datetime(2026, 1, 31, tzinfo=UTC)}],
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_is_set_is_read_as_it_was(value: Any) -> None:
    payload = serde_for(UNTYPED).encode(value, "a value")
    assert private_payload(kept_of(value, "a value"), "a value") == payload


def test_what_json_holds_exactly_is_json() -> None:
    value = {"a": [1, 2.5, None, True, "é"]}
    assert kept_of(value, "a value") == private_bytes(serde_for(UNTYPED).encode(value, "a value"))
    assert msgspec.json.decode(kept_of(value, "a value")) == value


def test_what_can_not_be_encoded_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidInput, match="state 'a'"):
        kept_of(object(), "state 'a'")
