"""safetensors files with numpy alone: eight bytes of length, a header of JSON, the tensors' bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_edge.assembly.mapped_file import mapped
from allmem_edge.errors import MALFORMED, ModelFormatError

Floats = NDArray[np.float32]

_MAX_HEADER = 100 << 20
# BF16 is read as the upper half of float32's bits.
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16"}


class SafetensorsFile:
    """The tensors of a file, by name; their bytes are read when asked for."""

    def __init__(self, path: Path) -> None:
        """Raises ModelNotFoundError, StorageError or, for damage, ModelFormatError."""
        self.path = path
        self._data = mapped(path)
        try:
            self._entries = self._read_header()
        except MALFORMED as error:
            raise self._damaged() from error

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name][1]

    def floats(self, name: str) -> Floats:
        """The tensor in float32."""
        kind, shape, begin, end = self._entries[name]
        if kind not in _TYPES:
            raise ModelFormatError(f"{name} in {self.path} is {kind}; only float weights can be read.")
        raw = self._data[begin:end].view(_TYPES[kind])
        if kind == "BF16":
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32, copy=False).reshape(shape)

    def _read_header(self) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
        size = int.from_bytes(self._data[:8].tobytes(), "little")
        if len(self._data) < 8 or not 2 <= size <= min(_MAX_HEADER, len(self._data) - 8):
            raise ValueError("header")
        header = json.loads(self._data[8 : 8 + size].tobytes())
        entries = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            shape = tuple(int(n) for n in entry["shape"])
            begin, end = (8 + size + int(offset) for offset in entry["data_offsets"])
            width = np.dtype(_TYPES[entry["dtype"]]).itemsize if entry["dtype"] in _TYPES else None
            if min((*shape, 0)) < 0 or not 8 + size <= begin <= end <= len(self._data):
                raise ValueError(name)
            if width is not None and end - begin != width * math.prod(shape):
                raise ValueError(name)
            entries[name] = (str(entry["dtype"]), shape, begin, end)
        if sum(end - begin for _, _, begin, end in entries.values()) > len(self._data) - 8 - size:
            raise ValueError("tensors that share bytes")
        return entries

    def _damaged(self) -> ModelFormatError:
        return ModelFormatError(f"{self.path} is not a complete safetensors file; fetch it again.")


def write_safetensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Writes float tensors in the mapping's order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in tensors.items():
        end = offset + array.nbytes
        kind = _NAMES[array.dtype.name]
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())
