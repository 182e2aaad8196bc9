"""Checkpoints of real shapes with random weights: whole, loadable, the same for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from allmem_export import random_weights
from allmem_export.convert import ConvertError
from allmem_export.random_weights import SHAPES, write_random

TINY: dict[str, Any] = SHAPES["qwen3-0.6b"] | {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}
MEMORIES = {"window": 16, "sinks": 2, "chunk": 8}


@pytest.fixture(autouse=True)
def tiny_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(random_weights.SHAPES, "qwen3-0.6b", TINY)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()}


def test_the_checkpoint_loads_and_its_memory_takes_part(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    write_random("qwen3-0.6b", tmp_path / "m", **MEMORIES, progress=lambda a, b: done.append((a, b)))
    assert done[-1][0] == done[-1][1] and len(done) > 3
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.config.num_hidden_layers == 3 and model.config.window == 16
    assert torch.isfinite(model(torch.arange(40)[None]).logits).all()
    assert all(layer.self_attn.memory.alpha.abs().min() > 0 for layer in model.model.layers)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert tokenizer.decode(tokenizer.encode("Grüße")) == "Grüße"


def test_the_seed_decides_the_weights_and_layers_their_number(tmp_path: Path) -> None:
    for name, options in {"a": {}, "b": {}, "c": {"seed": 1}, "d": {"layers": 1}}.items():
        write_random("qwen3-0.6b", tmp_path / name, **MEMORIES, **options)
    a, b, c, d = (tensors(tmp_path / name) for name in "abcd")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(a[name], c[name])
    assert abs(a[name].float().std().item() - 0.02) < 0.002  # 2,048 values: the deviation's is 0.0003
    assert not any(".layers.1." in name for name in d) and "model.layers.2.mlp.up_proj.weight" in a


def test_what_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConvertError):
        write_random("qwen3-0.6b", tmp_path / "m", window=4, sinks=0, chunk=8)  # chunk > window
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").write_text("mine")
    with pytest.raises(ConvertError, match="not an empty directory"):
        write_random("qwen3-0.6b", tmp_path / "full", **MEMORIES)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    ("like", "layers", "parameters"),
    [("qwen3-0.6b", 28, 0.596e9), ("qwen3-1.7b", 28, 1.72e9), ("qwen3-4b", 36, 4.02e9)],
)
def test_the_shapes_have_the_size_that_their_names_promise(
    monkeypatch: pytest.MonkeyPatch, like: str, layers: int, parameters: float
) -> None:
    monkeypatch.undo()
    shape = SHAPES[like]
    q = shape["num_attention_heads"] * shape["head_dim"]
    kv = shape["num_key_value_heads"] * shape["head_dim"]
    layer = shape["hidden_size"] * (2 * q + 2 * kv + 3 * shape["intermediate_size"])
    total = shape["num_hidden_layers"] * layer + shape["vocab_size"] * shape["hidden_size"]
    assert shape["num_hidden_layers"] == layers and abs(total / parameters - 1) < 0.005
