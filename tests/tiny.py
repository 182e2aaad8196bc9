"""Tiny AllMem checkpoints with random weights and a real tokenizer, for tests of what follows training."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from allmem_export.configuration import AllMemConfig
from allmem_export.modeling import AllMemForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCAB_SIZE = 384
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# What the configs below leave unsaid.
BASE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "window": 24,
    "sinks": 3,
    "chunk": 16,
    "memory_ratio": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "base": {},
    "no_sinks_untied_dynamic": {
        "sinks": 0,
        "window": 17,
        "chunk": 5,
        "memory_ratio": 1,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
        "gate": "dynamic",
        "num_hidden_layers": 1,
    },
    "one_kv_head_yarn": {
        "sinks": 8,
        "window": 64,
        "chunk": 64,
        "memory_ratio": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "hidden_size": 48,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 1024,
        },
    },
    "biased_llama3": {
        "sinks": 30,
        "window": 20,
        "chunk": 7,
        "head_dim": 32,
        "num_hidden_layers": 1,
        "attention_bias": True,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 10000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 256,
        },
    },
    "write_every_token_linear": {
        "sinks": 1,
        "window": 1,
        "chunk": 1,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 1e6, "factor": 2.0},
    },
    "llama_some_memories_maps": {
        "base_type": "llama",
        "mlp_bias": True,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "intermediate_size": 128,
        "memory_layers": [0, 2],
        "memory_maps": True,
        "memory_norm": False,
        "memory_init_std": 1.0,
        "eta_init": 0.003,
        "gate": "dynamic",
    },
    "qwen2_maps": {
        "base_type": "qwen2",
        "num_hidden_layers": 1,
        "memory_maps": True,
    },
    "linear": {"memory": "linear", "beta_init": 0.99},
    "linear_some_memories_maps_dynamic": {
        "memory": "linear",
        "base_type": "llama",
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "intermediate_size": 128,
        "memory_layers": [0, 2],
        "memory_maps": True,
        "memory_norm": False,
        "gate": "dynamic",
    },
    "linear_without_delta": {
        "memory": "linear",
        "memory_delta": False,
        "num_attention_heads": 6,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "hidden_size": 48,
        "beta_init": 0.9,
    },
    "linear_without_delta_maps": {
        "memory": "linear",
        "memory_delta": False,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "memory_maps": True,
        "gate": "dynamic",
        "eta_init": 0.5,
    },
}


QUICK = {"base", "llama_some_memories_maps", "linear"}


def names(*chosen: str) -> list[Any]:
    """The chosen names of CONFIGS, or all, as parameters; each takes an export, so most are slow."""
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in chosen or CONFIGS]


def rounding(logits: torch.Tensor | NDArray[np.floating[Any]], layers: int = 3) -> float:
    """How far two float32 runs of a transformer without a memory that sum in different orders may be apart.

    Each is off by a rounding of the largest value, 2⁻²⁴ of it, in each of the operators in a row: 14 in a
    layer (norm, projection, rotation, scores, softmax, values, projection, sum; norm, projection, sigmoid,
    product, projection, sum), the last norm and the logits. A sum of many terms is off by no more where they
    have either sign: its errors add up as the terms do.
    """
    return 2 * (14 * layers + 2) * float(abs(logits).max()) * 2.0**-24


def make_model(name: str = "base", seed: int = 0) -> AllMemForCausalLM:
    """A model of CONFIGS whose every parameter is random, so that nothing hides behind a zero or a one."""
    torch.manual_seed(seed)
    model = AllMemForCausalLM(AllMemConfig(**{**BASE, **CONFIGS[name]})).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            std = 0.5 * parameter.shape[-1] ** -0.5 if parameter_name.endswith("proj.weight") else 0.2
            parameter.add_(torch.randn_like(parameter) * std)
        for layer in model.model.layers:
            if layer.self_attn.memory is not None:
                layer.self_attn.memory.alpha.add_(1.0)
    return model


def make_tokenizer(seed: int = 0) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on made-up words."""
    draw = random.Random(seed)
    syllables = [a + b for a in "bdfklmnprst" for b in "aeiou"]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(300)]
    texts = [" ".join(draw.choices(words, k=12)) for _ in range(200)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
    )


def save_checkpoint(path: Path, name: str = "base", seed: int = 0) -> AllMemForCausalLM:
    """Writes a checkpoint directory, tokenizer included, and returns its model."""
    model = make_model(name, seed)
    model.save_pretrained(path)
    make_tokenizer(seed).save_pretrained(path)
    return model
