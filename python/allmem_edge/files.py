"""Reads the small files of a model directory; every defect becomes an error that names the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from allmem_edge.errors import ModelFormatError, StorageError

_LIMIT = 16 << 20  # bytes; a config or a template is some kilobytes


def read_text(path: Path) -> str | None:
    """The UTF-8 text of `path`, or None if there is no such file."""
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > _LIMIT:
            raise ModelFormatError(f"{path} is larger than {_LIMIT >> 20} MiB, which no such file needs.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ModelFormatError(f"{path} is not UTF-8 text (byte {error.start}); restore the file.") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; empty if there is no such file."""
    text = read_text(path)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path} is not valid JSON ({error}); restore the file.") from error
    if not isinstance(value, dict):
        raise ModelFormatError(f"{path} holds a {type(value).__name__} where a JSON object belongs.")
    return value


def token_text(value: Any) -> str | None:
    """A special token as tokenizer_config.json writes it: a string, or an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def eos_ids(directory: Path) -> list[int]:
    """`eos_token_id` of generation_config.json: one id, a list of them, or none."""
    path = directory / "generation_config.json"
    value = read_json(path).get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for item in ids:
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < 1 << 31:
            raise ModelFormatError(
                f"eos_token_id in {path} is {value!r}; it must be a token id or a list of them."
            )
    return ids


_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def sampling_defaults(directory: Path) -> dict[str, float]:
    """The sampling options that generation_config.json sets; greedy if it says not to sample."""
    path = directory / "generation_config.json"
    config = read_json(path)
    chosen = {key: config[key] for key in _SAMPLING if config.get(key) is not None}
    for key, value in chosen.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ModelFormatError(f"{key} in {path} is {value!r}; it must be a number.")
    if config.get("do_sample") is False:
        chosen["temperature"] = 0.0
    return chosen
