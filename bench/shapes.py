"""Shapes of rivals whose state does not grow with the context, or only in some layers, and its bytes.

Each is the published config.json of a model, shortened to what its cost depends on. Where the file leaves a
size to the code that reads it, that code's default is written out. Only the standard library is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Config = Mapping[str, Any]


class Rival(NamedTuple):
    """A shape and where it is from."""

    source: str
    config: Config


class State(NamedTuple):
    """Bytes that llama.cpp keeps of a context: recurrent states in float32, keys and values in float16."""

    fixed: int
    per_token: int

    def bytes(self, tokens: int) -> int:
        return self.fixed + self.per_token * tokens

    def tokens(self, size: int) -> int | None:
        """From how many tokens on it is larger than `size` bytes; None if it never is."""
        if self.fixed > size:
            return 0
        return (size - self.fixed) // self.per_token + 1 if self.per_token else None


def _rwkv7(layers: int, hidden: int, vocabulary: int) -> Config:
    return {
        "model_type": "rwkv7",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "intermediate_size": 4 * hidden,
        "head_dim": 64,
        "decay_low_rank_dim": 64,
        "a_low_rank_dim": 64,
        "v_low_rank_dim": 32,
        "gate_low_rank_dim": 128,
        "norm_eps": 1e-5,
        "vocab_size": vocabulary,
    }


def _mamba2(layers: int, hidden: int) -> Config:
    return {
        "model_type": "mamba2",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "expand": 2,
        "head_dim": 64,
        "state_size": 128,
        "n_groups": 1,
        "conv_kernel": 4,
        "layer_norm_epsilon": 1e-5,
        "vocab_size": 50_288,  # 50,277, padded to a multiple of 16
    }


RIVALS = {
    "rwkv7-168m": Rival("fla-hub/rwkv7-168M-pile, config.json", _rwkv7(12, 768, 50_304)),
    "mamba2-130m": Rival("state-spaces/mamba2-130m, config.json; defaults of mamba_ssm", _mamba2(24, 768)),
    "rwkv7-0.4b": Rival("fla-hub/rwkv7-0.4B-world, config.json", _rwkv7(24, 1024, 65_536)),
    "mamba2-370m": Rival("state-spaces/mamba2-370m, config.json; defaults of mamba_ssm", _mamba2(48, 1024)),
    "lfm2-350m": Rival(
        "LiquidAI/LFM2-350M, config.json",
        {
            "model_type": "lfm2",
            "hidden_size": 1024,
            "num_hidden_layers": 16,
            "attention_layers": [2, 5, 8, 10, 12, 14],
            "intermediate_size": 4608,  # 2/3 of 6,656, rounded up to a multiple of 256
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "conv_L_cache": 3,
            "norm_eps": 1e-5,
            "rope_theta": 1e6,
            "vocab_size": 65_536,
        },
    ),
    "qwen3.5-0.8b": Rival(
        "Qwen/Qwen3.5-0.8B, its text model, by config.json of a model made from it and a page on its layers",
        {
            "model_type": "qwen3_5_text",
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "attention_layers": [3, 7, 11, 15, 19, 23],
            "intermediate_size": 3584,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 16,
            "linear_head_dim": 128,  # of keys and of values
            "linear_conv_kernel_dim": 4,
            "rotary_dim": 64,  # a quarter of a head
            "mrope_section": [11, 11, 10],
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e7,
            "vocab_size": 248_320,
        },
    ),
}


def state_of(config: Config) -> State:
    """What a context of such a model takes. Raises ValueError for a kind that is not known."""
    kind, hidden, layers = config["model_type"], config["hidden_size"], config["num_hidden_layers"]
    if kind == "rwkv7":  # a matrix per head, and the last input of both mixers
        return State(4 * layers * hidden * (config["head_dim"] + 2), 0)
    if kind == "mamba2":  # a matrix per head, and the last inputs of a convolution
        inner = config["expand"] * hidden
        channels = inner + 2 * config["n_groups"] * config["state_size"]
        return State(4 * layers * (inner * config["state_size"] + (config["conv_kernel"] - 1) * channels), 0)
    if kind not in ("allmem", "lfm2", "qwen3_5_text"):
        raise ValueError(f"The state of {kind!r} is not known here.")
    attention = len(config.get("attention_layers", range(layers)))
    per_token = attention * 2 * 2 * config["num_key_value_heads"] * config["head_dim"]
    if kind == "allmem":  # of its base: keys and values of all layers
        return State(0, per_token)
    if kind == "lfm2":  # the last inputs of a convolution
        return State(4 * (layers - attention) * hidden * (config["conv_L_cache"] - 1), per_token)
    dim = config["linear_head_dim"]  # as Mamba-2, by other names
    inner = config["linear_num_value_heads"] * dim
    channels = inner + 2 * config["linear_num_key_heads"] * dim
    recurrent = inner * dim + (config["linear_conv_kernel_dim"] - 1) * channels
    return State(4 * (layers - attention) * recurrent, per_token)
