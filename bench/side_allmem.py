"""The side of allmem-edge: Session.forward() through the native module, nothing above it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from allmem_edge import _core
from allmem_edge.cli.bench import go_to_depth
from losses import losses_of
from worker import Side, add_arguments, memory_use, read_file, serve

BLOCK = 256  # tokens whose logits are held at a time


class AllMem(Side):
    """A model directory and one session."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._before = memory_use()["now"]
        self._snapshots: dict[int, tuple[bytes, str]] = {}
        self._rng = np.random.default_rng(0)

    def _tokens(self, count: int) -> Any:
        return self._rng.integers(0, self._model.vocab_size, count)

    def _read(self, count: int) -> None:
        self._session.forward(self._tokens(count), True)

    def load(self) -> dict[str, Any]:
        data = self._args.model / "model.onnx.data"
        read_file(data)
        begin = time.perf_counter()
        args = self._args
        self._model = _core.Model(str(args.model), window=args.window, memory=args.memory)
        loaded = time.perf_counter()
        self._session = _core.Session(self._model, self._args.threads)
        self._session.forward(np.zeros(1, np.int64), True)
        ready = time.perf_counter()
        return {
            "load_s": loaded - begin,
            "first_logits_s": ready - begin,
            "file_bytes": sum(p.stat().st_size for p in Path(self._args.model).glob("model.onnx*")),
            "system": f"{_core.isa_name()}, {self._session.threads} threads",
            "quantization": self._model.quantization,
            "window": self._model.window,
            "sinks": self._model.sinks,
            "chunk": self._model.chunk,
        }

    def go_to(self, depth: int) -> dict[str, Any]:
        if depth == 0:
            self._session.reset()
            return {"run": "reset"}
        if depth not in self._snapshots:
            run = go_to_depth(self._session, self._model, depth - 1, self._read)
            self._snapshots[depth] = (self._session.snapshot(b""), run)
        snapshot, run = self._snapshots[depth]
        self._session.restore(snapshot)
        self._read(1)
        return {"run": f"{run}, and one more"}

    def read(self, tokens: int) -> dict[str, Any]:
        ids = self._tokens(tokens)
        begin = time.perf_counter()
        self._session.forward(ids, True)
        return {"seconds": time.perf_counter() - begin}

    def write(self, tokens: int) -> dict[str, Any]:
        ids = self._tokens(tokens)
        begin = time.perf_counter()
        for i in range(tokens):
            self._session.forward(ids[i : i + 1], True)
        return {"seconds": time.perf_counter() - begin}

    def losses(self, ids: list[int]) -> dict[str, Any]:
        self._session.reset()
        found: list[float] = []
        for begin in range(0, len(ids), BLOCK):
            block, expected = ids[begin : begin + BLOCK], ids[begin + 1 : begin + BLOCK + 1]
            logits = self._session.forward(np.asarray(block, np.int64))
            found += losses_of(logits[: len(expected)], expected)
        return {"nats": found}

    def machine(self, bytes: int) -> dict[str, Any]:
        """What the bound is made of: allmem_edge.cost.Machine."""
        speeds = _core.measure_machine(self._args.threads, bytes, False)
        return dict(zip(("read_bytes", "integer", "floating"), speeds, strict=True))

    def facts(self) -> dict[str, Any]:
        return {
            "position": self._session.position,
            "state_bytes": self._session.state_bytes,
            "session_bytes": self._session.total_bytes,
            "weight_bytes": self._model.weight_bytes,
            "memory": memory_use(),
            "memory_before": self._before,
        }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--window", type=int, help="tokens, instead of the model's own")
    parser.add_argument("--memory", choices=["on", "off"], default="on")
    serve(AllMem, parser.parse_args())
