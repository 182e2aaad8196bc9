"""The options of generating text, checked for type; their ranges are the native sampler's to check."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypedDict

from allmem_edge.errors import InvalidArgumentError

_INT64 = (-(1 << 63), (1 << 63) - 1)


class NativeOptions(TypedDict):
    """Keyword arguments of _core.Generator."""

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    repetition_window: int
    seed: int
    stop: list[str]


@dataclass(frozen=True)
class Sampling:
    """How text is generated.

    max_tokens: at most this many tokens, >= 0.
    temperature: >= 0; 0 always takes the most likely token.
    top_k: keep the k most likely tokens; 0 keeps all.
    top_p: in (0, 1]; keep the smallest set of most likely tokens with at least this probability.
    min_p: in [0, 1]; drop tokens less likely than min_p times the most likely one.
    repetition_penalty: in [0.1, 10]; above 1, tokens among the last `repetition_window` become less likely.
    seed: in [0, 2^64); the same seed gives the same text. None draws one.
    stop: strings that end the text; they are not part of it.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repetition_window: int = 64
    seed: int | None = None
    stop: Sequence[str] = ()

    def native(self) -> NativeOptions:
        """The options as the native module takes them. Raises InvalidArgumentError."""
        seed = secrets.randbits(64) if self.seed is None else _integer("seed", self.seed, 0, (1 << 64) - 1)
        return {
            "max_tokens": _integer("max_tokens", self.max_tokens),
            "temperature": _real("temperature", self.temperature),
            "top_k": _integer("top_k", self.top_k),
            "top_p": _real("top_p", self.top_p),
            "min_p": _real("min_p", self.min_p),
            "repetition_penalty": _real("repetition_penalty", self.repetition_penalty),
            "repetition_window": _integer("repetition_window", self.repetition_window),
            "seed": seed,
            "stop": _strings("stop", self.stop),
        }


def _integer(name: str, value: Any, low: int = _INT64[0], high: int = _INT64[1]) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InvalidArgumentError(f"{name} is {value!r}; it must be an integer.")
    if not low <= int(value) <= high:
        raise InvalidArgumentError(f"{name} is {value}; it must be between {low} and {high}.")
    return int(value)


def _real(name: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InvalidArgumentError(f"{name} is {value!r}; it must be a number.")
    try:
        return float(value)
    except OverflowError as error:
        raise InvalidArgumentError(f"{name} is far out of its range.") from error


def _strings(name: str, values: Any) -> list[str]:
    if isinstance(values, str):
        values = [values]
    if not isinstance(values, Sequence) or not all(isinstance(value, str) for value in values):
        raise InvalidArgumentError(f"{name} must be a list of strings.")
    for value in values:
        check_text(name, value)
    return list(values)


def check_text(name: str, text: Any) -> str:
    """Refuses what is no Unicode text: lone surrogates, as os.fsdecode makes them of broken bytes."""
    if not isinstance(text, str):
        raise InvalidArgumentError(f"{name} is of the type {type(text).__name__}; pass a str.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{name} is not valid Unicode (a lone surrogate at index {error.start}); pass real text."
        ) from error
    return text
