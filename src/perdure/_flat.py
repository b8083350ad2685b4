"""The shortest way for the commonest of values: a dict of scalars.

This module is compiled (see ``_flat.pxd``); it also runs interpreted, with the same behaviour.
"""

from __future__ import annotations

from typing import Any, Final

from cbor2 import dumps

SCALARS: Final[frozenset[type]] = frozenset({type(None), bool, int, float, str, bytes})
"""Exact classes whose values are their own plain form."""


def encode_flat(value: Any) -> bytes | None:
    """Encode a dict that holds nothing but scalars, as cbor2 does it whole; else ``None``."""
    if type(value) is not dict:
        return None
    scalars = SCALARS
    fields: dict[Any, Any] = value
    for key, item in fields.items():
        if type(item) not in scalars or type(key) not in scalars:
            return None
    try:
        return dumps(fields)
    except UnicodeEncodeError:
        return None  # who encodes it piece by piece says what is wrong
