"""A base model as its makers publish it, read with numpy: a GGUF file, or a checkpoint directory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from allmem_edge.assembly.gguf_file import GgufFile
from allmem_edge.assembly.gguf_tokenizer import write_tokenizer
from allmem_edge.assembly.safetensors_file import SafetensorsFile
from allmem_edge.errors import ModelFormatError, ModelNotFoundError, StorageError

Floats = NDArray[np.float32]

INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


class BaseModel(Protocol):
    """Weights under Hugging Face's names, config and tokenizer of a base model."""

    @property
    def path(self) -> Path: ...

    @property
    def names(self) -> list[str]: ...

    def __contains__(self, name: str) -> bool: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def floats(self, name: str) -> Floats:
        """The weight in float32."""
        ...

    def config(self) -> dict[str, Any]:
        """The fields of config.json."""
        ...

    def write_tokenizer(self, folder: Path) -> None:
        """Writes tokenizer.json and what goes with it into `folder`."""
        ...


class GgufBase(GgufFile):
    """A GGUF file."""

    def write_tokenizer(self, folder: Path) -> None:
        write_tokenizer(self, folder)


class CheckpointBase:
    """A directory of config.json, safetensors and tokenizer."""

    def __init__(self, path: Path) -> None:
        """Raises ModelNotFoundError, StorageError or ModelFormatError."""
        self.path = path
        self._files = [SafetensorsFile(path / name) for name in self._file_names()]
        self._of = {name: file for file in self._files for name in file.names}

    @property
    def names(self) -> list[str]:
        return list(self._of)

    def __contains__(self, name: str) -> bool:
        return name in self._of

    def shape(self, name: str) -> tuple[int, ...]:
        return self._of[name].shape(name)

    def floats(self, name: str) -> Floats:
        return self._of[name].floats(name)

    def config(self) -> dict[str, Any]:
        return self._read_json("config.json")

    def write_tokenizer(self, folder: Path) -> None:
        if not (self.path / "tokenizer.json").is_file():
            raise ModelNotFoundError(f"{self.path} has no tokenizer.json; fetch the model's files again.")
        for name in TOKENIZER_FILES:
            if (self.path / name).is_file():
                shutil.copyfile(self.path / name, folder / name)

    def _file_names(self) -> list[str]:
        if not (self.path / INDEX).is_file():
            return ["model.safetensors"]
        weight_map = self._read_json(INDEX).get("weight_map")
        names = list(weight_map.values()) if isinstance(weight_map, dict) else []
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ModelFormatError(f"{self.path / INDEX} lists no weight files.")
        return sorted(set(names))

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ModelNotFoundError(
                f"{self.path} has no {name}; it is not a checkpoint directory."
            ) from error
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error
        except (ValueError, RecursionError) as error:
            raise ModelFormatError(f"{path} is not valid JSON ({error}); fetch it again.") from error
        if not isinstance(value, dict):
            raise ModelFormatError(f"{path} does not hold a JSON object; fetch it again.")
        return value


def open_base(path: Path) -> BaseModel:
    """The base model at `path`: a GGUF file, or a checkpoint directory."""
    if path.is_dir():
        return CheckpointBase(path)
    if not path.exists():
        raise ModelNotFoundError(f"There is no base model at {path}.")
    return GgufBase(path)
