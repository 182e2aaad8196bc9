"""The function bodies in stock onnxruntime against brute force in float64, straight from docs/format.md."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from allmem_export.functions import DOMAIN, OPSET, function_protos

EPS = float(np.finfo(np.float32).eps)
MATRICES = ("gate", "up", "down")
STATES = [*(f"{p}_{m}" for p in "wsg" for m in MATRICES), "beta_sum"]


Shape = list[str | int]


def one_op_model(
    name: str, inputs: dict[str, Shape], states: dict[str, Shape], attributes: dict[str, Any]
) -> onnx.ModelProto:
    """A model that only calls `allmem::name`: float inputs and states of the given shapes, and `position`.

    A linear memory has no use for the position.
    """
    linear = name == "LinearMemory"
    outputs = {"y": inputs["q"]} | {f"{n}_out": shape for n, shape in states.items()}
    inputs = inputs | states
    position = [] if linear else ["position"]
    node = helper.make_node(name, [*inputs, *position], list(outputs), domain=DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "one_op",
        [
            *(helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in inputs.items()),
            *(helper.make_tensor_value_info(n, TensorProto.INT64, []) for n in position),
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, 1)]
    functions = function_protos("linear" if linear else "mlp")
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10)


def attention_model(a: dict[str, Any]) -> onnx.ModelProto:
    kv, dim = a["num_kv_heads"], a["head_dim"]
    slots: Shape = [kv, a["sinks"] + a["window"], dim]
    shapes: dict[str, Shape] = {"q": ["T", a["num_heads"] * dim], "k": ["T", kv * dim], "v": ["T", kv * dim]}
    return one_op_model("SlidingWindowAttention", shapes, {"keys": slots, "values": slots}, a)


def memory_model(a: dict[str, Any]) -> onnx.ModelProto:
    kv, dim, hidden = a["num_kv_heads"], a["head_dim"], a["hidden"]
    shapes: dict[str, Shape] = {"q": ["T", a["num_heads"] * dim], "k": ["T", kv * dim], "v": ["T", kv * dim]}
    shapes |= {"eta": ["T", kv], "beta": ["T", kv]}
    shapes |= {"norm_gate": [kv, hidden], "norm_up": [kv, hidden], "norm_down": [kv, dim]}
    down: Shape = [kv, dim, hidden]
    states = {n: down if n.endswith("down") else [kv, hidden, dim] for n in STATES[:-1]} | {"beta_sum": [kv]}
    return one_op_model("TestTimeMemory", shapes, states, a)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def cuts(tokens: int, rng: np.random.Generator, pieces: int) -> list[tuple[int, int]]:
    edges = (
        sorted({0, tokens, *rng.integers(1, tokens, size=pieces - 1).tolist()}) if tokens > 1 else [0, tokens]
    )
    return list(pairwise(edges))


# -- SlidingWindowAttention --


def rope(x: np.ndarray, position: int, inv_freq: np.ndarray, scale: float) -> np.ndarray:
    """x [heads, D] rotated; angles in extended precision."""
    angle = np.longdouble(position) * inv_freq.astype(np.longdouble)
    cos, sin = (scale * f(angle).astype(np.float64) for f in (np.cos, np.sin))
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attention_brute_force(
    q: np.ndarray, k: dict[int, np.ndarray], v: dict[int, np.ndarray], t: int, a: dict[str, Any]
) -> np.ndarray:
    """The output [H, D] of token t from unrotated q [H, D] and every token's unrotated k, v [K, D]."""
    inv_freq, scale = np.array(a["rope_inv_freq"], np.float32), a["rope_scale"]
    window, sinks, heads, kv_heads, dim = (
        a[n] for n in ("window", "sinks", "num_heads", "num_kv_heads", "head_dim")
    )
    seen = [s for s in k if s <= t and (s > t - window or s < sinks)]
    out = np.zeros((heads, dim))
    q_near = rope(q, t, inv_freq, scale)
    q_sink = rope(q, min(t, sinks + window - 1), inv_freq, scale)
    for head in range(heads):
        kv = head * kv_heads // heads
        scores = np.array(
            [(q_sink if s < sinks else q_near)[head] @ rope(k[s], s, inv_freq, scale)[kv] for s in seen]
        ) / np.sqrt(dim)
        weights = np.exp(scores - scores.max())
        out[head] = (weights / weights.sum()) @ np.stack([v[s][kv] for s in seen])
    return out


def ring(tokens: dict[int, np.ndarray], position: int, a: dict[str, Any]) -> np.ndarray:
    """[K, S+W, D]: what the slots hold before token `position`; zeros where nothing was written."""
    window, sinks = a["window"], a["sinks"]
    slots = np.zeros((a["num_kv_heads"], sinks + window, a["head_dim"]))
    for p in sorted(p for p in tokens if p < position):
        slots[:, p if p < sinks else sinks + (p - sinks) % window] = tokens[p]
    return slots


ATTENTION = [
    # heads, kv heads, dim, window, sinks, rope scale, first position, tokens
    (4, 2, 8, 5, 0, 1.0, 0, 23),
    (4, 4, 16, 7, 3, 1.0, 0, 40),
    (6, 2, 4, 1, 2, 1.0, 0, 9),
    (2, 1, 32, 16, 4, 1.2, 0, 6),
    (3, 1, 8, 4, 9, 1.0, 0, 30),
    (4, 2, 8, 6, 2, 1.0, 1003, 20),
    (4, 2, 64, 8, 5, 1.0, 10_000_000, 24),
    (1, 1, 2, 3, 0, 0.7, 7, 1),
]


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "window", "sinks", "scale", "first", "tokens"), ATTENTION
)
def test_attention_body_equals_its_definition_for_any_split(
    heads: int, kv_heads: int, dim: int, window: int, sinks: int, scale: float, first: int, tokens: int
) -> None:
    rng = np.random.default_rng(heads * 1000 + window)
    a: dict[str, Any] = {
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": dim,
        "window": window,
        "sinks": sinks,
        "rope_inv_freq": [float(np.float32(10000.0 ** (-2 * i / dim))) for i in range(dim // 2)],
        "rope_scale": float(np.float32(scale)),
    }
    inv_freq = np.array(a["rope_inv_freq"], np.float32)
    history = {*range(min(sinks, first)), *range(max(0, first - window - 3), first)}
    positions = sorted(history | set(range(first, first + tokens)))
    k = {p: rng.standard_normal((kv_heads, dim)) for p in positions}
    v = {p: rng.standard_normal((kv_heads, dim)) for p in positions}
    q = {p: rng.standard_normal((heads, dim)) for p in positions}
    rotated = {p: rope(k[p], p, inv_freq, a["rope_scale"]) for p in positions}
    expected = np.stack(
        [attention_brute_force(q[p], k, v, p, a).ravel() for p in range(first, first + tokens)]
    )

    run = session(attention_model(a))
    largest_score = (
        max(np.abs(x).max() for x in q.values()) * max(np.abs(x).max() for x in k.values()) * dim**0.5
    )
    tolerance = EPS * (8 + largest_score) * 8 * scale**2 + 8 * EPS * dim**0.5
    for pieces in (1, 4, tokens):
        keys = ring(rotated, first, a).astype(np.float32)
        values = ring(v, first, a).astype(np.float32)
        got = []
        for start, stop in cuts(tokens, rng, pieces) if pieces > 1 else [(0, tokens)]:
            span = range(first + start, first + stop)
            feeds = {
                n: np.stack([x[p].ravel() for p in span]).astype(np.float32)
                for n, x in (("q", q), ("k", k), ("v", v))
            }
            feeds |= {"keys": keys, "values": values, "position": np.array(first + start)}
            y, keys, values = run.run(None, feeds)
            got.append(y)
        np.testing.assert_allclose(np.concatenate(got), expected, atol=tolerance, rtol=0)
        np.testing.assert_allclose(keys, ring(rotated, first + tokens, a), atol=16 * EPS, rtol=4 * EPS)
        np.testing.assert_array_equal(values, ring(v, first + tokens, a).astype(np.float32))


def test_attention_body_never_reads_an_empty_slot() -> None:
    a: dict[str, Any] = {"num_heads": 1, "num_kv_heads": 1, "head_dim": 2, "window": 4, "sinks": 2}
    a |= {"rope_inv_freq": [1.0], "rope_scale": 1.0}
    run = session(attention_model(a))
    one = np.ones((1, 2), np.float32)
    trash = np.full((1, 6, 2), 1e30, np.float32)
    feeds = {"q": one, "k": one, "v": one, "keys": trash, "values": trash, "position": np.array(0)}
    np.testing.assert_array_equal(run.run(["y"], feeds)[0], one)


# -- TestTimeMemory --


def network(w: list[torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    gate, up, down = w
    return z + down @ (torch.nn.functional.silu(gate @ z) * (up @ z))


def memory_brute_force(
    x: dict[str, np.ndarray], a: dict[str, Any]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """From the start of a stream, chunk by chunk, head by head, gradients by autograd: y, the last state."""
    heads, kv_heads, dim, chunk = (a[n] for n in ("num_heads", "num_kv_heads", "head_dim", "chunk"))
    tokens = len(x["q"])
    t64 = {n: torch.from_numpy(value.astype(np.float64)) for n, value in x.items()}
    q, k, v = (t64[n].view(tokens, -1, dim) for n in "qkv")
    y = torch.zeros(tokens, heads, dim, dtype=torch.float64)
    state: dict[str, list[np.ndarray]] = {f"{p}_{m}": [] for p in "wsg" for m in MATRICES} | {"beta_sum": []}
    for kv in range(kv_heads):
        w0 = [t64[f"w_{m}"][kv] for m in MATRICES]
        w = [m.clone() for m in w0]
        momentum = [torch.zeros_like(m) for m in w]
        for start in range(0, tokens + 1, chunk):
            block = range(start, min(start + chunk, tokens))
            for t in block:
                for head in range(heads):
                    if head * kv_heads // heads == kv:
                        y[t, head] = network(w, q[t, head])
            normed = [
                m / m.norm(dim=1, keepdim=True) * m0.norm(dim=1, keepdim=True)
                for m, m0 in zip(w, w0, strict=True)
            ]
            leaves = [m.detach().requires_grad_() for m in normed]
            loss = sum(
                (
                    t64["eta"][t, kv] * 0.5 * (network(leaves, k[t, kv]) - v[t, kv]).square().sum()
                    for t in block
                ),
                torch.zeros((), dtype=torch.float64) + 0 * sum(m.sum() for m in leaves),
            )
            grad = torch.autograd.grad(loss, leaves)
            beta_sum = sum((t64["beta"][t, kv] for t in block), torch.zeros((), dtype=torch.float64))
            if len(block) < chunk:
                break
            momentum = [beta_sum / chunk * s + g for s, g in zip(momentum, grad, strict=True)]
            w = [m - s for m, s in zip(normed, momentum, strict=True)]
        for prefix, matrices in (("w", w), ("s", momentum), ("g", grad)):
            for name, matrix in zip(MATRICES, matrices, strict=True):
                state[f"{prefix}_{name}"].append(matrix.detach().numpy())
        state["beta_sum"].append(beta_sum.numpy())
    return y.flatten(1).numpy(), {n: np.stack(value) for n, value in state.items()}


MEMORY = [
    # heads, kv heads, dim, hidden, chunk, tokens
    (4, 2, 8, 16, 5, 33),
    (2, 2, 16, 16, 8, 40),
    (3, 1, 4, 12, 1, 12),
    (6, 3, 8, 8, 16, 11),
    (1, 1, 32, 64, 7, 21),
]


@pytest.mark.parametrize(("heads", "kv_heads", "dim", "hidden", "chunk", "tokens"), MEMORY)
def test_memory_body_equals_its_definition_for_any_split(
    heads: int, kv_heads: int, dim: int, hidden: int, chunk: int, tokens: int
) -> None:
    rng = np.random.default_rng(heads * 100 + chunk)
    a = {"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": dim, "hidden": hidden, "chunk": chunk}

    def unit(*shape: int) -> np.ndarray:
        x = rng.standard_normal(shape)
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)

    x: dict[str, np.ndarray] = {
        "q": unit(tokens, heads, dim).reshape(tokens, -1),
        "k": unit(tokens, kv_heads, dim).reshape(tokens, -1),
        "v": rng.standard_normal((tokens, kv_heads * dim)).astype(np.float32),
        "eta": (0.5 * rng.random((tokens, kv_heads)) / chunk).astype(np.float32),
        "beta": rng.random((tokens, kv_heads)).astype(np.float32),
        "w_gate": (rng.standard_normal((kv_heads, hidden, dim)) * dim**-0.5).astype(np.float32),
        "w_up": (rng.standard_normal((kv_heads, hidden, dim)) * dim**-0.5).astype(np.float32),
        "w_down": (rng.standard_normal((kv_heads, dim, hidden)) * hidden**-0.5).astype(np.float32),
    }
    expected, last = memory_brute_force(x, a)

    norms = {f"norm_{m}": np.linalg.norm(x[f"w_{m}"], axis=-1) for m in MATRICES}
    run = session(memory_model(a))
    # every token's reductions of D or h terms add their rounding to the state, which later tokens read
    tolerance = EPS * tokens * (dim + hidden) ** 0.5 * max(1.0, float(np.abs(expected).max()))
    for pieces in (1, 4, tokens):
        state = {
            n: x[n] if n.startswith("w") else np.zeros_like(x[n.replace("s_", "w_").replace("g_", "w_")])
            for n in STATES[:-1]
        }
        state["beta_sum"] = np.zeros(kv_heads, np.float32)
        got = []
        for start, stop in cuts(tokens, rng, pieces) if pieces > 1 else [(0, tokens)]:
            feeds = {n: x[n][start:stop] for n in (*"qkv", "eta", "beta")} | norms | state
            y, *after = run.run(None, feeds | {"position": np.array(start)})
            state = dict(zip(STATES, after, strict=True))
            got.append(y)
        np.testing.assert_allclose(np.concatenate(got), expected, atol=tolerance, rtol=0)
        for name in STATES:
            np.testing.assert_allclose(state[name], last[name], atol=tolerance, rtol=0, err_msg=name)


def test_memory_body_keeps_a_row_of_zeros() -> None:
    a = {"num_heads": 1, "num_kv_heads": 1, "head_dim": 2, "hidden": 2, "chunk": 1}
    run = session(memory_model(a))
    feeds: dict[str, np.ndarray] = {n: np.ones((1, 2), np.float32) for n in "qkv"}
    feeds |= {n: np.zeros((1, 1), np.float32) for n in ("eta", "beta")}
    feeds |= {f"norm_{m}": np.zeros((1, 2), np.float32) for m in MATRICES}
    feeds |= {n: np.zeros((1, 2, 2), np.float32) for n in STATES[:-1]}
    feeds |= {"beta_sum": np.zeros(1, np.float32), "position": np.array(0)}
    y, *after = run.run(None, feeds)
    np.testing.assert_array_equal(y, np.ones((1, 2), np.float32))
    assert all(np.isfinite(x).all() and not x.any() for x in after)


def test_bodies_pass_the_full_checker() -> None:
    a: dict[str, Any] = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 4}
    attention = {"window": 3, "sinks": 1, "rope_inv_freq": [1.0, 0.5], "rope_scale": 1.0}
    onnx.checker.check_model(attention_model(a | attention), full_check=True)
    onnx.checker.check_model(memory_model(a | {"hidden": 8, "chunk": 2}), full_check=True)
