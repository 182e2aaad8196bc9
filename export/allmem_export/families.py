"""The base models that AllMem can be grafted on, and what differs between them.

Everything that has to know of a base model (the mixer, the teacher, the conversion) asks its Family. The
runtime never learns of it: the graph comes from the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)


def _never(_: Any) -> bool:
    return False


def _always(_: Any) -> bool:
    return True


def _attention_bias(config: Any) -> bool:
    return bool(config.attention_bias)


@dataclass(frozen=True)
class Family:
    """One family: decoder layers of RMSNorm, grouped-query attention with RoPE and a SwiGLU MLP.

    qk_norm: q and k are RMS-normalised per head before RoPE. The biases are functions of the config.
    """

    config_class: type[Any]
    model_class: type[Any]
    qk_norm: bool = False
    qkv_bias: Callable[[Any], bool] = _never
    o_bias: Callable[[Any], bool] = _never
    mlp_bias: Callable[[Any], bool] = _never


FAMILIES = {
    "qwen3": Family(Qwen3Config, Qwen3ForCausalLM, True, _attention_bias, _attention_bias),
    "qwen2": Family(Qwen2Config, Qwen2ForCausalLM, qkv_bias=_always),
    "llama": Family(
        LlamaConfig,
        LlamaForCausalLM,
        qkv_bias=_attention_bias,
        o_bias=_attention_bias,
        mlp_bias=lambda config: bool(config.mlp_bias),
    ),
    "mistral": Family(MistralConfig, MistralForCausalLM),
}


def family_of(model_type: str) -> Family:
    """The family of a transformers `model_type`. Raises ValueError with a sentence."""
    family = FAMILIES.get(model_type)
    if family is None:
        raise ValueError(
            f"base models of type {model_type!r} are not supported; supported: {', '.join(FAMILIES)}"
        )
    return family
