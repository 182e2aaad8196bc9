"""Writes a rival's model: random weights in llama.cpp's 4-bit blocks, in the shape that a config.json tells.

    python write_gguf.py CONFIG.json OUT.gguf --vocabulary q4_0

CONFIG.json is that of an AllMem model directory (Qwen3), or one of shapes.py. Blocks are made directly,
nothing is quantised: their codes are uniform, and their scales give weights a standard deviation of about
0.02. All large matrices have 4 bits; convolutions and RWKV's low-rank matrices are left in floats, as
llama.cpp's own quantiser leaves them. Needs the package gguf.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Config = Mapping[str, Any]
Q4_0, Q6_K = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q6_K


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


class Out:
    """A GGUF file that is being written, and the sizes that all kinds of models have."""

    def __init__(self, path: Path, kind: str, config: Config, vocabulary: str) -> None:
        self.gguf = gguf.GGUFWriter(str(path), kind)
        self.hidden: int = config["hidden_size"]
        self.layers: int = config["num_hidden_layers"]
        self._rng = np.random.default_rng(0)
        self.gguf.add_block_count(self.layers)
        self.gguf.add_context_length(config.get("max_position_embeddings", 1 << 20))
        self.gguf.add_embedding_length(self.hidden)
        self.gguf.add_feed_forward_length(config.get("intermediate_size", 0))
        self.gguf.add_vocab_size(config["vocab_size"])
        self.gguf.add_tokenizer_model("none")  # token ids go straight in
        self.gguf.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
        kinds = {"q4_0": Q4_0, "q6_k": Q6_K}
        self.matrix("token_embd.weight", config["vocab_size"], self.hidden, kinds[vocabulary])

    def matrix(self, name: str, rows: int, cols: int, kind: Any = Q4_0) -> None:
        """Random weights in blocks."""
        block, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = (q4_0_blocks if kind == Q4_0 else q6_k_blocks)(self._rng, rows * cols // block)
        self.gguf.add_tensor(name, blocks.reshape(rows, cols // block * size), raw_dtype=kind)

    def floats(self, name: str, *shape: int, dtype: Any = np.float32) -> None:
        """Random weights as they are."""
        self.gguf.add_tensor(name, (0.02 * self._rng.standard_normal(shape)).astype(dtype))

    def filled(self, name: str, *shape: int, value: float = 1.0) -> None:
        """One value: a norm, a bias, a rate."""
        self.gguf.add_tensor(name, np.full(shape, value, np.float32))

    def attention(self, config: Config, layer: str, gates: int = 1) -> None:
        """Projections and their norms. `gates`: 2 if q has a gate beside it."""
        dim = config["head_dim"]
        heads, kv_heads = (dim * config[f"num_{which}_heads"] for which in ("attention", "key_value"))
        self.matrix(f"{layer}.attn_q.weight", gates * heads, self.hidden)
        self.matrix(f"{layer}.attn_k.weight", kv_heads, self.hidden)
        self.matrix(f"{layer}.attn_v.weight", kv_heads, self.hidden)
        self.matrix(f"{layer}.attn_output.weight", self.hidden, heads)
        self.filled(f"{layer}.attn_q_norm.weight", dim)
        self.filled(f"{layer}.attn_k_norm.weight", dim)

    def mlp(self, config: Config, layer: str, norm: str = "ffn_norm") -> None:
        """A gated MLP and the norm in front of it."""
        mlp = config["intermediate_size"]
        self.filled(f"{layer}.{norm}.weight", self.hidden)
        self.matrix(f"{layer}.ffn_gate.weight", mlp, self.hidden)
        self.matrix(f"{layer}.ffn_up.weight", mlp, self.hidden)
        self.matrix(f"{layer}.ffn_down.weight", self.hidden, mlp)

    def heads(self, config: Config, theta: float, kv_heads: Any = None) -> None:
        """The facts of attention. `kv_heads`: by layer, where they differ."""
        self.gguf.add_head_count(config["num_attention_heads"])
        self.gguf.add_head_count_kv(config["num_key_value_heads"] if kv_heads is None else kv_heads)
        self.gguf.add_key_length(config["head_dim"])
        self.gguf.add_value_length(config["head_dim"])
        self.gguf.add_rope_freq_base(theta)

    def close(self) -> None:
        self.gguf.write_header_to_file()
        self.gguf.write_kv_data_to_file()
        self.gguf.write_tensors_to_file()
        self.gguf.close()


def qwen3(out: Out, config: Config) -> None:
    if not config["tie_word_embeddings"]:
        raise SystemExit("Only models with a tied vocabulary are known here.")
    out.heads(config, config["rope_parameters"]["rope_theta"])
    out.gguf.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.filled("output_norm.weight", out.hidden)
    for layer in (f"blk.{i}" for i in range(out.layers)):
        out.filled(f"{layer}.attn_norm.weight", out.hidden)
        out.attention(config, layer)
        out.mlp(config, layer)


def rwkv7(out: Out, config: Config) -> None:
    out.gguf.add_head_count(0)
    out.gguf.add_layer_norm_eps(config["norm_eps"])
    out.gguf.add_wkv_head_size(config["head_dim"])
    out.gguf.add_decay_lora_rank(config["decay_low_rank_dim"])
    out.gguf.add_iclr_lora_rank(config["a_low_rank_dim"])
    out.gguf.add_value_residual_mix_lora_rank(config["v_low_rank_dim"])
    out.gguf.add_gate_lora_rank(config["gate_low_rank_dim"])
    hidden, mlp = out.hidden, config["intermediate_size"]

    def norm(name: str) -> None:
        out.filled(f"{name}.weight", hidden)
        out.filled(f"{name}.bias", hidden, value=0.0)

    norm("token_embd_norm")
    norm("output_norm")
    out.matrix("output.weight", config["vocab_size"], hidden)
    for i in range(out.layers):
        mix = f"blk.{i}.time_mix"
        norm(f"blk.{i}.attn_norm")
        norm(f"blk.{i}.attn_norm_2")
        norm(f"{mix}_ln")
        value_rank = config["v_low_rank_dim" if i else "a_low_rank_dim"]  # the first layer's is not used
        ranks = {"w": config["decay_low_rank_dim"], "a": config["a_low_rank_dim"], "v": value_rank}
        for name, rank in [*ranks.items(), ("g", config["gate_low_rank_dim"])]:
            dtype = np.float32 if name == "w" else np.float16
            out.floats(f"{mix}_{name}1.weight", rank, hidden, dtype=dtype)
            out.floats(f"{mix}_{name}2.weight", hidden, rank, dtype=dtype)
        for name in ranks:
            out.filled(f"{mix}_{name}0.weight", hidden, value=0.0)
        out.filled(f"{mix}_lerp_fused.weight", 6, 1, 1, hidden, value=0.5)
        for name, value in (("k_k", 1.0), ("k_a", 1.0), ("r_k", 0.1)):
            out.filled(f"{mix}_{name}.weight", hidden, value=value)
        for name in ("key", "value", "receptance", "output"):
            out.matrix(f"{mix}_{name}.weight", hidden, hidden)
        out.filled(f"blk.{i}.channel_mix_lerp_k.weight", 1, 1, hidden, value=0.5)
        out.matrix(f"blk.{i}.channel_mix_key.weight", mlp, hidden)
        out.matrix(f"blk.{i}.channel_mix_value.weight", hidden, mlp)


def mamba2(out: Out, config: Config) -> None:
    inner, groups, state = config["expand"] * out.hidden, config["n_groups"], config["state_size"]
    heads, channels = inner // config["head_dim"], inner + 2 * groups * state
    out.gguf.add_head_count(0)
    out.gguf.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    ssm(out, config["conv_kernel"], state, groups, heads, inner)
    out.filled("output_norm.weight", out.hidden)
    for layer in (f"blk.{i}" for i in range(out.layers)):
        out.filled(f"{layer}.attn_norm.weight", out.hidden)
        out.matrix(f"{layer}.ssm_in.weight", inner + channels + heads, out.hidden)
        out.floats(f"{layer}.ssm_conv1d.weight", channels, config["conv_kernel"])
        out.filled(f"{layer}.ssm_conv1d.bias", channels, value=0.0)
        out.filled(f"{layer}.ssm_dt.bias", heads, value=-3.0)
        out.filled(f"{layer}.ssm_a", heads, 1, value=-1.0)
        out.filled(f"{layer}.ssm_d", heads, 1)
        out.filled(f"{layer}.ssm_norm.weight", groups, inner // groups)
        out.matrix(f"{layer}.ssm_out.weight", out.hidden, inner)


def lfm2(out: Out, config: Config) -> None:
    attention = config["attention_layers"]
    by_layer = [config["num_key_value_heads"] if i in attention else 0 for i in range(out.layers)]
    out.heads(config, config["rope_theta"], by_layer)
    out.gguf.add_layer_norm_rms_eps(config["norm_eps"])
    out.gguf.add_shortconv_l_cache(config["conv_L_cache"])
    out.filled("token_embd_norm.weight", out.hidden)
    for i in range(out.layers):
        layer = f"blk.{i}"
        out.filled(f"{layer}.attn_norm.weight", out.hidden)
        if i in attention:
            out.attention(config, layer)
        else:
            out.floats(f"{layer}.shortconv.conv.weight", out.hidden, config["conv_L_cache"])
            out.matrix(f"{layer}.shortconv.in_proj.weight", 3 * out.hidden, out.hidden)
            out.matrix(f"{layer}.shortconv.out_proj.weight", out.hidden, out.hidden)
        out.mlp(config, layer)


def qwen35(out: Out, config: Config) -> None:
    attention, dim = config["attention_layers"], config["linear_head_dim"]
    heads, groups = config["linear_num_value_heads"], config["linear_num_key_heads"]
    inner, channels = heads * dim, (heads + 2 * groups) * dim
    out.heads(config, config["rope_theta"])
    out.gguf.add_rope_dimension_count(config["rotary_dim"])
    out.gguf.add_rope_dimension_sections([*config["mrope_section"], 0])
    out.gguf.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.gguf.add_full_attention_interval(attention[0] + 1)
    ssm(out, config["linear_conv_kernel_dim"], dim, groups, heads, inner)
    out.filled("output_norm.weight", out.hidden)
    for i in range(out.layers):
        layer = f"blk.{i}"
        out.filled(f"{layer}.attn_norm.weight", out.hidden)
        if i in attention:
            out.attention(config, layer, gates=2)
        else:
            out.matrix(f"{layer}.attn_qkv.weight", channels, out.hidden)
            out.matrix(f"{layer}.attn_gate.weight", inner, out.hidden)
            out.floats(f"{layer}.ssm_conv1d.weight", channels, config["linear_conv_kernel_dim"])
            out.filled(f"{layer}.ssm_dt.bias", heads, value=-3.0)
            out.filled(f"{layer}.ssm_a", heads, value=-1.0)
            out.matrix(f"{layer}.ssm_beta.weight", heads, out.hidden)
            out.matrix(f"{layer}.ssm_alpha.weight", heads, out.hidden)
            out.filled(f"{layer}.ssm_norm.weight", dim)
            out.matrix(f"{layer}.ssm_out.weight", out.hidden, inner)
        out.mlp(config, layer, "post_attention_norm")


def ssm(out: Out, kernel: int, state: int, groups: int, heads: int, inner: int) -> None:
    """The facts of a state space: Mamba-2's, and by the same names those of a gated delta net."""
    out.gguf.add_ssm_conv_kernel(kernel)
    out.gguf.add_ssm_state_size(state)
    out.gguf.add_ssm_group_count(groups)
    out.gguf.add_ssm_time_step_rank(heads)
    out.gguf.add_ssm_inner_size(inner)


# By the model type of config.json: GGUF's name, and what writes all but the vocabulary.
WRITERS: dict[str, tuple[str, Callable[[Out, Config], None]]] = {
    "allmem": ("qwen3", qwen3),  # its base
    "rwkv7": ("rwkv7", rwkv7),
    "mamba2": ("mamba2", mamba2),
    "lfm2": ("lfm2", lfm2),
    "qwen3_5_text": ("qwen35", qwen35),
}


def write(config: Config, path: Path, vocabulary: str) -> None:
    """Writes the GGUF file."""
    kind, write_layers = WRITERS[config["model_type"]]
    out = Out(path, kind, config, vocabulary)
    write_layers(out, config)
    out.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocabulary", choices=["q4_0", "q6_k"], default="q4_0")
    arguments = parser.parse_args()
    write(json.loads(arguments.config.read_text()), arguments.out, arguments.vocabulary)
