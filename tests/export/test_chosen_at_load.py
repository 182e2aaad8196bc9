"""Window, sinks and chunk chosen at load, against models exported with them and against transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_convert import random_qwen3

import allmem_edge as ae
import tiny
from allmem_export.configuration import AllMemConfig
from allmem_export.convert import convert
from allmem_export.export import export
from allmem_export.modeling import AllMemForCausalLM

IDS = np.random.default_rng(1).integers(0, 200, 600)


def read(model: ae.Model) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Logits of IDS, read in calls of random lengths."""
    session, rng, begin, logits = model.session(1), np.random.default_rng(5), 0, []
    while begin < len(IDS):
        count = int(rng.integers(1, 70))
        logits.append(session.forward(IDS[begin : begin + count]))
        begin += count
    return np.concatenate(logits)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "int8"])
@pytest.mark.parametrize("name", ["base", "no_sinks_untied_dynamic", "one_kv_head_yarn"])
def test_a_window_at_load_is_that_of_a_model_exported_with_it(
    name: str, mode: str, exported: Callable[..., Any], tmp_path: Path
) -> None:
    _, model, directory = exported(name, mode)
    chosen = {"window": 40, "sinks": 6, "chunk": 12}
    other = AllMemForCausalLM(AllMemConfig(**{**tiny.BASE, **tiny.CONFIGS[name], **chosen})).eval()
    other.load_state_dict(model.state_dict())
    other.save_pretrained(tmp_path / "checkpoint")
    tiny.make_tokenizer().save_pretrained(tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "model", quantize=mode)  # type: ignore[arg-type]
    np.testing.assert_array_equal(
        read(ae.Model.load(directory, **chosen)), read(ae.Model.load(tmp_path / "model"))
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "no_sinks_untied_dynamic", "linear"])
def test_a_memory_that_is_off_is_one_whose_gate_is_closed(
    name: str, exported: Callable[..., Any], tmp_path: Path
) -> None:
    _, model, directory = exported(name, "int8")
    closed = tiny.make_model(name)
    closed.load_state_dict(model.state_dict())
    with torch.no_grad():
        for layer in closed.model.layers:
            layer.self_attn.memory.alpha.zero_()
    closed.save_pretrained(tmp_path / "checkpoint")
    tiny.make_tokenizer().save_pretrained(tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "model", quantize="int8")
    off = ae.Model.load(directory, memory="off")
    np.testing.assert_array_equal(read(off), read(ae.Model.load(tmp_path / "model")))
    on = ae.Model.load(directory)
    assert not np.array_equal(read(on), read(off)) and any(
        ".memory." in state.name for state in on.engine.states
    )
    assert not any(".memory." in state.name for state in off.engine.states)


@pytest.mark.slow
def test_a_window_without_sinks_is_transformers_sliding_window(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 40, "max_window_layers": 0}
    qwen3 = random_qwen3(vocab_size=tiny.VOCAB_SIZE, max_position_embeddings=1024, **fields)
    qwen3.save_pretrained(tmp_path / "qwen3")
    convert(tmp_path / "qwen3", tmp_path / "checkpoint", window=16, sinks=2, chunk=16)
    tiny.make_tokenizer().save_pretrained(tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "model")
    with torch.no_grad():
        theirs = qwen3(torch.from_numpy(IDS)[None]).logits[0].numpy()
    ours = read(ae.Model.load(tmp_path / "model", window=40, sinks=0, memory="off"))
    assert np.abs(ours - theirs).max() <= tiny.rounding(theirs)
    assert (
        np.abs(read(ae.Model.load(tmp_path / "model", window=40, sinks=2, memory="off")) - theirs).max() > 0.1
    )


@pytest.mark.slow
def test_a_window_as_long_as_the_text_is_transformers_full_attention(tmp_path: Path) -> None:
    qwen3 = random_qwen3(vocab_size=tiny.VOCAB_SIZE, max_position_embeddings=1024)
    qwen3.save_pretrained(tmp_path / "qwen3")
    convert(tmp_path / "qwen3", tmp_path / "checkpoint", window=16, sinks=2, chunk=16)
    tiny.make_tokenizer().save_pretrained(tmp_path / "checkpoint")
    export(tmp_path / "checkpoint", tmp_path / "model")
    with torch.no_grad():
        theirs = qwen3(torch.from_numpy(IDS)[None]).logits[0].numpy()
    ours = read(ae.Model.load(tmp_path / "model", window=len(IDS), memory="off"))
    assert np.abs(ours - theirs).max() <= tiny.rounding(theirs)
    assert np.abs(read(ae.Model.load(tmp_path / "model")) - theirs).max() > 0.1
