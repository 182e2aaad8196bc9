"""Training's memory and window attention as fused operations in C++, compiled when a training asks for them.

chunked_memory.cpp and window_attention.cpp, on a CPU and in float32: about twice as fast as the many small
operations of memory.py and attention.py, which they equal, and without keeping every intermediate result.
Without a compiler, training goes on without them.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import cpp_extension

from . import attention, memory
from .memory import FastWeights

_extensions: dict[str, Any] = {}  # filled by compile_fused


@cache
def compile_fused() -> bool:
    """Compiles the operations, or loads what was compiled; False, with a warning, where that fails."""
    flags = ["-O3", "-march=native", "-ffast-math"]
    level = torch.backends.cpu.get_cpu_capability().lower()
    try:
        for name in ("chunked_memory", "window_attention"):
            source = Path(__file__).with_name(f"{name}.cpp")
            _extensions[name] = cpp_extension.load(
                f"allmem_{name}_{level}", [str(source)], extra_cflags=flags
            )
    except (OSError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        warnings.warn(f"Training goes on without the fused operations, slower: {reason}", stacklevel=2)
        return False
    return True


def _extension(name: str, x: Tensor) -> Any:
    """The compiled operation, if there is one and x is what it computes with."""
    usable = x.device.type == "cpu" and x.dtype == torch.float32
    return _extensions.get(name) if usable else None


class _ChunkedMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        read, weights, momenta = _extensions["chunked_memory"].forward(*args)
        ctx.save_for_backward(weights, momenta, *args[:-1])
        ctx.chunk = args[-1]
        return read  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        gradients = _extensions["chunked_memory"].backward(
            grads[0].contiguous(), *ctx.saved_tensors, ctx.chunk
        )
        return (*gradients, None)


def chunked_memory(
    w0: FastWeights, q: Tensor, k: Tensor, v: Tensor, eta: Tensor, beta: Tensor, chunk: int
) -> Tensor:
    """memory.chunked_memory, fused where that was compiled and the tensors are float32 on a CPU."""
    if _extension("chunked_memory", q) is None:
        return memory.chunked_memory(w0, q, k, v, eta, beta, chunk)
    means = torch.stack([part.mean(-1) for part in beta.split(chunk, 2)], -1)
    inputs = (w0.gate, w0.up, w0.down, q, k, v, eta, means)
    read: Tensor = _ChunkedMemory.apply(*(x.contiguous() for x in inputs), chunk)  # type: ignore[no-untyped-call]
    return read


class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        out, lse = _extensions["window_attention"].forward(*args)
        ctx.save_for_backward(out, lse, *args[:-2])
        ctx.spans = args[-2:]
        return out  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        gradients = _extensions["window_attention"].backward(
            grads[0].contiguous(), *ctx.saved_tensors, *ctx.spans
        )
        return (*gradients, None, None)


def window_attention(q: Tensor, q_sink: Tensor, k: Tensor, v: Tensor, window: int, sinks: int) -> Tensor:
    """attention.window_attention, fused where that was compiled and the tensors are float32 on a CPU."""
    if _extension("window_attention", q) is None:
        return attention.window_attention(q, q_sink, k, v, window, sinks)
    inputs = (x.contiguous() for x in (q, q_sink, k, v))
    out: Tensor = _WindowAttention.apply(*inputs, window, sinks)  # type: ignore[no-untyped-call]
    return out
