"""The fused operations of training against autograd through memory.py and attention.py, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from allmem_export import attention, fused, memory
from allmem_export.memory import FastWeights

pytestmark = pytest.mark.xdist_group("fused")
NAMES = ("w_gate", "w_up", "w_down", "q", "k", "v", "eta", "beta")


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    assert fused.compile_fused(), "the tests' machine has a compiler"


def _inputs(
    batch: int, heads: int, group: int, tokens: int, dim: int, hidden: int, scale: float
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(tokens)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q = torch.nn.functional.normalize(random(batch, heads, group, tokens, dim), dim=-1)
    k = torch.nn.functional.normalize(random(batch, heads, tokens, dim), dim=-1)
    rates = torch.rand(2, batch, heads, tokens, generator=generator, dtype=torch.float64)
    weights = [
        random(heads, hidden, dim) * scale,
        random(heads, hidden, dim),
        random(heads, dim, hidden) * 0.1,
    ]
    return [*weights, q, k, random(batch, heads, tokens, dim), rates[0] * 0.02, rates[1]]


def _run(use_fused: bool, inputs: list[Tensor], chunk: int, dtype: torch.dtype) -> list[Tensor]:
    """What was read, and the gradients of its product with fixed random numbers."""
    used = [x.to(dtype).requires_grad_() for x in inputs]
    run = fused.chunked_memory if use_fused else memory.chunked_memory
    read = run(FastWeights(*used[:3]), *used[3:], chunk)
    weight = torch.randn(read.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grads = torch.autograd.grad((read * weight.to(dtype)).sum(), used, materialize_grads=True)
    return [read.detach(), *grads]


@pytest.mark.parametrize(
    ("shape", "chunk", "scale"),
    [
        ((2, 3, 3, 100, 16, 32), 32, 1.0),  # a last chunk that is not full
        ((1, 1, 1, 64, 8, 8), 16, 1.0),
        ((1, 2, 4, 30, 8, 24), 30, 1.0),  # one chunk: nothing is learned
        ((1, 2, 2, 7, 8, 12), 1, 1.0),
        ((1, 2, 2, 64, 8, 12), 16, 300.0),  # exp(−a) of float32 would be infinite
    ],
)
def test_fused_equals_autograd(shape: tuple[int, ...], chunk: int, scale: float) -> None:
    inputs = _inputs(*shape, scale)
    _compare(
        ("read", *NAMES),
        _run(False, inputs, chunk, torch.float64),
        _run(False, inputs, chunk, torch.float32),
        _run(True, inputs, chunk, torch.float32),
    )


def _compare(names: tuple[str, ...], exact: list[Tensor], plain: list[Tensor], fused: list[Tensor]) -> None:
    """That `fused` is as near to the exact values as `plain`, both in float32."""
    for name, want, reference, got in zip(names, exact, plain, fused, strict=True):
        size = want.norm()
        # Both sum the same terms in float32, in another order: a few times the error of the other, or a few
        # roundings where that happens to be exact.
        allowed = 8 * (reference - want).norm() + 8 * torch.finfo(torch.float32).eps * size
        assert torch.isfinite(got).all(), name
        assert (got - want).norm() <= allowed, name


def test_other_types_take_the_plain_way() -> None:
    inputs = _inputs(1, 1, 1, 16, 8, 8, 1.0)
    for got, want in zip(
        _run(True, inputs, 8, torch.float64), _run(False, inputs, 8, torch.float64), strict=True
    ):
        assert torch.equal(got, want)


def _attend(
    use_fused: bool, inputs: list[Tensor], spans: tuple[int, int], dtype: torch.dtype
) -> list[Tensor]:
    """What was attended, and the gradients of its product with fixed random numbers."""
    used = [x.to(dtype).requires_grad_() for x in inputs]
    run = fused.window_attention if use_fused else attention.window_attention
    out = run(used[0], used[1], used[2], used[3], *spans)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grads = torch.autograd.grad((out * weight.to(dtype)).sum(), used, materialize_grads=True)
    return [out.detach(), *grads]


@pytest.mark.parametrize(
    ("tokens", "window", "sinks"),
    [(200, 64, 4), (200, 50, 0), (130, 129, 4), (70, 7, 1), (64, 1, 3), (150, 100, 149), (65, 16, 65)],
)
def test_fused_attention_equals_autograd(tokens: int, window: int, sinks: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    shapes = [(2, 2, 3, tokens, 16)] * 2 + [(2, 2, tokens, 16)] * 2
    inputs = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    spans = (window, sinks)
    _compare(
        ("out", "q", "q_sink", "k", "v"),
        _attend(False, inputs, spans, torch.float64),
        _attend(False, inputs, spans, torch.float32),
        _attend(True, inputs, spans, torch.float32),
    )
