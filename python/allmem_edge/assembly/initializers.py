"""The tensors of model.onnx.data: where each lies, and how it comes from a model's weights. With numpy alone.

The names say how: NAME is the weight of that name; NAME.codes with NAME.scales, or NAME.scales.float16, are
its blocks, affine ones if there is a NAME.zeros.float16; `layers.I.memory.weight.M.state` is where fast
weights start; `derived.I.…` follows from the parameters of a memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from allmem_edge.blocks import fits_float16, quantize_affine, quantize_blocks
from allmem_edge.errors import ModelFormatError

DATA_FILE = "model.onnx.data"
ALIGNMENT = 64
CODES, SCALES, ZEROS, FLOAT16 = ".codes", ".scales", ".zeros", ".float16"

Floats = NDArray[np.float32]
Read = Callable[[str], Floats]  # gives the weight of a name, [out, in] for a matrix


class Tensor(NamedTuple):
    """A tensor of the graph without its values."""

    dtype: str  # numpy's name
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class Slot(NamedTuple):
    """A tensor's place in model.onnx.data."""

    name: str
    tensor: Tensor
    offset: int


def slots(tensors: dict[str, Tensor]) -> list[Slot]:
    """A place for each tensor, in their order, at multiples of ALIGNMENT."""
    placed, end = [], 0
    for name, tensor in tensors.items():
        offset = end + -end % ALIGNMENT
        placed.append(Slot(name, tensor, offset))
        end = offset + tensor.size
    return placed


def write_data(
    path: Path, places: list[Slot], read: Read, progress: Callable[[float], None] | None = None
) -> None:
    """Writes model.onnx.data, one weight after the other.

    Raises ModelFormatError for a weight of another shape, or one that the graph's form has no room for.
    """
    with open(path, "wb") as file:
        for done, (slot, array) in enumerate(_arrays(places, read)):
            if array.shape != slot.tensor.shape or array.dtype != slot.tensor.dtype:
                raise _another_model(slot.name, *slot.tensor, str(array.dtype), array.shape)
            file.write(bytes(slot.offset - file.tell()))
            np.ascontiguousarray(array).tofile(file)
            if progress is not None:
                progress((done + 1) / len(places))
        file.flush()
        os.fsync(file.fileno())


def _another_model(
    name: str, wanted: str, wanted_shape: tuple[int, ...], has: str, shape: tuple[int, ...]
) -> ModelFormatError:
    return ModelFormatError(
        f"The graph wants {name} as {wanted} {list(wanted_shape)}, but it is {has} {list(shape)}: "
        "graph and weights are of different models."
    )


def _arrays(places: Iterable[Slot], read: Read) -> Iterator[tuple[Slot, NDArray[Any]]]:
    shapes = {slot.name: slot.tensor.shape for slot in places}
    waiting: dict[str, NDArray[Any]] = {}  # what of a quantised weight is not written yet
    for slot in places:
        name, form = _form(slot.name)
        if form == "":
            yield slot, _weight(name, read)
            continue
        if slot.name not in waiting:
            waiting |= _blocks(name, shapes, read)
        if slot.name not in waiting:
            raise ModelFormatError(
                f"The graph has float16 scales for {name}, whose weights are too large or too small for "
                "them; export the whole model instead."
            )
        yield slot, waiting.pop(slot.name)


def _form(name: str) -> tuple[str, str]:
    """The name of the weight, and which part of its blocks this is."""
    for form in (CODES, SCALES + FLOAT16, SCALES, ZEROS + FLOAT16):
        if name.endswith(form):
            return name.removesuffix(form), form
    return name, ""


def _blocks(name: str, shapes: dict[str, tuple[int, ...]], read: Read) -> dict[str, NDArray[Any]]:
    """Codes, scales and zero points, in the graph's shapes, of a matrix [N, K] or of heads' [H, N, K]."""
    weight, codes_shape = _weight(name, read), shapes[name + CODES]
    scales_shape = shapes.get(name + SCALES) or shapes[name + SCALES + FLOAT16]
    rows, cols = int(np.prod(weight.shape[:-1])), weight.shape[-1]
    bits, rest = divmod(8 * int(np.prod(codes_shape)), weight.size)
    if bits not in (4, 8) or rest or weight.shape[:-1] != scales_shape[:-1] or cols % scales_shape[-1]:
        raise _another_model(name, "blocks", scales_shape, "weights", weight.shape)
    block = cols // scales_shape[-1]
    if name + ZEROS + FLOAT16 in shapes:
        return _affine_blocks(name, weight, scales_shape, block, bits)
    codes, scales = quantize_blocks(weight.reshape(rows, cols), bits, block)
    half = FLOAT16 if scales.dtype == np.float16 else ""
    return {
        name + CODES: codes.reshape(codes_shape),
        name + SCALES + half: scales.reshape(scales_shape),
    }


def _affine_blocks(
    name: str, weight: Floats, shape: tuple[int, ...], block: int, bits: int
) -> dict[str, NDArray[Any]]:
    if weight.ndim != 2 or bits != 4:
        raise _another_model(name, f"affine blocks of {bits} bits", shape, "weights", weight.shape)
    if not fits_float16(weight):
        return {}
    codes, scales, zeros = quantize_affine(weight, block)
    return {name + CODES: codes, name + SCALES + FLOAT16: scales, name + ZEROS + FLOAT16: zeros}


_INITIAL = re.compile(r"layers\.(\d+)\.memory\.weight\.(gate|up|down)\.state")
_DERIVED = re.compile(r"derived\.(\d+)\.(norm_(?:gate|up|down)|query_map|key_map|alpha)")


def _weight(name: str, read: Read) -> Floats:
    """The initializer `name` before it is quantised."""
    if found := _INITIAL.fullmatch(name):
        return read(f"{_memory(found[1])}.weight_{found[2]}")
    found = _DERIVED.fullmatch(name)
    if found is None:
        return read(name)
    memory, what = _memory(found[1]), found[2]
    if what.startswith("norm_"):
        rows = read(f"{memory}.weight_{what.removeprefix('norm_')}").astype(np.float64)
        norms: Floats = np.sqrt(np.square(rows).sum(-1)).astype(np.float32)
        return norms
    if what == "alpha":
        heads = len(read(f"{memory}.query_scale"))
        alpha: Floats = read(f"{memory}.alpha").reshape(heads, -1)
        return alpha + alpha
    scales, maps = read(f"{memory}.{what.removesuffix('_map')}_scale"), read(f"{memory}.{what}")
    if scales.shape != maps.shape[:-1]:
        raise ValueError(f"scales {list(scales.shape)} of maps {list(maps.shape)}")
    scaled: Floats = scales[..., None] * maps
    return scaled


def _memory(layer: str) -> str:
    return f"model.layers.{layer}.self_attn.memory"
