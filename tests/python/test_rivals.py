"""The comparison with models of constant memory, without the rival: files, bytes, tables."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import allmem_edge as ae
from against_llama_cpp import room, speeds_of, summary
from losses import losses_of
from rivals import check_state, crossing, tables
from same_file import rows_of
from shapes import RIVALS, Config, State, state_of
from side_allmem import AllMem
from write_gguf import write

QWEN3: Config = {
    "model_type": "allmem",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 1e6},
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "vocab_size": 512,
}


def small(config: Config) -> Config:
    """The same kind of model, one that is written in no time."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 96, "vocab_size": 512}
    few = {"attention_layers": [3]} if "attention_layers" in config else {}
    return {**config, **{key: sizes[key] for key in sizes if key in config}, **few}


@pytest.mark.parametrize("name", [*RIVALS, "qwen3"])
def test_a_written_model_has_its_shape_and_weights_of_the_usual_size(name: str, tmp_path: Path) -> None:
    config = QWEN3 if name == "qwen3" else small(RIVALS[name].config)
    path = tmp_path / "model.gguf"
    write(config, path, "q4_0")
    reader = gguf.GGUFReader(path)
    architecture = reader.fields["general.architecture"].contents()
    assert reader.fields[f"{architecture}.block_count"].contents() == config["num_hidden_layers"]
    assert reader.fields[f"{architecture}.embedding_length"].contents() == 64
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert {name.split(".")[1] for name in tensors if name.startswith("blk.")} == {
        str(layer) for layer in range(config["num_hidden_layers"])
    }
    assert list(tensors["token_embd.weight"].shape) == [64, 512]
    for tensor in tensors.values():
        if tensor.tensor_type == gguf.GGMLQuantizationType.Q4_0:
            weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert weights.std() == pytest.approx(0.02, rel=0.2), tensor.name
        else:
            assert np.isfinite(tensor.data).all(), tensor.name
    # What is not in 4 bits is what llama.cpp's quantiser leaves as it is.
    floats = {name.split(".", 2)[-1] for name, tensor in tensors.items() if len(tensor.shape) > 1}
    floats -= {
        name.split(".", 2)[-1]
        for name, tensor in tensors.items()
        if tensor.tensor_type == gguf.GGMLQuantizationType.Q4_0
    }
    assert all("conv" in name or "time_mix_" in name or "lerp" in name or "ssm_" in name for name in floats)


def test_a_vocabulary_may_have_6_bits(tmp_path: Path) -> None:
    config = {**QWEN3, "hidden_size": 256}
    write(config, tmp_path / "model.gguf", "q6_k")
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    kinds = {name: tensor.tensor_type.name for name, tensor in tensors.items()}
    assert kinds["token_embd.weight"] == "Q6_K" and kinds["blk.0.attn_q.weight"] == "Q4_0"


def test_the_bytes_of_a_state_are_those_of_its_parts() -> None:
    states = {name: state_of(rival.config) for name, rival in RIVALS.items()}
    # 16 matrices of 64 by 64 and two inputs a layer.
    assert states["rwkv7-0.4b"] == State(24 * 4 * (16 * 64 * 64 + 2 * 1024), 0)
    # 32 heads of 64 by 128, and 3 columns of a convolution over 2,048 + 2 * 128 channels.
    assert states["mamba2-370m"] == State(48 * 4 * (32 * 64 * 128 + 3 * 2304), 0)
    # 10 convolutions that look back by 2; 6 layers with keys and values of 8 heads of 64.
    assert states["lfm2-350m"] == State(10 * 4 * 2 * 1024, 6 * 2 * 2 * 8 * 64)
    # 18 layers of 16 heads of 128 by 128 and 3 columns of 3 * 2,048; 6 layers of 2 heads of 256.
    assert states["qwen3.5-0.8b"] == State(18 * 4 * (16 * 128 * 128 + 3 * 6144), 6 * 2 * 2 * 2 * 256)
    assert state_of(QWEN3) == State(0, 2 * 2 * 2 * 2 * 32)
    with pytest.raises(ValueError, match="'gpt2' is not known"):
        state_of({**QWEN3, "model_type": "gpt2"})


def test_the_crossing_is_the_first_context_whose_state_is_larger() -> None:
    state = State(100, 10)
    tokens = state.tokens(145)
    assert tokens == 5 and state.bytes(tokens) > 145 >= state.bytes(tokens - 1)
    assert state.tokens(100) == 1 and state.tokens(99) == 0 and State(100, 0).tokens(100) is None
    assert crossing(state, 145) == "from 5 tokens on"
    assert crossing(state, 99) == "always"
    assert crossing(State(100, 0), 250) == "never: 2.5 times smaller"


def test_a_state_that_the_shape_does_not_explain_is_refused() -> None:
    check_state("x", State(10_000_000, 1000), 1000, 11_050_000)
    with pytest.raises(SystemExit, match="x: the state of 1,000 tokens has 12,000,000 bytes, not 11,000,000"):
        check_state("x", State(10_000_000, 1000), 1000, 12_000_000)


def test_a_summary_has_median_and_quartiles() -> None:
    found = summary([4.0, 1.0, 3.0, 2.0, 5.0])
    assert found["median"] == 3 and found["quartiles"] == [2, 4]
    assert summary([7.0])["quartiles"] == [7, 7]
    assert room(0) == 768 and room(8192) == 8960


def test_tables_take_the_fastest_setting_and_say_where_ours_is_larger() -> None:
    rival: dict[str, Any] = {
        "ours": False,
        "load": {"file_bytes": 300e6, "version": "1.2"},
        "source": "a file",
        "shape": {"num_hidden_layers": 24, "hidden_size": 1024, "vocab_size": 65_536},
        "state_bytes": 0,
    }
    results = {
        ("ours", 0): [{"read": 100.0, "write": 10.0}],
        ("grows, f16", 0): [{"read": 90.0, "write": value} for value in (9.0, 8.0, 7.0)],
        ("grows, f16 flash", 0): [{"read": 80.0, "write": value} for value in (11.0, 12.0, 13.0)],
        ("constant, f16", 0): [{"read": 50.0, "write": 20.0}],
    }
    models = {"ours": "ours", "grows, f16": "grows", "grows, f16 flash": "grows", "constant, f16": "constant"}
    text = tables(
        {
            "machine": {"date": "2026-01-01", "cpu": "a processor", "cores": 2},
            "arguments": {"depths": [0], "threads": 2, "cores": "0,1", "repeat": 3},
            "models": {
                "ours": {
                    "ours": True,
                    "load": {"file_bytes": 400e6},
                    "state_bytes": 120_000_000,
                },
                "grows": rival | {"state": {"fixed": 20_000_000, "per_token": 10_000}},
                "constant": rival | {"state": {"fixed": 6_000_000, "per_token": 0}},
            },
            "speeds": [row | {"model": models[row["side"]]} for row in speeds_of(results)],
        }
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["llama.cpp, grows", "300.0 MB", "90.0 (90.0 to 90.0)", "12.0 (11.5 to 12.5)"] in rows
    assert [
        "llama.cpp, grows",
        "20.0 MB",
        "101.9 MB",
        "347.7 MB",
        "1.33 GB",
        "from 10,001 tokens on",
    ] in rows
    assert ["llama.cpp, constant", *["6.0 MB"] * 4, "never: 20.0 times smaller"] in rows
    assert ["**allmem-edge, ours**", *["120.0 MB"] * 4, ""] in rows
    assert ["grows", "24", "1,024", "20.0 MB and 10,000 bytes a token", "65,536", "a file"] in rows
    assert "llama-cpp-python 1.2" in text and "median (quartiles) of 3" in text


def test_a_loss_is_the_logarithm_of_a_share() -> None:
    logits = np.array([[0.0, math.log(3)], [1000.0, 1000.0]], np.float32)
    assert losses_of(logits, [1, 0]) == pytest.approx([math.log(4 / 3), math.log(2)])


def test_our_side_expects_tokens_as_a_session_does(tiny_dir: Path) -> None:
    options = {"model": tiny_dir, "threads": 1, "window": 512, "memory": "off"}
    side = AllMem(argparse.Namespace(**options))
    side.load()
    ids = [i * 7 % side._model.vocab_size for i in range(300)]
    session = ae.Model.load(tiny_dir, window=512, memory="off").session(1)
    logits = session.forward(ids)
    expected = [
        -math.log(np.exp(row - row.max())[i] / np.exp(row - row.max()).sum())
        for row, i in zip(logits[:-1].astype(np.float64), ids[1:], strict=True)
    ]
    found = side.losses(ids)["nats"]
    assert found == pytest.approx(expected, rel=1e-6)
    assert side.losses(ids)["nats"] == found  # from an empty context again


def test_a_side_is_compared_with_the_first() -> None:
    rival = np.full(4, math.log(8.0))
    rows = rows_of([("llama.cpp", "Q4_1", rival), ("ours", "int8", rival + np.array([0.1, -0.1] * 2))])
    assert rows[0] == ("llama.cpp", "Q4_1", "8.000", "", "", "")
    assert rows[1] == ("ours", "int8", "8.000", "+0.00%", "+0.0000", "0.1000")
