"""Tiny random base models of every family, as a checkpoint directory or a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray

import tiny
from allmem_export.families import family_of

SHAPE: dict[str, Any] = {
    "vocab_size": tiny.VOCAB_SIZE,
    "hidden_size": 96,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_KINDS = gguf.GGMLQuantizationType


def random_base(model_type: str, seed: int = 0, **fields: Any) -> Any:
    """A transformers model none of whose parameters sits at a value (0 or 1) that would hide a mistake."""
    family = family_of(model_type)
    shape = SHAPE | fields
    if model_type not in ("qwen2",):
        shape.setdefault("head_dim", 16)
    torch.manual_seed(seed)
    model = family.model_class(family.config_class(**shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def save_base(model: Any, folder: Path, **options: Any) -> Path:
    """Writes a checkpoint directory with a tokenizer."""
    model.save_pretrained(folder, **options)
    tiny.make_tokenizer().save_pretrained(folder)
    return folder


def save_gguf(model: Any, path: Path, kinds: Callable[[str], str] = lambda name: "F32") -> Path:
    """Writes a GGUF file as llama.cpp's converter does. kinds: ggml's type of a matrix, by GGUF's name."""
    config = model.config
    own = {"mistral": "llama"}.get(config.model_type, config.model_type)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer = gguf.GGUFWriter(str(path), own)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "llama3":
        plain = rope["rope_theta"] ** -(np.arange(0, dim, 2) / dim)
        scaled = model.model.rotary_emb.inv_freq.numpy()
        writer.add_tensor("rope_freqs.weight", (plain / scaled).astype(np.float32))
    _add_tokenizer(writer)
    names = gguf.get_tensor_name_map(
        {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}[own],
        config.num_hidden_layers,
    )
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem, _, kind_of_tensor = name.rpartition(".")
        gguf_name = f"{names.get_name(stem)}.{kind_of_tensor}"
        values = tensor.float().numpy()
        if own == "llama" and stem.endswith(("q_proj", "k_proj")):
            count = heads if stem.endswith("q_proj") else kv_heads
            values = _neighbours(values, count)
        kind = _KINDS[kinds(gguf_name) if values.ndim == 2 else "F32"]
        data = np.ascontiguousarray(values)
        if kind != _KINDS.F32:
            data = gguf.quants.quantize(data, kind)
        writer.add_tensor(gguf_name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """tiny's tokenizer: GPT-2's way of splitting."""
    tokenizer = tiny.make_tokenizer()
    backend = tokenizer.backend_tokenizer
    vocab = backend.get_vocab()
    tokens = sorted(vocab, key=vocab.__getitem__)

    merges = json.loads(backend.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in tiny.SPECIAL else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(tiny.CHAT_TEMPLATE)


def _neighbours(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rotary pairs (i, i + D/2) ▶ neighbours, as llama.cpp wants Llama's q and k."""
    halves = values.reshape(heads, 2, -1, *values.shape[1:])
    return halves.swapaxes(1, 2).reshape(values.shape)
