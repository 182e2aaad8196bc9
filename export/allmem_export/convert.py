"""Base model ▶ AllMem: a checkpoint whose attention becomes the two memories and whose weights stay.

The new checkpoint computes the base model with a sliding window until its memory is trained: the gate starts
at 0. Base weights keep the dtype they are stored in; blocks of a GGUF file become float32. The memory's
parameters are float32 and the config asks for float32, because the rates and the fast weights lose too much
in half precision: train a large model under autocast.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from .configuration import AllMemConfig
from .families import family_of
from .long_term_memory import make_memory
from .modeling import AllMemForCausalLM
from .sources import FLOATS, INDEX, ConvertError, Source, find_source, one_line

Progress = Callable[[int, int], None]  # (bytes written, bytes in all)
_REPLACED = ("model_type", "architectures", "transformers_version", "layer_types", "sliding_window", "dtype")


def convert(
    source: Path | str,
    out: Path,
    *,
    window: int = 4096,
    sinks: int = 128,
    chunk: int = 512,
    ratio: int = 2,
    gate: str = "static",
    seed: int = 0,
    progress: Progress | None = None,
    **fields: Any,
) -> None:
    """Writes an AllMem checkpoint directory made of a base model's.

    Args:
        source: a checkpoint directory (config.json and safetensors), a GGUF file, or a Hugging Face hub id.
        out: the directory to create; it may exist if it is empty. It appears complete or not at all.
        window, sinks, chunk, ratio, gate, and any `fields`: those of AllMemConfig.
        seed: of the memory's initial parameters.
        progress: called with the bytes written so far and in all, after each file.

    Raises:
        ConvertError: the source is no complete checkpoint of a supported family, or `out` is not empty.
        AllMemError: of a GGUF file, what is wrong with it.
    """
    out = Path(out)
    check_out(out)
    base = find_source(source)
    config = _config(base, window=window, sinks=sinks, chunk=chunk, memory_ratio=ratio, gate=gate, **fields)
    parts = _plan(base, config)
    with appearing(out) as target:
        config.save_pretrained(target)
        _write_weights(base, target, config, parts, seed, progress)
        base.copy_tokenizer(target)


def check_out(out: Path) -> None:
    """Raises ConvertError if `out` exists and is not an empty directory."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConvertError(f"{out} already exists and is not an empty directory; choose another name")


def _config(source: Source, **fields: Any) -> AllMemConfig:
    """The AllMem config with the base's values; transformers modernises old spellings of the rope scaling."""
    data, place = source.config(), source.config_place
    base_type = data.get("model_type")
    try:
        family = family_of(str(base_type))
    except ValueError as error:
        raise ConvertError(f"{place}: {one_line(error)}") from error
    if "quantization_config" in data:
        raise ConvertError(f"{place} describes quantised weights; convert the unquantised checkpoint instead")
    try:
        base = family.config_class.from_dict(data)
        values = base.to_dict()
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise ConvertError(f"{place} is not a valid {base_type} config: {one_line(error)}") from error
    rope = values["rope_parameters"]["rope_type"]
    if rope != "default" and rope not in ROPE_INIT_FUNCTIONS:
        raise ConvertError(
            f"{place} asks for rope scaling of type {rope!r}, which this transformers does not know"
        )
    if values["hidden_act"] != "silu":
        raise ConvertError(
            f"{place} asks for the activation {values['hidden_act']!r}; only silu is supported"
        )
    if not values.get("head_dim"):
        values["head_dim"] = base.hidden_size // base.num_attention_heads
    known = AllMemConfig().to_dict()
    values = {key: value for key, value in values.items() if key in known and key not in _REPLACED}
    values.update(fields, base_type=base_type, use_sliding_window=False, dtype="float32")
    try:
        return AllMemConfig(**values, architectures=["AllMemForCausalLM"])
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ConvertError(one_line(error)) from error


def _plan(source: Source, config: AllMemConfig) -> dict[str, list[str]]:
    """The tensors to take from each part of the source, after all names, shapes and dtypes were checked."""
    expected = base_shapes(config)
    parts: dict[str, list[str]] = {}
    seen: set[str] = set()
    for tensor in source.tensors():
        name = tensor.name
        if name not in expected:
            if name == "lm_head.weight" or name.endswith("rotary_emb.inv_freq"):
                continue  # a copy of the tied embedding; a table that older versions stored
            raise ConvertError(
                f"{tensor.place} holds {name}, which a {config.base_type} of this config does not have"
            )
        if name in seen:
            raise ConvertError(f"{tensor.place} holds {name}, which another file holds, too")
        if tensor.shape != expected[name]:
            raise ConvertError(
                f"{name} in {tensor.place} has shape {list(tensor.shape)}; "
                f"its config means {list(expected[name])}"
            )
        if tensor.dtype not in FLOATS:
            raise ConvertError(f"{name} in {tensor.place} is {tensor.dtype}; only float weights can be read")
        seen.add(name)
        parts.setdefault(tensor.part, []).append(name)
    missing = [name for name in expected if name not in seen]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConvertError(
            f"the weights of {source.config_place} lack {missing[0]}{more}; the checkpoint is incomplete"
        )
    return parts


def base_shapes(config: AllMemConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the base model stores."""
    with torch.device("meta"):
        model = AllMemForCausalLM(config)
    shapes = {
        name: tuple(p.shape) for name, p in model.state_dict().items() if ".self_attn.memory." not in name
    }
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return shapes


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A temporary directory beside `out` that takes its name if the block succeeds, or else is removed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)  # mkdtemp's own is 0700
        temporary.replace(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_weights(
    source: Source,
    target: Path,
    config: AllMemConfig,
    parts: dict[str, list[str]],
    seed: int,
    progress: Progress | None,
) -> None:
    """A file for each part of the source and one for the memory; one part is in memory at a time."""
    memory = memory_tensors(config, seed)
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
    total = _bytes(memory) + sum(
        sizes[tensor.dtype] * math.prod(tensor.shape)
        for tensor in source.tensors()
        if tensor.name in parts.get(tensor.part, ())
    )

    def contents() -> Iterator[dict[str, Tensor]]:
        for part, names in parts.items():
            yield source.load(part, names)
        yield memory

    write_parts(target, contents(), len(parts) + 1, total, progress)


def write_parts(
    target: Path, parts: Iterable[dict[str, Tensor]], count: int, total: int, progress: Progress | None
) -> None:
    """A safetensors file for each of the `count` parts, and their index. One part is in memory at a time."""
    done = 0
    weight_map: dict[str, str] = {}
    for number, part in enumerate(parts, start=1):
        name = f"model-{number:05d}-of-{count:05d}.safetensors"
        save_file(part, target / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, name))
        done += _bytes(part)
        if progress:
            progress(done, total)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (target / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors.values())


def memory_tensors(config: AllMemConfig, seed: int) -> dict[str, Tensor]:
    """The initial parameters of all memories, the same for the same seed."""
    tensors = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in filter(config.has_memory, range(config.num_hidden_layers)):
            for name, value in make_memory(config).float().state_dict().items():
                tensors[f"model.layers.{layer}.self_attn.memory.{name}"] = value
    return tensors
