"""Tokens that other files than tokenizer.json add to a tokenizer, as old versions of transformers wrote them.

transformers adds these when it loads a tokenizer. Here they are refused: without them a template's marks
would be split into pieces that the model never saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from allmem_edge import _core
from allmem_edge.errors import TokenizerError
from allmem_edge.files import ModelFiles, token_text

_LISTS = ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder")


def check_added_tokens(files: ModelFiles, tokenizer: _core.Tokenizer) -> None:
    """Raises TokenizerError for a token that tokenizer.json lacks and a text may have."""
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        content = files.read_json(name)
        for token in content if name == "added_tokens.json" else _tokens(content):
            if len(tokenizer.encode(token)) != 1:
                raise TokenizerError(
                    f"{files.place(name)} has the token {token!r}, but {files.place('tokenizer.json')} does "
                    "not: load and save the tokenizer with transformers, which puts all tokens into one file."
                )


def _tokens(config: dict[str, Any]) -> Iterator[str]:
    """Not those that only pad or mask: no text has them."""
    for key in _LISTS:
        listed = config.get(key) or ()
        for value in (
            listed.values() if isinstance(listed, dict) else listed if isinstance(listed, list) else ()
        ):
            if text := token_text(value):
                yield text
    for key in ("bos_token", "eos_token"):
        if text := token_text(config.get(key)):
            yield text
