"""The small files of a model, in a directory or handed over; every defect becomes an error that names it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from allmem_edge import _core
from allmem_edge.errors import ModelFormatError, StorageError

_LIMIT = 16 << 20  # bytes; a config or a template is some kilobytes
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


class ModelFiles:
    """Reads a model's files by name."""

    def __init__(self, source: Path | Mapping[str, bytes]) -> None:
        """source: the model's directory, or the files' content by name."""
        self._source = source

    def place(self, name: str) -> str:
        """The file as errors call it."""
        return str(self._source / name) if isinstance(self._source, Path) else name

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._source / name).is_file() if isinstance(self._source, Path) else name in self._source

    def read_text(self, name: str) -> str | None:
        """The file's UTF-8 text, or None if there is no such file."""
        content = self._content(name)
        try:
            return None if content is None else content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelFormatError(
                f"{self.place(name)} is not UTF-8 text (byte {error.start}); restore the file."
            ) from error

    def read_json(self, name: str) -> dict[str, Any]:
        """The JSON object in the file; empty if there is no such file."""
        text = self.read_text(name)
        if text is None:
            return {}
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelFormatError(
                f"{self.place(name)} is not valid JSON ({error}); restore the file."
            ) from error
        if not isinstance(value, dict):
            raise ModelFormatError(
                f"{self.place(name)} holds a {type(value).__name__} where a JSON object belongs."
            )
        return value

    def tokenizer(self) -> _core.Tokenizer:
        """Of tokenizer.json, which there must be. Raises TokenizerError, StorageError."""
        place = self.place("tokenizer.json")
        if isinstance(self._source, Path):
            return _core.Tokenizer.from_file(self._source / "tokenizer.json")
        return _core.Tokenizer.from_json(self._source["tokenizer.json"], place)

    def eos_ids(self) -> list[int]:
        """`eos_token_id` of generation_config.json: one id, a list of them, or none."""
        name = "generation_config.json"
        value = self.read_json(name).get("eos_token_id")
        ids = value if isinstance(value, list) else [] if value is None else [value]
        for item in ids:
            if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < 1 << 31:
                raise ModelFormatError(
                    f"eos_token_id in {self.place(name)} is {value!r}; "
                    "it must be a token id or a list of them."
                )
        return ids

    def sampling(self) -> dict[str, float]:
        """The sampling options that generation_config.json sets; greedy if it says not to sample."""
        name = "generation_config.json"
        config = self.read_json(name)
        chosen = {key: config[key] for key in _SAMPLING if config.get(key) is not None}
        for key, value in chosen.items():
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise ModelFormatError(f"{key} in {self.place(name)} is {value!r}; it must be a number.")
        if config.get("do_sample") is False:
            chosen["temperature"] = 0.0
        return chosen

    def _content(self, name: str) -> bytes | None:
        if not isinstance(self._source, Path):
            content = self._source.get(name)
            if content is not None and len(content) > _LIMIT:
                raise self._too_large(name)
            return content
        path = self._source / name
        try:
            if not path.is_file():
                return None
            if path.stat().st_size > _LIMIT:
                raise self._too_large(name)
            return path.read_bytes()
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error

    def _too_large(self, name: str) -> ModelFormatError:
        return ModelFormatError(
            f"{self.place(name)} is larger than {_LIMIT >> 20} MiB, which no such file needs."
        )


def token_text(value: Any) -> str | None:
    """A special token as tokenizer_config.json writes it: a string, or an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
