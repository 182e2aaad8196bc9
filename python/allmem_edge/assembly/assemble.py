"""Base model + memory adapter ▶ model directory, with numpy alone; and the cache where `pull` keeps them."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_edge.appearing import appearing, locked, recover
from allmem_edge.assembly.adapter import (
    MANIFEST,
    MODES,
    WEIGHTS,
    Adapter,
    find_adapter,
    graph_file,
    is_name,
    is_packaged,
)
from allmem_edge.assembly.base import BaseModel, open_base
from allmem_edge.assembly.find_base import Progress, found_base
from allmem_edge.assembly.initializers import DATA_FILE, Tensor, slots, write_data
from allmem_edge.assembly.safetensors_file import SafetensorsFile
from allmem_edge.chat_format import write_chat_format
from allmem_edge.checksums import sha256_of, write_checksums
from allmem_edge.errors import (
    MALFORMED,
    ChatTemplateError,
    InvalidArgumentError,
    ModelFormatError,
    StorageError,
)

Floats = NDArray[np.float32]

EMBEDDING, PROJECTION = "model.embed_tokens.weight", "lm_head.weight"
_LOW_RANK = (".lora_A", ".lora_B")
_TYPES = ("float32", "float16", "uint8")


def quiet(step: str, fraction: float) -> None:
    """A Progress that says nothing."""


def pull(
    name: str | Path,
    *,
    base: Path | None = None,
    mode: str | None = None,
    progress: Progress = quiet,
) -> Path:
    """The model directory of an adapter in the cache, put together first if it is not there.

    name: an adapter of this package, or an adapter's directory. base: where the base model is; without it, it
    is looked for where the adapter says (find_base.py). mode: "mixed", "int8" or "int4"; without it, the
    first that the adapter has.
    Raises ModelNotFoundError, ModelFormatError, UnsupportedModelError, StorageError or InvalidArgumentError;
    the cache then holds what it held before.
    """
    adapter = find_adapter(name)
    if is_packaged(adapter.name) and adapter.digest != find_adapter(adapter.name).digest:
        raise InvalidArgumentError(
            f"The adapter in {adapter.path} is called {adapter.name!r}, as another one in this package is; "
            f"rename it in its {MANIFEST}."
        )
    out, mode = _place(adapter, mode)
    with locked(out):
        if is_current(out, adapter):
            return out
        with found_base(adapter.base, base, progress) as path:
            assemble(adapter, open_base(path), out, mode, progress)
    return out


def _place(adapter: Adapter, mode: str | None) -> tuple[Path, str]:
    """Where the model of an adapter belongs, and its quantisation: the adapter's first if none is named."""
    own = next(iter(adapter.modes), MODES[0])
    mode = mode or own
    return cached_path(adapter.name, None if mode == own else mode), mode


def find_assembled(name: str) -> Path | None:
    """The model directory that a name of pull() means, NAME or NAME-MODE; put together if this package can.

    None if there is no such adapter, neither in this package nor in the cache.
    """
    name, mode = _split(name)
    if is_packaged(name):
        return pull(name, mode=mode)
    if not is_name(name):
        return None
    try:
        path = cached_path(name, mode)
        recover(path)
    except StorageError:  # no place for a cache
        return None
    return path if (path / MANIFEST).is_file() else None


def must_be_pulled(name: str) -> bool:
    """Whether find_assembled() would fetch a base model."""
    name, mode = _split(name)
    if not is_packaged(name):
        return False
    adapter = find_adapter(name)
    return not is_current(_place(adapter, mode)[0], adapter)


def _split(name: str) -> tuple[str, str | None]:
    for mode in MODES:
        if name.endswith(f"-{mode}"):
            return name.removesuffix(f"-{mode}"), mode
    return name, None


def cached_path(name: str, mode: str | None = None) -> Path:
    """Where the cache keeps the model of an adapter, in its first quantisation or in another.

    Raises StorageError if there is no place for a cache.
    """
    folder = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        cache = Path(folder) if folder else Path.home() / ".cache"
    except RuntimeError as error:
        raise StorageError(
            "There is no home directory to keep models in; set XDG_CACHE_HOME to a directory."
        ) from error
    return cache / "allmem-edge" / "models" / (name if mode is None else f"{name}-{mode}")


def is_current(path: Path, adapter: Adapter) -> bool:
    """Whether `path` holds the model made of this very adapter (which appears complete or not at all)."""
    try:
        return (path / MANIFEST).read_bytes() == (adapter.path / MANIFEST).read_bytes()
    except OSError:
        return False


def assemble(adapter: Adapter, base: BaseModel, out: Path, mode: str, progress: Progress = quiet) -> None:
    """Writes the model directory `out`, in the place of one that is there; it appears complete or not at all.

    The base is taken for the adapter's: found_base() has checked it. Raises what pull() does.
    """
    if mode not in adapter.results:
        raise InvalidArgumentError(
            f"The adapter {adapter.name} has no {mode} version; it has {' and '.join(adapter.modes)}."
        )
    adapter.check_files()
    with appearing(out) as folder:
        digest = write_weights(adapter, base, folder / DATA_FILE, mode, progress)
        if digest != adapter.results[mode]:
            raise ModelFormatError(
                f"The weights of {adapter.name} differ from those that were measured (SHA-256 {digest}, not "
                f"{adapter.results[mode]}); please report this, with numpy's version {np.__version__}."
            )
        shutil.copyfile(adapter.path / graph_file(mode), folder / "model.onnx")
        base.write_tokenizer(folder)
        _write_json(folder / "config.json", adapter.config)
        _add_generation(folder / "generation_config.json", adapter.generation, base)
        shutil.copyfile(adapter.path / MANIFEST, folder / MANIFEST)
        with suppress(ChatTemplateError):  # a base without a template cannot chat, but go on with a text
            write_chat_format(folder)
        write_checksums(folder)


def write_weights(
    adapter: Adapter, base: BaseModel, path: Path, mode: str, progress: Progress = quiet
) -> str:
    """Writes model.onnx.data and returns its SHA-256."""
    weights = MergedWeights(SafetensorsFile(adapter.path / WEIGHTS), base)
    try:
        tensors = {name: _tensor(kind, shape) for name, kind, shape in adapter.slots(mode)}
        write_data(path, slots(tensors), weights, lambda done: progress("putting the model together", done))
    except MALFORMED as error:
        raise ModelFormatError(
            f"The graph and the weights of {adapter.path} do not fit each other or the base ({error}); "
            "fetch the adapter again."
        ) from error
    return sha256_of(path)


def _tensor(kind: Any, shape: Any) -> Tensor:
    if kind not in _TYPES:
        raise ValueError(f"{kind!r} is no type of a tensor")
    return Tensor(kind, tuple(shape))


class MergedWeights:
    """Gives a weight of the model by its name: the adapter's, or the base's with its low-rank update."""

    def __init__(self, adapter: SafetensorsFile, base: BaseModel) -> None:
        self._adapter = adapter
        self._base = base

    def __call__(self, name: str) -> Floats:
        """The weight in float32. Raises KeyError."""
        if name in self._adapter:
            return self._adapter.floats(name)
        if name == PROJECTION and PROJECTION not in self._base:
            name = EMBEDDING  # tied
        stem = name.removesuffix(".weight")
        down, up = (stem + suffix for suffix in _LOW_RANK)
        weight = self._base.floats(name)
        if down not in self._adapter:
            return weight
        return merged(weight, self._adapter.floats(down), self._adapter.floats(up))


def merged(weight: Floats, down: Floats, up: Floats) -> Floats:
    """W + B A of W [out, in], A [r, in] and B [out, r], the same on every machine.

    A product by the machine's linear algebra would add in an order of its own. Raises ValueError for shapes
    that are not so.
    """
    rank = down.shape[:1]
    if weight.ndim != 2 or up.shape != weight.shape[:1] + rank or down.shape != rank + weight.shape[1:]:
        shapes = (list(array.shape) for array in (weight, up, down))
        raise ValueError("a weight {} and its update {} · {}".format(*shapes))
    result: Floats = weight.copy()
    for a, b in zip(down, up.T, strict=True):
        result += b[:, None] * a
    return result


def _add_generation(path: Path, options: dict[str, Any], base: BaseModel) -> None:
    """Puts the adapter's options over those of the base."""
    try:
        value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        _write_json(path, {**value, **options})
    except MALFORMED as error:
        raise ModelFormatError(
            f"The {path.name} of {base.path} is not a JSON object ({error}); fetch the base model again."
        ) from error


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
