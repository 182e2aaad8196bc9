"""The linear memory: its rule, its forms in PyTorch, its function body, and ONNX's own operator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper
from test_function_bodies import cuts, one_op_model, session
from torch import Tensor
from torch.nn import functional as F

import allmem_edge as ae
import tiny
from allmem_edge.cli import inspect as inspect_command
from allmem_edge.cli.convert import command as convert_command
from allmem_edge.errors import UnsupportedModelError
from allmem_edge.ort_backend import OrtModel, OrtSession
from allmem_export.configuration import AllMemConfig
from allmem_export.linear_memory import BLOCK, chunked_linear_memory, linear_memory_step
from allmem_export.long_term_memory import LinearMemory
from allmem_export.modeling import AllMemForCausalLM

F64_EPS = torch.finfo(torch.float64).eps
F32_EPS = torch.finfo(torch.float32).eps


def random_inputs(seed: int, tokens: int, dim: int, group: int = 3, kv_heads: int = 2) -> tuple[Tensor, ...]:
    """q, k, v, η, β for 2 sequences in float64; every seventh token forgets all, one in five nothing."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    q, k = (F.normalize(normal(2, kv_heads, *heads, tokens, dim), dim=-1) for heads in ((group,), ()))
    eta, beta = (torch.rand(2, kv_heads, tokens, generator=g, dtype=torch.float64) for _ in range(2))
    beta = 1 - 0.1 * beta
    beta[..., 6::7] = 0.0
    beta[..., ::5] = 1.0
    return q, k, normal(2, kv_heads, tokens, dim), eta, beta


def by_the_rule(q: Tensor, k: Tensor, v: Tensor, eta: Tensor, beta: Tensor, delta: bool) -> Tensor:
    """S_t = β S (I − η k kᵀ) + η v kᵀ, spelled out with whole matrices, one head at a time."""
    out = torch.empty_like(q)
    identity = torch.eye(q.shape[-1], dtype=q.dtype)
    for b in range(q.shape[0]):
        for head in range(q.shape[1]):
            s = torch.zeros(v.shape[-1], k.shape[-1], dtype=q.dtype)
            for t in range(q.shape[3]):
                key, rate = k[b, head, t], eta[b, head, t]
                kept = identity - rate * torch.outer(key, key) if delta else identity
                s = beta[b, head, t] * s @ kept + rate * torch.outer(v[b, head, t], key)
                out[b, head, :, t] = q[b, head, :, t] @ s.T
    return out


def token_by_token(q: Tensor, k: Tensor, v: Tensor, eta: Tensor, beta: Tensor, delta: bool) -> Tensor:
    state = q.new_zeros(*k.shape[:2], v.shape[-1], k.shape[-1])
    outputs = []
    for t in range(q.shape[3]):
        out, state = linear_memory_step(
            state, q[:, :, :, t], k[:, :, t], v[:, :, t], eta[:, :, t], beta[:, :, t], delta
        )
        outputs.append(out)
    return torch.stack(outputs, 3)


@pytest.mark.parametrize("delta", [True, False])
def test_a_token_follows_the_rule(delta: bool) -> None:
    inputs = random_inputs(1, 29, 6)
    # Sums of 6 and of 29 terms of order 1, in another order
    bound = 29 * 6 * F64_EPS * inputs[2].abs().max().item()
    assert (token_by_token(*inputs, delta) - by_the_rule(*inputs, delta)).abs().max() <= bound


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("block", [1, 4, 7, 23, BLOCK])
def test_blocks_of_tokens_give_what_single_tokens_do(block: int, delta: bool) -> None:
    inputs = random_inputs(block, 71, 6)
    blocked, single = chunked_linear_memory(*inputs, delta, block), token_by_token(*inputs, delta)
    # A block's system has the condition of at most `block` contractions by I − η k kᵀ; decays below 1e-30
    # stand for 0. 71 tokens, sums of 6 and of `block` terms
    assert (blocked - single).abs().max() <= 71 * (6 + block) * F64_EPS * single.abs().max()


@pytest.mark.parametrize("delta", [True, False])
def test_float32_blocks_stay_close_to_float64_over_a_long_text(delta: bool) -> None:
    inputs = random_inputs(3, 600, 16)
    single = token_by_token(*inputs, delta)
    blocked = chunked_linear_memory(*(x.float() for x in inputs), delta)
    # Relative to what the state can hold: rounding of sums over 16 channels and a block, at random
    assert (blocked - single).abs().max() <= 8 * (16 + BLOCK) ** 0.5 * F32_EPS * single.abs().max()


@pytest.mark.parametrize("delta", [True, False])
def test_what_training_differentiates_agrees_with_finite_differences(delta: bool) -> None:
    q, k, v, eta, beta = random_inputs(6, 5, 3)
    inputs = [x.clone().requires_grad_() for x in (q, k, v, eta, 0.9 * beta + 0.05)]
    assert torch.autograd.gradcheck(
        lambda *xs: chunked_linear_memory(*xs, delta, block=2), inputs, fast_mode=True
    )


def test_a_correction_replaces_what_the_delta_rule_knew_and_adds_up_without_it() -> None:
    q, k, _, _, _ = random_inputs(4, 2, 8, group=1, kv_heads=1)
    k[:, :, 1] = k[:, :, 0]
    q[:, :, :, 1] = k[:, :, 1].unsqueeze(2)
    v = torch.stack((torch.full((2, 1, 8), 5.0), torch.arange(8.0).expand(2, 1, 8)), 2).double()
    one = torch.ones(2, 1, 2, dtype=torch.float64)
    corrected, added = (chunked_linear_memory(q, k, v, one, one, delta) for delta in (True, False))
    assert torch.allclose(corrected[:, :, 0, 1], v[:, :, 1], rtol=0, atol=1e-12)
    assert torch.allclose(added[:, :, 0, 1], v[:, :, 0] + v[:, :, 1], rtol=0, atol=1e-12)


# -- the module --


def test_eta_and_beta_start_at_the_configs_values() -> None:
    config = AllMemConfig(**{**tiny.BASE, "memory": "linear", "eta_init": 0.3})
    eta, beta = LinearMemory(config).rates(torch.randn(2, 5, config.hidden_size))
    assert torch.allclose(eta, torch.tensor(0.3)) and torch.allclose(beta, torch.tensor(0.999))


def test_a_linear_memory_has_no_chunk_and_no_fast_weights_to_train() -> None:
    config = AllMemConfig(**{**tiny.BASE, "memory": "linear", "chunk": 16})
    assert config.chunk == 1
    assert not any("weight_" in name for name, _ in LinearMemory(config).named_parameters())


@pytest.mark.parametrize(
    "fields",
    [{"memory": "mamba"}, {"eta_init": 1.0, "memory": "linear"}, {"beta_init": 1.0, "memory": "linear"}],
)
def test_an_impossible_config_is_refused_with_a_sentence(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        AllMemConfig(**{**tiny.BASE, **fields})


@pytest.mark.parametrize("name", ["linear", "linear_without_delta_maps"])
def test_everything_in_the_memory_learns(name: str) -> None:
    model: AllMemForCausalLM = tiny.make_model(name).train()
    ids = torch.randint(0, tiny.VOCAB_SIZE, (2, 80), generator=torch.Generator().manual_seed(0))
    model(ids, labels=ids).loss.backward()
    without = [
        n for n, p in model.named_parameters() if ".memory." in n and (p.grad is None or not p.grad.any())
    ]
    assert not without


# -- the function body --


def linear_model(a: dict[str, Any]) -> onnx.ModelProto:
    kv, dim = a["num_kv_heads"], a["head_dim"]
    shapes: dict[str, list[str | int]] = {"q": ["T", a["num_heads"] * dim]}
    shapes |= {"k": ["T", kv * dim], "v": ["T", kv * dim], "eta": ["T", kv], "beta": ["T", kv]}
    return one_op_model("LinearMemory", shapes, {"weight": [kv, dim, dim]}, a)


SHAPES = [
    # heads, kv heads, dim, tokens
    (4, 2, 8, 33),
    (2, 2, 16, 40),
    (3, 1, 4, 12),
    (6, 3, 8, 1),
]


@pytest.mark.parametrize("delta", [1, 0])
@pytest.mark.parametrize(("heads", "kv_heads", "dim", "tokens"), SHAPES)
def test_the_body_equals_the_rule_for_any_split(
    heads: int, kv_heads: int, dim: int, tokens: int, delta: int
) -> None:
    rng = np.random.default_rng(heads)
    q, k, v, eta, beta = (x[:1] for x in random_inputs(heads, tokens, dim, heads // kv_heads, kv_heads))
    expected = by_the_rule(q, k, v, eta, beta, bool(delta))[0].permute(2, 0, 1, 3).flatten(1).numpy()
    x = {
        "q": q[0].permute(2, 0, 1, 3).flatten(1),
        "k": k[0].transpose(0, 1).flatten(1),
        "v": v[0].transpose(0, 1).flatten(1),
        "eta": eta[0].mT,
        "beta": beta[0].mT,
    }
    feeds = {name: np.ascontiguousarray(value.numpy().astype(np.float32)) for name, value in x.items()}
    a = {"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": dim, "delta": delta}
    run = session(linear_model(a))
    # each token rounds the state, sums of D terms; without the delta part it adds up to the tokens' number
    tolerance = F32_EPS * tokens * dim**0.5 * max(1.0, float(np.abs(expected).max()))
    for pieces in (1, 4, tokens):
        weight = np.zeros((kv_heads, dim, dim), np.float32)
        got = []
        for start, stop in cuts(tokens, rng, pieces) if pieces > 1 else [(0, tokens)]:
            part = {name: value[start:stop] for name, value in feeds.items()}
            y, weight = run.run(None, part | {"weight": weight})
            got.append(y)
        np.testing.assert_allclose(np.concatenate(got), expected, atol=tolerance, rtol=0)


def test_the_body_passes_the_full_checker() -> None:
    a = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 4, "delta": 1}
    onnx.checker.check_model(linear_model(a), full_check=True)


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 27, reason="ONNX has LinearAttention from opset 27 on")
def test_the_body_computes_what_onnx_calls_linear_attention() -> None:
    """Its "gated_delta" rule keeps S transposed and takes the logarithm of the decay."""
    heads, kv_heads, dim, tokens = 4, 2, 8, 40
    rng = np.random.default_rng(0)

    def unit(*shape: int) -> np.ndarray:
        x = rng.standard_normal(shape)
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)).reshape(tokens, -1).astype(np.float32)

    x = {"q": unit(tokens, heads, dim), "k": unit(tokens, kv_heads, dim)}
    x["v"] = rng.standard_normal((tokens, kv_heads * dim)).astype(np.float32)
    x["eta"], x["beta"] = (rng.uniform(0.1, 1, (tokens, kv_heads)).astype(np.float32) for _ in range(2))
    weight = rng.standard_normal((kv_heads, dim, dim)).astype(np.float32)
    a = {"num_heads": heads, "num_kv_heads": kv_heads, "head_dim": dim, "delta": 1}
    y, after = session(linear_model(a)).run(None, x | {"weight": weight})

    names = ["query", "key", "value", "past", "decay", "rate"]
    feeds = {"query": x["q"], "key": x["k"], "value": x["v"], "past": weight.transpose(0, 2, 1)}
    feeds |= {"decay": np.log(x["beta"]), "rate": x["eta"]}
    feeds = {name: np.ascontiguousarray(feeds[name][None]) for name in names}
    shapes = {name: value.shape for name, value in feeds.items()}
    attributes = {"q_num_heads": heads, "kv_num_heads": kv_heads, "scale": 1.0, "update_rule": "gated_delta"}
    graph = helper.make_graph(
        [helper.make_node("LinearAttention", names, ["output", "present"], **attributes)],
        "theirs",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in shapes.items()],
        [
            helper.make_tensor_value_info("output", TensorProto.FLOAT, shapes["query"]),
            helper.make_tensor_value_info("present", TensorProto.FLOAT, shapes["past"]),
        ],
    )
    theirs = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 27)], ir_version=12)
    output, present = session(theirs).run(None, feeds)
    # exp(log β) and β differ by 2 ulp in every one of 40 tokens, whose effect decays
    bound = F32_EPS * tokens * dim**0.5 * float(np.abs(y).max())
    np.testing.assert_allclose(y, output[0], atol=bound, rtol=0)
    np.testing.assert_allclose(after, present[0].transpose(0, 2, 1), atol=bound, rtol=0)


# -- what users see --


def test_inspect_names_the_memory_and_counts_its_state(exported: Callable[..., Any], tmp_path: Path) -> None:
    directory = exported("linear").directory
    result = CliRunner().invoke(inspect_command.command, [str(directory), "--json"], catch_exceptions=False)
    report = json.loads(result.stdout)
    assert report["memory"] == "linear" and report["chunk"] == 1
    layers, kv_heads, dim = (tiny.BASE[n] for n in ("num_hidden_layers", "num_key_value_heads", "head_dim"))
    assert report["state_bytes"]["fast_weights"] == layers * kv_heads * dim * dim * 4
    assert report["state_bytes"]["momentum"] == report["state_bytes"]["gradient"] == 0

    session = ae.Model.load(directory, window=20).session()
    session.forward(np.arange(30))
    session.save(tmp_path / "saved")
    arguments = [str(tmp_path / "saved"), "--model", str(directory), "--json"]
    result = CliRunner().invoke(inspect_command.command, arguments, catch_exceptions=False)
    saved = json.loads(result.stdout)
    assert saved["tokens_seen"] == 30 and [layer["drift"] > 0 for layer in saved["layers"]] == [True, True]


def test_onnxruntime_refuses_to_freeze_what_its_graph_always_writes(exported: Callable[..., Any]) -> None:
    session = OrtSession(OrtModel(exported("linear").directory), 1)
    with pytest.raises(UnsupportedModelError, match="linear memory frozen"):
        session.freeze()


def test_the_command_line_makes_a_linear_memory_of_either_rule(tmp_path: Path) -> None:
    arguments = ["--random", "--like", "smollm2-135m", "--layers", "1", "--memory", "linear", "--no-delta"]
    result = CliRunner().invoke(
        convert_command, [*arguments, "--out", str(tmp_path / "made")], catch_exceptions=False
    )
    assert result.exit_code == 0
    config = AllMemConfig.from_pretrained(tmp_path / "made")
    assert (config.memory, config.memory_delta, config.chunk) == ("linear", False, 1)
