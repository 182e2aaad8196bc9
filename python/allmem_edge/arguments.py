"""What callers pass, checked for type: every mistake is a sentence and none reaches the native module."""

from __future__ import annotations

import os
from numbers import Integral
from typing import Any

from allmem_edge.errors import InvalidArgumentError


def native_path(path: Any) -> bytes:
    """The name of a file as the system has it, also one that is no valid Unicode."""
    try:
        return os.fsencode(path)
    except TypeError:
        pass
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"The path {path!a} cannot be encoded as a file name on this system."
        ) from error
    raise InvalidArgumentError(f"The path is of the type {type(path).__name__}; pass a str, bytes or a Path.")


def content(name: str, value: Any) -> bytes:
    """The bytes of anything that holds some: bytes, bytearray, memoryview, an array."""
    try:
        return value if isinstance(value, bytes) else bytes(memoryview(value))
    except TypeError as error:
        raise InvalidArgumentError(f"{name} is of the type {type(value).__name__}; pass bytes.") from error


def count(name: str, value: Any) -> int:
    """A number of things or bytes."""
    if isinstance(value, Integral) and not isinstance(value, bool) and 0 <= int(value) < 1 << 63:
        return int(value)
    raise InvalidArgumentError(f"{name} is {value!r}; it must be an integer of at least 0.")
