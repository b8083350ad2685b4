"""Any bytes in the place of a value are a value of the type, or one of two errors."""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import subprocess
import sys
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from cbor_support import TYPES, VALUES, head, payloads
from fuzz_support import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.errors import InvalidInput, StoreCorrupt
from perdure.serde import UNTYPED, decode_failure, serde_for

# The deadline is what finds a hang that ends.
fuzzed = settings(
    max_examples=examples(800),
    deadline=20_000,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
PLAIN = {
    *(type(None), bool, int, float, str, bytes, Decimal, UUID),
    *(dt.datetime, dt.date, dt.time, dt.timedelta),
}


def assert_plain(value: Any) -> None:
    """Nothing but values: no undefined, no pattern, no address, nothing that a tag would make."""
    if type(value) in (list, tuple, set, frozenset):
        for each in value:
            assert_plain(each)
    elif hasattr(value, "items"):  # a dict, or as a key what cbor2 freezes
        for key, each in value.items():
            assert_plain(key)
            assert_plain(each)
    else:
        assert type(value) in PLAIN, type(value)


def assert_read_or_refused(payload: bytes) -> None:
    for annotation in TYPES:
        serde = serde_for(annotation)
        try:
            value = serde.decode(payload, "payload")
        except (InvalidInput, StoreCorrupt) as error:
            if not str(error):
                raise
            continue
        if annotation is UNTYPED:
            assert_plain(value)
        # What perdure would not write is read where it is harmless; JSON has not all values.
        with contextlib.suppress(InvalidInput):
            written = serde.encode(value, "value")
            assert serde.encode(serde.decode(written, "written"), "value") == written
        with contextlib.suppress(InvalidInput):
            serde.to_json(value, "value")
    with contextlib.suppress(StoreCorrupt):
        assert str(decode_failure(payload)) is not None


@fuzzed
@given(payloads)
def test_items_of_every_kind_are_read_or_refused(payload: bytes) -> None:
    assert_read_or_refused(payload)


@fuzzed
@given(
    st.sampled_from(VALUES).flatmap(lambda each: st.tuples(st.just(each[0]), each[1])), st.data()
)
def test_a_mutated_value_is_read_or_refused(typed: tuple[Any, Any], data: st.DataObject) -> None:
    annotation, value = typed
    payload = bytearray(serde_for(annotation).encode(value, "value"))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(payload)))
        end = start + data.draw(st.integers(0, 2))
        payload[start:end] = data.draw(st.binary(max_size=2) | payloads.filter(few))
    assert_read_or_refused(bytes(payload))


def few(payload: bytes) -> bool:
    return len(payload) < 20


@pytest.mark.parametrize(("annotation", "values"), VALUES, ids=[str(each) for each in TYPES])
def test_a_value_of_the_type_comes_back(annotation: Any, values: st.SearchStrategy[Any]) -> None:
    serde = serde_for(annotation)

    @settings(max_examples=examples(100), deadline=None)
    @given(values)
    def comes_back(value: Any) -> None:
        payload = serde.encode(value, "value")
        back = serde.decode(payload, "value")
        assert back == value
        assert type(back) is type(value)
        assert serde.encode(back, "value") == payload

    comes_back()


@pytest.mark.parametrize("annotation", [UNTYPED, float])
@given(st.binary(min_size=6, max_size=6))
def test_any_nan_is_read_as_one(annotation: Any, bits: bytes) -> None:
    value = serde_for(annotation).decode(b"\xfb\x7f\xf8" + bits, "value")
    assert math.isnan(value)


@pytest.mark.parametrize("wrap", [list, "failure"])
def test_an_integer_that_has_no_text_is_no_failure(wrap: Any) -> None:
    number = serde_for(int).encode(1 << 20_000, "value")
    with pytest.raises(StoreCorrupt, match="no failure"):
        decode_failure(number if wrap == "failure" else b"\x81" + number)


LIARS = [
    before + head(major, length) + b"abc"
    for before in (b"", b"\x81", b"\xa1\x00", b"\xd9\x01\x02", b"\xc2", b"\x5f")
    for major in (2, 3, 4, 5)
    for length in (2**28, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
]
READ_THEM = """
import resource
from perdure.errors import StoreCorrupt
from perdure.serde import UNTYPED, decode_failure, serde_for
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for line in open(0):
    try:
        value = serde_for(UNTYPED).decode(bytes.fromhex(line), "payload")
    except StoreCorrupt:
        continue
    raise SystemExit(f"{line}: {value!r:.100}")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_a_length_that_lies_takes_no_memory() -> None:
    lines = "\n".join(each.hex() for each in LIARS)
    run = subprocess.run(
        [sys.executable, "-c", READ_THEM],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) < 32, f"{run.stdout} MiB"
