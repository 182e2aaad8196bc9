"""The options of generating text. The native module checks types and ranges; here are their names."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from allmem_edge.errors import InvalidArgumentError


class Sampling(TypedDict, total=False):
    """How text is generated. What is left out, or None, is as the model's files say (Model.sampling).

    max_tokens: at most this many tokens, >= 0; 512.
    temperature: >= 0; 0 always takes the most likely token; 0.7 where generation_config.json says nothing.
    top_k: keep the k most likely tokens; 0 keeps all.
    top_p: in (0, 1]; keep the smallest set of most likely tokens with at least this probability.
    min_p: in [0, 1]; drop tokens less likely than min_p times the most likely one.
    repetition_penalty: in [0.1, 10]; above 1, tokens among the last `repetition_window` become less likely; a
        stop token does not, however many turns of a chat it has ended.
    repetition_window: in [0, 1048576] tokens; 64.
    seed: in [0, 2^64); the same seed gives the same text. None draws one.
    stop: strings that end the text, at most 256 of 64 KiB; they are not part of it. A special token ends it
        as such.
    speculate: where a text repeats what was read or written, read several tokens at once and keep those that
        are drawn: faster, and the same text. True. Texts with logprobs or a token filter are read one by one.
    logit_bias: what is added to the logits of tokens, by id: in [-100, 100], or -inf for never.
    """

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    repetition_window: int | None
    seed: int | None
    stop: str | Sequence[str] | None
    speculate: bool | None
    logit_bias: Mapping[int, float] | None


def chosen(model: Sampling, given: Sampling) -> Sampling:
    """The model's own options with those that were given, each with a value; but a seed may be None."""
    options: Sampling = {**model, "seed": None}
    for name, value in given.items():
        if value is not None:
            options[name] = dict(value) if isinstance(value, Mapping) else value  # type: ignore[literal-required]
    return options


def native(options: Sampling) -> dict[str, Any]:
    """The options as the native module takes them, with a seed."""
    seed = options.get("seed")
    return {**options, "seed": secrets.randbits(64) if seed is None else seed}


def next_seed(options: Sampling) -> Sampling:
    """For another text with the same options: as repeatable, but not the same."""
    seed = options.get("seed")
    return {**options, "seed": None if seed is None else (seed + 1) % (1 << 64)}


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
