"""Checkpoints of the shapes of real models with random weights, to measure speed and memory without them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from .configuration import AllMemConfig
from .convert import (
    Progress,
    appearing,
    base_shapes,
    check_out,
    memory_tensors,
    write_parts,
)
from .sources import ConvertError, one_line

_QWEN3 = {
    "vocab_size": 151_936,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": True,
}
_SMOLLM2_MEMORIES = (3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 17, 18, 20, 21, 22, 23, 24, 26, 28)
SHAPES: dict[str, dict[str, Any]] = {  # from the config.json of the models of these names
    "qwen3-0.6b": {
        **_QWEN3,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
    },
    "qwen3-1.7b": {
        **_QWEN3,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
    },
    "qwen3-4b": {
        **_QWEN3,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
    },
    "smollm2-135m": {  # with the memories that ours has
        "base_type": "llama",
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e5},
        "tie_word_embeddings": True,
        "memory_layers": list(_SMOLLM2_MEMORIES),
        "memory_maps": True,
        "memory_init_std": 1.0,
        "gate": "dynamic",
        "eta_init": 0.003,
    },
}
_STD = 0.02
_GATE = 0.1  # not 0: what the memory reads takes part in every logit


def write_random(
    like: str,
    out: Path,
    *,
    layers: int | None = None,
    window: int = 4096,
    sinks: int = 128,
    chunk: int = 512,
    ratio: int = 2,
    memory: str = "mlp",
    memory_delta: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Writes an AllMem checkpoint of the shape `like` (a key of SHAPES), the same for the same seed.

    Matrices are normal with standard deviation 0.02 and norms are 1, in bfloat16; the memory's parameters are
    those of an untrained one. The tokenizer knows single bytes. One layer at a time is in memory.

    Args:
        layers: number of layers, if not that of the real model.
        out, window, sinks, chunk, ratio, memory, memory_delta, progress: as for convert().

    Raises:
        ConvertError: the values do not fit together, or `out` is not empty.
    """
    out = Path(out)
    check_out(out)
    fields = dict(SHAPES[like])
    if layers is not None:
        fields["num_hidden_layers"] = layers
        if "memory_layers" in fields:
            fields["memory_layers"] = [i for i in fields["memory_layers"] if i < layers]
    try:
        config = AllMemConfig(
            **fields,
            window=window,
            sinks=sinks,
            chunk=chunk,
            memory_ratio=ratio,
            memory=memory,
            memory_delta=memory_delta,
            gate_init=_GATE,
            architectures=["AllMemForCausalLM"],
            dtype="float32",
        )
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ConvertError(one_line(error)) from error
    shapes = base_shapes(config)
    of_memory = memory_tensors(config, seed)
    groups: dict[str, list[str]] = {}
    for name in shapes:
        groups.setdefault(_layer(name), []).append(name)

    def parts() -> Iterator[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        for names in groups.values():
            yield {name: _random(name, shapes[name], generator) for name in names}
        yield of_memory

    total = 2 * sum(math.prod(shape) for shape in shapes.values())
    total += sum(t.numel() * t.element_size() for t in of_memory.values())
    with appearing(out) as target:
        config.save_pretrained(target)
        write_parts(target, parts(), len(groups) + 1, total, progress)
        _tokenizer().save_pretrained(str(target))


def _layer(name: str) -> str:
    """What a tensor is stored with: "layers.3", or the tensor itself outside the layers."""
    parts = name.split(".")
    return ".".join(parts[1:3]) if parts[1] == "layers" else name


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if len(shape) == 1:  # norms
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0, _STD, generator=generator)


def _tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)
