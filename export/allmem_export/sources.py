"""What can be converted: a checkpoint directory, from the hub or not, or a GGUF file.

Errors are ConvertError, AllMemError's sentences for files that a conversion cannot use.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from allmem_edge.assembly.gguf_file import GgufFile
from allmem_edge.assembly.gguf_tokenizer import write_tokenizer
from allmem_edge.errors import AllMemError

COPIED = (  # besides config and weights; any of them may be absent
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
INDEX = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")  # the dtypes a base weight may have, by safetensors' names


class ConvertError(AllMemError):
    """A checkpoint that cannot be converted; the message is one sentence that says why and where."""


class StoredTensor(NamedTuple):
    """A tensor of a source before it is read."""

    part: str  # what is read together: a file, or a layer
    name: str  # as Hugging Face's checkpoints call it
    shape: tuple[int, ...]
    dtype: str  # one of FLOATS, or what cannot be read
    place: str  # for errors


class Source(Protocol):
    """A base model to convert."""

    config_place: str  # where its config comes from, for errors

    def config(self) -> dict[str, Any]:
        """The fields of its config.json."""
        ...

    def tensors(self) -> Iterator[StoredTensor]: ...

    def load(self, part: str, names: Iterable[str]) -> dict[str, Tensor]: ...

    def copy_tokenizer(self, target: Path) -> None: ...


class Checkpoint:
    """A directory of config.json and safetensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config_place = str(folder / "config.json")

    def config(self) -> dict[str, Any]:
        return read_json(self.folder / "config.json")

    def tensors(self) -> Iterator[StoredTensor]:
        for file in self._files():
            with _opened(self.folder / file) as tensors:
                for name in tensors.keys():  # noqa: SIM118 (a safetensors handle is not iterable)
                    view = tensors.get_slice(name)
                    shape = tuple(view.get_shape())
                    yield StoredTensor(file, name, shape, view.get_dtype(), str(self.folder / file))

    def load(self, part: str, names: Iterable[str]) -> dict[str, Tensor]:
        """Views of the mapped file."""
        with _opened(self.folder / part) as tensors:
            return {name: tensors.get_tensor(name) for name in names}

    def copy_tokenizer(self, target: Path) -> None:
        for name in COPIED:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, target / name)

    def _files(self) -> list[str]:
        if not (self.folder / INDEX).is_file():
            return ["model.safetensors"]
        weight_map = read_json(self.folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ConvertError(f"{self.folder / INDEX} has no weight_map")
        files = sorted({str(name) for name in weight_map.values()})
        for file in files:
            if Path(file).name != file:
                raise ConvertError(
                    f"{self.folder / INDEX} names {file!r}, which is not a file of that directory"
                )
        return files


class Gguf:
    """A GGUF file. What it holds in blocks becomes float32; half precision stays as it is."""

    def __init__(self, path: Path) -> None:
        self.file = GgufFile(path)
        self.config_place = str(path)

    def config(self) -> dict[str, Any]:
        return self.file.config()

    def tensors(self) -> Iterator[StoredTensor]:
        for name in self.file.names:
            part = ".".join(name.split(".")[:3]) if name.startswith("model.layers.") else name
            shape, kind = self.file.shape(name), self.file.kind(name)
            yield StoredTensor(part, name, shape, kind if kind in FLOATS else "F32", str(self.file.path))

    def load(self, part: str, names: Iterable[str]) -> dict[str, Tensor]:
        halves = {"F16": torch.float16, "BF16": torch.bfloat16}
        return {
            name: torch.from_numpy(self.file.floats(name).copy()).to(
                halves.get(self.file.kind(name), torch.float32)
            )
            for name in names
        }

    def copy_tokenizer(self, target: Path) -> None:
        write_tokenizer(self.file, target)


def find_source(source: Path | str) -> Source:
    """The base model that `source` means: a GGUF file, a directory, or a hub id, which is fetched."""
    if Path(source).is_dir():
        return Checkpoint(Path(source))
    if Path(source).is_file():
        return Gguf(Path(source))
    name = str(source)
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith(".gguf"):
        raise ConvertError(f"{name} is not a directory or a GGUF file")
    try:
        return Checkpoint(
            Path(snapshot_download(name, allow_patterns=["config.json", "*.safetensors", INDEX, *COPIED]))
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConvertError(
            f"{name} is neither a directory nor a model that the hub could deliver: {reason}"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object of a checkpoint's file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConvertError(f"{path.parent} has no {path.name}; it is not a checkpoint directory") from None
    except (OSError, ValueError) as error:
        raise ConvertError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConvertError(f"{path} does not hold a JSON object")
    return data


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An open safetensors file, whose tensors are views of the mapped file."""
    if not path.is_file():
        raise ConvertError(f"{path} is missing; the checkpoint has to hold its weights as safetensors")
    try:
        with safe_open(path, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise ConvertError(f"{path} is not a complete safetensors file: {one_line(error)}") from error
