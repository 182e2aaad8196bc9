"""The second opinion: runs a model directory in stock onnxruntime, through the function bodies in the file.

Slower than the native runtime and independent of it: onnxruntime reads the graph and the weights, `onnx` the
initial states. The rules of feeding the state back are those of docs/format.md.
"""

from __future__ import annotations

import importlib
import math
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from allmem_edge.errors import (
    AllMemError,
    CancelledError,
    InvalidArgumentError,
    MissingDependencyError,
    ModelFormatError,
    SessionInUseError,
    UnsupportedModelError,
)

_BLOCK = 128  # tokens between two looks at Ctrl-C and cancel()


def _imports() -> tuple[ModuleType, ModuleType]:
    try:
        return importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingDependencyError(
            "The onnxruntime backend needs onnx and onnxruntime: pip install 'allmem-edge[onnxruntime]'."
        ) from error


@dataclass(frozen=True)
class OrtState:
    """One piece of state."""

    name: str
    shape: list[int]
    bytes: int


@dataclass
class OrtModel:
    """The file and its facts; one onnxruntime session per thread count, shared by all conversations."""

    path: Path
    vocab_size: int = field(init=False)
    window: int = field(init=False)
    sinks: int = field(init=False)
    chunk: int = field(init=False)
    memory: str = field(init=False, default="on")
    layers: int = field(init=False)
    quantization: str = field(init=False)
    weight_bytes: int = field(init=False)
    states: list[OrtState] = field(init=False)
    initial: dict[str, NDArray[np.float32]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        onnx, _ = _imports()
        if self.path.is_dir():
            self.path = self.path / "model.onnx"
        self._runners: dict[int, Any] = {}
        self._lock = threading.Lock()
        try:
            graph_file = onnx.load(str(self.path), load_external_data=False)
            self._read_facts(onnx, graph_file)
        except AllMemError:
            raise
        except Exception as error:  # protobuf and onnx raise many kinds
            raise ModelFormatError(f"{self.path} cannot be read by onnx: {_first_line(error)}") from error
        self.runner(0)  # a file that onnxruntime refuses is refused now

    def _read_facts(self, onnx: Any, file: Any) -> None:
        facts = {entry.key: entry.value for entry in file.metadata_props}
        missing = [
            k
            for k in ("vocab_size", "window", "sinks", "chunk", "layers")
            if not facts.get(f"allmem.{k}", "").isdecimal()
        ]
        if missing:
            raise ModelFormatError(
                f"{self.path} lacks the metadata {', '.join('allmem.' + k for k in missing)}."
            )
        self.vocab_size, self.window = int(facts["allmem.vocab_size"]), int(facts["allmem.window"])
        self.sinks, self.chunk = int(facts["allmem.sinks"]), int(facts["allmem.chunk"])
        self.layers = int(facts["allmem.layers"])
        if self.chunk < 1 or self.vocab_size < 1:
            raise ModelFormatError(f"{self.path} says that its chunk or its vocabulary is empty.")
        self.quantization = facts.get("allmem.quantization", "none")
        initializers = {tensor.name: tensor for tensor in file.graph.initializer}
        self.states, self.initial = [], {}
        for value in file.graph.input:
            if not value.name.endswith(".state"):
                continue
            shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            if min(shape, default=1) <= 0:
                raise ModelFormatError(f"The state {value.name} in {self.path} has no fixed shape.")
            self.states.append(OrtState(value.name, shape, 4 * math.prod(shape)))
            if value.name in initializers:
                start = onnx.numpy_helper.to_array(initializers[value.name], base_dir=str(self.path.parent))
                self.initial[value.name] = np.ascontiguousarray(start, dtype=np.float32)
            else:
                self.initial[value.name] = np.zeros(shape, dtype=np.float32)
        data = self.path.with_name(self.path.name + ".data")
        self.weight_bytes = data.stat().st_size if data.is_file() else self.path.stat().st_size

    @property
    def state_bytes(self) -> int:
        return sum(state.bytes for state in self.states)

    @property
    def linear(self) -> bool:
        """Whether its memory is linear (docs/model.md)."""
        return any(".memory.weight.matrix." in state.name for state in self.states)

    def runner(self, threads: int) -> Any:
        """The onnxruntime.InferenceSession for a number of threads (0: onnxruntime's choice)."""
        _, onnxruntime = _imports()
        with self._lock:
            if threads not in self._runners:
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = threads
                options.log_severity_level = 4  # errors come as exceptions
                try:
                    self._runners[threads] = onnxruntime.InferenceSession(
                        str(self.path), options, providers=["CPUExecutionProvider"]
                    )
                except Exception as error:  # onnxruntime's exceptions have no common base
                    raise UnsupportedModelError(
                        f"onnxruntime refuses {self.path}: {_first_line(error)}"
                    ) from error
            return self._runners[threads]


@dataclass(frozen=True)
class LayerMemory:
    """As engine.LayerMemory."""

    layer: int
    drift: float
    weight: float
    momentum: float
    gradient: float


class OrtSession:
    """The state of one conversation as plain arrays, fed back after every call."""

    def __init__(self, model: OrtModel, threads: int) -> None:
        self._model = model
        self._runner = model.runner(threads)
        self._outputs = ["logits", *(f"{state.name}.out" for state in model.states)]
        self._threads = threads
        self._frozen = False
        self._cancelled = False
        self._busy = threading.Lock()
        self._state = dict(model.initial)
        self._position = 0
        self._marks: list[tuple[dict[str, NDArray[np.float32]], int]] = []

    def forward(self, ids: NDArray[np.int64], last_only: bool = False) -> NDArray[np.float32]:
        """Reads ids; float32 [T, vocab] or [1, vocab]. An error leaves the state at the last whole block."""
        wrong = np.flatnonzero((ids < 0) | (ids >= self._model.vocab_size))
        if ids.size == 0 or wrong.size:
            raise InvalidArgumentError(
                f"Token {ids[wrong[0]]} at index {wrong[0]} is outside the model's vocabulary of "
                f"{self._model.vocab_size} tokens."
                if wrong.size
                else "There are no tokens to read; give at least one id."
            )
        if not self._busy.acquire(blocking=False):
            raise SessionInUseError(
                "This session is in use by another thread; give each thread its own (Session.clone())."
            )
        try:
            self._cancelled = False
            blocks: list[NDArray[np.float32]] = []
            begin = 0
            while begin < ids.size:
                if self._cancelled:
                    raise CancelledError("Reading was cancelled between two blocks of tokens.")
                logits = self._step(ids[begin : begin + self._block()])
                begin += len(logits)
                blocks = [logits[-1:]] if last_only else [*blocks, logits]
            return np.concatenate(blocks)
        finally:
            self._busy.release()

    def _block(self) -> int:
        """How many tokens the next call may read.

        Frozen, a call ends with its chunk: the graph writes the memory there, and later tokens of the same
        call would read what was written.
        """
        chunk = self._model.chunk
        return min(_BLOCK, chunk - self._position % chunk) if self._frozen else _BLOCK

    def _step(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        position = np.array(self._position, dtype=np.int64)
        try:
            logits, *states = self._runner.run(
                self._outputs, {"input_ids": ids, "position": position, **self._state}
            )
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise ModelFormatError(
                f"onnxruntime failed to run {self._model.path}: {_first_line(error)}"
            ) from error
        for info, new in zip(self._model.states, states, strict=True):
            if not (self._frozen and ".memory." in info.name):
                self._state[info.name] = new
        self._position += ids.size
        return np.asarray(logits, dtype=np.float32)

    def reset(self) -> None:
        self._state = dict(self._model.initial)
        self._position = 0
        self._marks = []

    def freeze(self, frozen: bool = True) -> None:
        if frozen and self._model.linear:
            raise UnsupportedModelError(
                "onnxruntime cannot hold a linear memory frozen, as the graph writes it with every token; "
                "use the native backend."
            )
        if frozen and not self._frozen:
            self._settle()
        self._frozen = frozen

    def _settle(self) -> None:
        """Learns what the unfinished chunk has, as the native runtime does: W = Ŵ - G, S += G, G = 0."""
        for name, g in list(self._state.items()):
            if ".memory.gradient." not in name or not g.any():
                continue
            weight, momentum = (name.replace(".gradient.", kind) for kind in (".weight.", ".momentum."))
            now = self._state[weight]
            norms = (np.linalg.norm(w, axis=-1, keepdims=True) for w in (self._model.initial[weight], now))
            norm0, norm = norms
            scaled = now * np.divide(norm0, norm, out=np.zeros_like(norm0), where=norm > 0)
            self._state[weight] = (scaled - g).astype(np.float32)
            self._state[momentum] = self._state[momentum] + g
            self._state[name] = np.zeros_like(g)

    def clone(self) -> OrtSession:
        other = OrtSession(self._model, self._threads)
        other._state = dict(self._state)  # arrays are replaced, never written
        other._position, other._frozen = self._position, self._frozen
        return other

    def state(self, index: int) -> NDArray[np.float32]:
        return np.array(self._state[self._model.states[index].name], dtype=np.float32)

    def mark(self, max_bytes: int) -> None:
        room = max_bytes - self.state_bytes
        while self._marks and self.mark_bytes > room:
            del self._marks[0]
        self._marks.append((dict(self._state), self._position))

    def undo(self) -> bool:
        if not self._marks:
            return False
        self._state, self._position = self._marks.pop()
        return True

    @property
    def marks(self) -> int:
        return len(self._marks)

    @property
    def mark_bytes(self) -> int:
        return len(self._marks) * self.state_bytes

    def layer_memories(self) -> list[LayerMemory]:
        squares: dict[int, dict[str, float]] = {}
        for name, now in self._state.items():
            for kind in ("weight", "momentum", "gradient"):
                if f"memory.{kind}." in name:
                    layer = squares.setdefault(_layer_of(name), dict.fromkeys(_SQUARES, 0.0))
                    start = self._model.initial[name]
                    layer[kind] += _square_norm(start if kind == "weight" else now)
                    layer["moved"] += _square_norm(now - start) if kind == "weight" else 0.0
        return [
            LayerMemory(
                layer,
                math.sqrt(of["moved"] / of["weight"] if of["weight"] > 0 else of["moved"]),
                *(math.sqrt(of[kind]) for kind in ("weight", "momentum", "gradient")),
            )
            for layer, of in sorted(squares.items())
        ]

    def cancel(self) -> None:
        self._cancelled = True

    @property
    def position(self) -> int:
        return self._position

    @property
    def frozen(self) -> bool:
        return self._frozen

    @property
    def state_bytes(self) -> int:
        return self._model.state_bytes

    @property
    def total_bytes(self) -> int:
        """onnxruntime does not tell what it allocates: the state alone."""
        return self._model.state_bytes

    @property
    def threads(self) -> int:
        return self._threads


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


_SQUARES = ("moved", "weight", "momentum", "gradient")


def _layer_of(state_name: str) -> int:
    """ "layers.3.memory..." is of layer 3."""
    part = state_name.split(".")[1] if state_name.startswith("layers.") else ""
    return int(part) if part.isdecimal() else 0


def _square_norm(values: NDArray[np.float32]) -> float:
    return float(np.sum(np.square(values, dtype=np.float64)))
