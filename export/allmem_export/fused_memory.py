"""The memory of training as one fused operation (chunked_memory.cpp), compiled when a training asks for it.

About twice as fast on a CPU as the many small operations of memory.py, which it equals, and it keeps two
states of a chunk instead of every intermediate result. Without a compiler, training goes on without it.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import cpp_extension

from . import memory
from .memory import FastWeights

_extension: Any = None  # set once compile_memory was asked for, and could


@cache
def compile_memory() -> bool:
    """Compiles the operation, or loads what was compiled; False, with a warning, where that fails."""
    global _extension
    source = Path(__file__).with_name("chunked_memory.cpp")
    name = f"allmem_chunked_memory_{torch.backends.cpu.get_cpu_capability().lower()}"
    flags = ["-O3", "-march=native", "-ffast-math"]
    try:
        _extension = cpp_extension.load(name, [str(source)], extra_cflags=flags)
    except (OSError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        warnings.warn(f"Training goes on without the fused memory, slower: {reason}", stacklevel=2)
        return False
    return True


class _ChunkedMemory(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        read, weights, momenta = _extension.forward(*args)
        ctx.save_for_backward(weights, momenta, *args[:-1])
        ctx.chunk = args[-1]
        return read  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        gradients = _extension.backward(grads[0].contiguous(), *ctx.saved_tensors, ctx.chunk)
        return (*gradients, None)


def chunked_memory(
    w0: FastWeights, q: Tensor, k: Tensor, v: Tensor, eta: Tensor, beta: Tensor, chunk: int
) -> Tensor:
    """memory.chunked_memory, fused where that was compiled and the tensors are float32 on a CPU."""
    if _extension is None or q.device.type != "cpu" or q.dtype != torch.float32:
        return memory.chunked_memory(w0, q, k, v, eta, beta, chunk)
    means = torch.stack([part.mean(-1) for part in beta.split(chunk, 2)], -1)
    inputs = (w0.gate, w0.up, w0.down, q, k, v, eta, means)
    read: Tensor = _ChunkedMemory.apply(*(x.contiguous() for x in inputs), chunk)  # type: ignore[no-untyped-call]
    return read
