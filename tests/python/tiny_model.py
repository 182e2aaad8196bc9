"""Writes a tiny random AllMem model directory: one layer, a byte tokenizer, the graph of docs/format.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

HEADS, KV_HEADS, DIM, HIDDEN = 2, 1, 8, 16
WINDOW, SINKS, CHUNK = 8, 2, 4
WIDTH = HEADS * DIM
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB = 256 + len(SPECIAL)
CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

Array = NDArray[np.float32]


def rounding(logits: NDArray[np.floating[Any]]) -> float:
    """How far two float32 runs that sum in different orders may be apart.

    Each is off by a rounding of the largest value, 2⁻²⁴ of it, in each of about 20 operators in a row.
    """
    return 2 * 20 * float(np.abs(logits).max()) * 2.0**-24


def write_tiny_model(directory: Path, *, seed: int = 0, functions: bool = False) -> Path:
    """A complete model directory. functions: with the operators' bodies, for stock onnxruntime."""
    directory.mkdir(parents=True, exist_ok=True)
    write_graph(directory, seed=seed, functions=functions)
    write_json(directory / "config.json", {"model_type": "allmem", "vocab_size": VOCAB})
    write_json(directory / "generation_config.json", {"eos_token_id": [256, 258], "temperature": 0.9})
    write_json(
        directory / "tokenizer_config.json", {"eos_token": {"content": "<|im_end|>"}, "bos_token": None}
    )
    (directory / "chat_template.jinja").write_text(CHATML, encoding="utf-8")
    write_json(directory / "tokenizer.json", tokenizer_json())
    return directory


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def byte_characters() -> list[str]:
    """What stands for each byte in byte-level BPE: printable ones for themselves, others from 256 on."""
    own = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in own else chr(next(others)) for byte in range(256)]


def tokenizer_json() -> dict[str, object]:
    """A tokenizer without merges: a token is a byte, or one of SPECIAL."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": 256 + i, "content": text, **flags} for i, text in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: i for i, character in enumerate(byte_characters())},
            "merges": [],
        },
    }


def fast_weights(rng: np.random.Generator) -> dict[str, Array]:
    """W_0 by the names of the format."""
    shapes = {"gate": (KV_HEADS, HIDDEN, DIM), "up": (KV_HEADS, HIDDEN, DIM), "down": (KV_HEADS, DIM, HIDDEN)}
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def build_graph(seed: int) -> onnx.ModelProto:
    """The graph with all weights inside it."""
    rng = np.random.default_rng(seed)
    weights: dict[str, Array] = {
        "embed": rng.normal(0, 1, (VOCAB, WIDTH)).astype(np.float32),
        "norm": np.ones(WIDTH, np.float32),
    }
    for name, rows in {"q": WIDTH, "k": DIM, "v": DIM, "eta": KV_HEADS, "beta": KV_HEADS, "o": WIDTH}.items():
        weights[name] = rng.normal(0, 0.5 * WIDTH**-0.5, (rows, WIDTH)).astype(np.float32)
    weights["slow"] = np.full(KV_HEADS, -4, np.float32)  # learns slowly enough to be no chaotic system
    start = fast_weights(rng)
    for name, matrix in start.items():
        weights[f"layers.0.memory.weight.{name}.state"] = matrix
        weights[f"norm_{name}"] = np.linalg.norm(matrix, axis=-1).astype(np.float32)

    attention = ["layers.0.attention.keys.state", "layers.0.attention.values.state"]
    memory = [
        f"layers.0.memory.{kind}.{n}.state" for kind in ("weight", "momentum", "gradient") for n in start
    ]
    memory.append("layers.0.memory.beta_sum.state")
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(attention, (KV_HEADS, SINKS + WINDOW, DIM))
    shapes |= {name: start[name.split(".")[4]].shape for name in memory[:-1]} | {memory[-1]: (KV_HEADS,)}

    shared: dict[str, Any] = {"num_heads": HEADS, "num_kv_heads": KV_HEADS, "head_dim": DIM}
    inv_freq = [10000.0 ** (-2 * i / DIM) for i in range(DIM // 2)]
    norms = ["norm_gate", "norm_up", "norm_down"]
    nodes = [
        helper.make_node("Gather", ["embed", "input_ids"], ["x"]),
        helper.make_node("RMSNormalization", ["x", "norm"], ["h"], axis=-1, epsilon=1e-6),
        *(
            helper.make_node("Gemm", ["h", name], [f"{name}_out"], transB=1)
            for name in ("q", "k", "v", "beta")
        ),
        helper.make_node("Gemm", ["h", "eta", "slow"], ["eta_out"], transB=1),
        helper.make_node("Softplus", ["eta_out"], ["rate"]),
        helper.make_node("Sigmoid", ["beta_out"], ["decay"]),
        helper.make_node(
            "SlidingWindowAttention",
            ["q_out", "k_out", "v_out", *attention, "position"],
            ["attended", *(f"{name}.out" for name in attention)],
            domain="allmem",
            window=WINDOW,
            sinks=SINKS,
            rope_inv_freq=inv_freq,
            rope_scale=1.0,
            **shared,
        ),
        helper.make_node(
            "TestTimeMemory",
            ["q_out", "k_out", "v_out", "rate", "decay", *norms, *memory, "position"],
            ["remembered", *(f"{name}.out" for name in memory)],
            domain="allmem",
            hidden=HIDDEN,
            chunk=CHUNK,
            **shared,
        ),
        helper.make_node("Add", ["attended", "remembered"], ["mixed"]),
        helper.make_node("Gemm", ["mixed", "o"], ["projected"], transB=1),
        helper.make_node("Add", ["x", "projected"], ["y"]),
        helper.make_node("Gemm", ["y", "embed"], ["logits"], transB=1),
    ]
    state = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    state_out = [
        helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["T"]),
            helper.make_tensor_value_info("position", TensorProto.INT64, []),
            *state,
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["T", VOCAB]), *state_out],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [
        helper.make_opsetid("", 24),
        helper.make_opsetid("allmem", 1),
        helper.make_opsetid("com.microsoft", 1),
    ]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    facts = {
        "format": 1,
        "model_type": "allmem",
        "window": WINDOW,
        "sinks": SINKS,
        "chunk": CHUNK,
        "layers": 1,
        "vocab_size": VOCAB,
        "quantization": "none",
        "exporter": "tests",
    }
    helper.set_model_props(model, {f"allmem.{key}": str(value) for key, value in facts.items()})
    return model


def write_graph(directory: Path, *, seed: int, functions: bool) -> None:
    """model.onnx and model.onnx.data, each tensor at a multiple of 64 bytes."""
    model = build_graph(seed)
    if functions:
        from allmem_export.functions import function_protos

        model.functions.extend(function_protos())
    data = bytearray()
    for tensor in model.graph.initializer:
        data += bytes(-len(data) % 64)
        raw = tensor.raw_data
        onnx.external_data_helper.set_external_data(
            tensor, "model.onnx.data", offset=len(data), length=len(raw)
        )
        tensor.ClearField("raw_data")
        data += raw
    (directory / "model.onnx.data").write_bytes(data)
    (directory / "model.onnx").write_bytes(model.SerializeToString())
