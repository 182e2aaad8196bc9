"""Writes the rival's model: the shape of one of ours, random weights in llama.cpp's 4-bit blocks.

    python write_gguf.py CONFIG.json OUT.gguf --vocabulary q4_0

CONFIG.json is that of an AllMem model directory. Blocks are made directly, nothing is quantised: their codes
are uniform, and their scales give weights a standard deviation of about 0.02. Needs the package gguf.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Q4_0, Q6_K, F32 = (gguf.GGMLQuantizationType[name] for name in ("Q4_0", "Q6_K", "F32"))


def q4_0_blocks(rng: np.random.Generator, count: int) -> Bytes:
    """[count, 18]: a float16 scale, then 32 codes of 4 bits."""
    blocks = rng.integers(0, 256, (count, 18), np.uint8)
    blocks[:, :2] = np.frombuffer(np.float16(0.0043).tobytes(), np.uint8)
    return blocks


def q6_k_blocks(rng: np.random.Generator, count: int) -> Bytes:
    """[count, 210]: 256 codes of 6 bits, 16 scales of 8 bits, a float16 scale of the scales."""
    blocks = rng.integers(0, 256, (count, 210), np.uint8)
    blocks[:, 192:208] = rng.integers(32, 96, (count, 16), np.uint8)
    blocks[:, 208:] = np.frombuffer(np.float16(0.02 / 18.5 / 64).tobytes(), np.uint8)
    return blocks


def write(config: dict[str, Any], out: Path, vocabulary: str) -> None:
    """Writes the GGUF file."""
    rng = np.random.default_rng(0)
    hidden, layers, mlp = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    heads, kv_heads, dim = (
        config["num_attention_heads"],
        config["num_key_value_heads"],
        config["head_dim"],
    )
    if not config["tie_word_embeddings"]:
        raise SystemExit("Only models with a tied vocabulary are known here.")
    writer = gguf.GGUFWriter(str(out), "qwen3")
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(mlp)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")  # token ids go straight in
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)

    def norm(name: str, size: int) -> None:
        writer.add_tensor(name, np.ones(size, np.float32))

    def matrix(name: str, rows: int, cols: int, kind: Any = Q4_0) -> None:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = (q4_0_blocks if kind == Q4_0 else q6_k_blocks)(rng, rows * cols // block)
        writer.add_tensor(name, blocks.reshape(rows, cols // block * size), raw_dtype=kind)

    matrix("token_embd.weight", config["vocab_size"], hidden, {"q4_0": Q4_0, "q6_k": Q6_K}[vocabulary])
    norm("output_norm.weight", hidden)
    for i in range(layers):
        norm(f"blk.{i}.attn_norm.weight", hidden)
        matrix(f"blk.{i}.attn_q.weight", heads * dim, hidden)
        matrix(f"blk.{i}.attn_k.weight", kv_heads * dim, hidden)
        matrix(f"blk.{i}.attn_v.weight", kv_heads * dim, hidden)
        norm(f"blk.{i}.attn_q_norm.weight", dim)
        norm(f"blk.{i}.attn_k_norm.weight", dim)
        matrix(f"blk.{i}.attn_output.weight", hidden, heads * dim)
        norm(f"blk.{i}.ffn_norm.weight", hidden)
        matrix(f"blk.{i}.ffn_gate.weight", mlp, hidden)
        matrix(f"blk.{i}.ffn_up.weight", mlp, hidden)
        matrix(f"blk.{i}.ffn_down.weight", hidden, mlp)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocabulary", choices=["q4_0", "q6_k"], default="q4_0")
    arguments = parser.parse_args()
    write(json.loads(arguments.config.read_text()), arguments.out, arguments.vocabulary)
