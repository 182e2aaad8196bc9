"""Qwen3 ▶ AllMem: a checkpoint whose attention becomes the two memories and whose weights stay as they are.

The new checkpoint computes sliding-window Qwen3 until its memory is trained: the gate starts at 0. Base
weights keep the dtype they are stored in. The memory's parameters are float32 and the config asks for
float32, because the rates and the fast weights lose too much in half precision: train a large model under
autocast.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    StrictDataclassError,
)
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from allmem_edge.errors import AllMemError

from .configuration import AllMemConfig
from .modeling import AllMemForCausalLM, LongTermMemory

COPIED = (  # besides config and weights; any of them may be absent
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
INDEX = "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")  # the dtypes a base weight may have, by safetensors' names
Progress = Callable[[int, int], None]  # (bytes written, bytes in all)


class ConvertError(AllMemError):
    """A checkpoint that cannot be converted; the message is one sentence that says why and where."""


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
) -> None:
    """Writes an AllMem checkpoint directory made of a Qwen3 one.

    Args:
        source: a Qwen3 checkpoint directory (config.json and safetensors), or a Hugging Face hub id.
        out: the directory to create; it may exist if it is empty. It appears complete or not at all.
        window, sinks, chunk, ratio, gate: fields of AllMemConfig.
        seed: of the memory's initial parameters.
        progress: called with the bytes written so far and in all, after each file.

    Raises:
        ConvertError: the source is no complete Qwen3 checkpoint, or `out` is not empty.
    """
    out = Path(out)
    check_out(out)
    folder = _locate(source)
    config = _config(folder, window=window, sinks=sinks, chunk=chunk, memory_ratio=ratio, gate=gate)
    shards = _plan(folder, config)
    with appearing(out) as target:
        config.save_pretrained(target)
        _write_weights(folder, target, config, shards, seed, progress)
        for name in COPIED:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)


def check_out(out: Path) -> None:
    """Raises ConvertError if `out` exists and is not an empty directory."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConvertError(f"{out} already exists and is not an empty directory; choose another name")


def _locate(source: Path | str) -> Path:
    """The directory of the source checkpoint, fetched first if `source` is a hub id."""
    if Path(source).is_dir():
        return Path(source)
    name = str(source)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ConvertError(f"{name} is not a directory")
    try:
        return Path(snapshot_download(name, allow_patterns=["config.json", "*.safetensors", INDEX, *COPIED]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConvertError(
            f"{name} is neither a directory nor a model that the hub could deliver: {reason}"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConvertError(f"{path.parent} has no {path.name}; it is not a checkpoint directory") from None
    except (OSError, ValueError) as error:
        raise ConvertError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(data, dict):
        raise ConvertError(f"{path} does not hold a JSON object")
    return data


def _config(folder: Path, **fields: Any) -> AllMemConfig:
    """The AllMem config with Qwen3's values; transformers modernises old spellings of the rope scaling."""
    path = folder / "config.json"
    data = _read_json(path)
    if data.get("model_type") != "qwen3":
        raise ConvertError(
            f'{path} says model_type {data.get("model_type")!r}; only "qwen3" can be converted'
        )
    if "quantization_config" in data:
        raise ConvertError(f"{path} describes quantised weights; convert the unquantised checkpoint instead")
    try:
        values = Qwen3Config.from_dict(data).to_dict()
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        raise ConvertError(f"{path} is not a valid Qwen3 config: {one_line(error)}") from error
    rope = values["rope_parameters"]["rope_type"]
    if rope != "default" and rope not in ROPE_INIT_FUNCTIONS:
        raise ConvertError(
            f"{path} asks for rope scaling of type {rope!r}, which this transformers does not know"
        )
    for replaced in (
        "model_type",
        "architectures",
        "transformers_version",
        "layer_types",
        "sliding_window",
        "dtype",
    ):
        values.pop(replaced, None)
    values.update(fields, use_sliding_window=False, architectures=["AllMemForCausalLM"], dtype="float32")
    try:
        return AllMemConfig(**values)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ConvertError(one_line(error)) from error


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _plan(folder: Path, config: AllMemConfig) -> dict[str, list[str]]:
    """Which tensors to take from which source file, after every name, shape and dtype has been checked."""
    if (folder / INDEX).is_file():
        weight_map = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ConvertError(f"{folder / INDEX} has no weight_map")
        files = sorted({str(name) for name in weight_map.values()})
    else:
        files = ["model.safetensors"]
    expected = base_shapes(config)
    shards: dict[str, list[str]] = {}
    seen: set[str] = set()
    for file in files:
        if Path(file).name != file:
            raise ConvertError(f"{folder / INDEX} names {file!r}, which is not a file of that directory")
        with _opened(folder / file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (a safetensors handle is not iterable)
                if name not in expected:
                    if name == "lm_head.weight" or name.endswith("rotary_emb.inv_freq"):
                        continue  # a copy of the tied embedding; a table that older versions stored
                    raise ConvertError(
                        f"{folder / file} holds {name}, which a Qwen3 of this config does not have"
                    )
                if name in seen:
                    raise ConvertError(f"{folder / file} holds {name}, which another file holds, too")
                view = tensors.get_slice(name)
                if tuple(view.get_shape()) != expected[name]:
                    raise ConvertError(
                        f"{name} in {folder / file} has shape {list(view.get_shape())}; "
                        f"its config.json means {list(expected[name])}"
                    )
                if view.get_dtype() not in FLOATS:
                    raise ConvertError(
                        f"{name} in {folder / file} is {view.get_dtype()}; only float weights can be read"
                    )
                seen.add(name)
                shards.setdefault(file, []).append(name)
    missing = [name for name in expected if name not in seen]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ConvertError(f"the weights in {folder} lack {missing[0]}{more}; the checkpoint is incomplete")
    return shards


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
def _opened(path: Path) -> Iterator[Any]:
    """An open safetensors file, whose tensors are views of the mapped file."""
    if not path.is_file():
        raise ConvertError(f"{path} is missing; the checkpoint has to hold its weights as safetensors")
    try:
        with safe_open(path, framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise ConvertError(f"{path} is not a complete safetensors file: {one_line(error)}") from error


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
    folder: Path,
    target: Path,
    config: AllMemConfig,
    shards: dict[str, list[str]],
    seed: int,
    progress: Progress | None,
) -> None:
    """A file for each source file and one for the memory. Base weights go uncopied from mapping to disk."""
    memory = memory_tensors(config, seed)

    def parts() -> Iterator[dict[str, Tensor]]:
        for file, names in shards.items():
            yield _load(folder / file, names)
        yield memory

    total = sum(_bytes(part) for part in parts())
    write_parts(target, parts(), len(shards) + 1, total, progress)


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


def _load(path: Path, names: list[str]) -> dict[str, Tensor]:
    with _opened(path) as tensors:
        return {name: tensors.get_tensor(name) for name in names}


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors.values())


def memory_tensors(config: AllMemConfig, seed: int) -> dict[str, Tensor]:
    """The memory's initial parameters of all layers, the same for the same seed."""
    tensors = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in range(config.num_hidden_layers):
            for name, value in LongTermMemory(config).float().state_dict().items():
                tensors[f"model.layers.{layer}.self_attn.memory.{name}"] = value
    return tensors
