"""The small files of a model, in a directory or handed over; every defect becomes an error that names it."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from allmem_edge import _core
from allmem_edge.errors import InvalidArgumentError, ModelFormatError, StorageError

TOOL_TEMPLATE = "additional_chat_templates/tool_use.jinja"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    TOOL_TEMPLATE,
)
# Every file of a model directory beside the graph and its weights (docs/format.md).
SMALL_FILES = ("config.json", "generation_config.json", *TOKENIZER_FILES, "adapter.json", "chat_format.json")
_LIMIT = 16 << 20  # bytes; a config or a template is some kilobytes
_LIMITS = {"tokenizer.json": 1 << 30}


class ModelFiles:
    """A model's small files: in memory once a model is loaded, so that none is looked for later."""

    def __init__(self, source: Path | Mapping[str, bytes]) -> None:
        """source: the directory, or the files' content by name. Raises StorageError, ModelFormatError."""
        self._directory = source if isinstance(source, Path) else None  # for errors
        if isinstance(source, Path):
            read = {name: _content(source / name) for name in SMALL_FILES}
            source = {name: content for name, content in read.items() if content is not None}
        self._files = dict(source)

    def place(self, name: str) -> str:
        """The file as errors call it."""
        return str(self._directory / name) if self._directory is not None else name

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self._files

    def model_text(self, vocab_size: int) -> _core.ModelText:
        """What they say of text. Raises TokenizerError, UnsupportedModelError, OutOfMemoryError."""
        text = self._text(vocab_size)
        self._files.pop("tokenizer.json", None)  # megabytes that nobody needs again
        return text

    def special_tokens(self) -> dict[str, str]:
        """bos_token, eos_token, ...: as the native runtime reads them. Raises TokenizerError."""
        return self._text(0, without=("tokenizer.json",)).special_tokens

    def _text(self, vocab_size: int, without: Container[str] = ()) -> _core.ModelText:
        placed = {n: (os.fsencode(self.place(n)), d) for n, d in self._files.items() if n not in without}
        return _core.ModelText(placed, vocab_size)

    def read_text(self, name: str) -> str | None:
        """The file's UTF-8 text, or None if there is no such file."""
        content = self._files.get(name)
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


def _content(path: Path) -> bytes | None:
    """The content of a small file; None if there is none. Raises StorageError, ModelFormatError."""
    limit = _LIMITS.get(path.name, _LIMIT)
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > limit:
            raise ModelFormatError(f"{path} is larger than {limit >> 20} MiB, which no such file needs.")
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error


def checked_path(path: Any) -> str | Path:
    """A str or a Path, as both can mean different things; anything else that names a file as a str."""
    if isinstance(path, (str, Path)):
        return path
    try:
        return os.fsdecode(path)
    except TypeError as error:
        raise InvalidArgumentError(
            f"The path is a {type(path).__name__}; it must be a str, bytes or a path-like object."
        ) from error
