"""Trained checkpoint ▶ memory adapter: the memory's parameters and the low-rank update, without the base."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray

from allmem_edge.assembly.adapter import (
    FORMAT,
    MANIFEST,
    MODES,
    WEIGHTS,
    graph_file,
    read_adapter,
    slots_file,
)
from allmem_edge.assembly.assemble import write_weights
from allmem_edge.assembly.base import BaseModel, open_base
from allmem_edge.assembly.safetensors_file import SafetensorsFile, write_safetensors
from allmem_edge.checksums import sha256_of

from .configuration import AllMemConfig
from .convert import appearing, base_shapes, check_out
from .export import Quantization, graph_for
from .modeling import AllMemForCausalLM
from .sources import ConvertError, one_line, read_json

Progress = Callable[[str, float], None]
_MEMORY, _DOWN, _UP = ".self_attn.memory.", ".lora_A", ".lora_B"
_CARD = ("name", "title", "about", "license", "attribution", "base", "trained", "generation", "evaluation")


def export_adapter(
    checkpoint: Path,
    out: Path,
    *,
    base: Path,
    card: Path,
    modes: Sequence[Quantization] = MODES,
    progress: Progress = lambda step, done: None,
) -> None:
    """Writes the adapter directory `out` of a trained checkpoint (docs/adapters.md).

    Args:
        checkpoint: a directory of config.json and safetensors. Of their tensors the memory's parameters and
            the low-rank update (`NAME.lora_A` [r, in], `NAME.lora_B` [out, r] of a `NAME.weight`) are taken.
        out: the directory to create; it may exist if it is empty. It appears complete or not at all.
        base: the base model as published, a GGUF file or a checkpoint directory.
        card: a JSON file of what people should know: `name`, `title`, `about`, `license`, `attribution`,
            `base` (`name`, `author`, `license`, `url` and the `sources` it can be had from, whose `files` are
            filled in, or compared if they are there), `trained`,
            `generation` (for generation_config.json) and `evaluation`.
        modes: the quantisations that it can be assembled in.

    Raises:
        ConvertError: checkpoint or card are incomplete, or `out` is not empty. AllMemError: what the base
            lacks.
    """
    check_out(out)
    config = _config(checkpoint)
    described = read_json(card)
    missing = [key for key in _CARD if key not in described]
    if missing:
        raise ConvertError(f"{card} does not say {', '.join(missing)}")
    tensors = _adapter_tensors(checkpoint, config)
    model = open_base(base)
    with appearing(out) as folder:
        write_safetensors(folder / WEIGHTS, tensors)
        (folder / "graphs").mkdir()
        for number, mode in enumerate(modes):
            progress(f"tracing {mode}", number / len(modes))
            graph, places = graph_for(config, mode)
            (folder / graph_file(mode)).write_bytes(graph)
            slots = [[slot.name, slot.tensor.dtype, slot.tensor.shape] for slot in places]
            (folder / slots_file(mode)).write_text(json.dumps(slots) + "\n", encoding="utf-8")
        manifest: dict[str, Any] = {
            "format": FORMAT,
            **{key: described[key] for key in _CARD},
            "config": json.loads(config.to_json_string()),
            "files": {
                path.relative_to(folder).as_posix(): sha256_of(path)
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            },
            "results": {},
        }
        files = _base_files(base)
        for source in manifest["base"]["sources"]:
            if source.get("files", files) != files:
                raise ConvertError(f"{base} is not the base model that {card} names by its SHA-256")
            source.update(files=files, size=sum((_folder(base) / name).stat().st_size for name in files))
        _write_manifest(folder, manifest)
        manifest["results"] = _results(folder, model, modes, progress)
        _write_manifest(folder, manifest)


def _config(checkpoint: Path) -> AllMemConfig:
    if read_json(checkpoint / "config.json").get("model_type") != "allmem":
        raise ConvertError(f'{checkpoint / "config.json"} is not of an AllMem model ("model_type": "allmem")')
    try:
        return AllMemConfig.from_pretrained(checkpoint, architectures=["AllMemForCausalLM"])
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ConvertError(f"{checkpoint / 'config.json'}: {one_line(error)}") from error


def _adapter_tensors(checkpoint: Path, config: AllMemConfig) -> dict[str, NDArray[np.float16]]:
    """The memory's parameters and the low-rank update, checked, in float16, ordered by name."""
    found: dict[str, NDArray[np.float32]] = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        file = SafetensorsFile(path)
        for name in file.names:
            if _MEMORY in name or name.endswith((_DOWN, _UP)):
                found[name] = file.floats(name)
    with torch.device("meta"):
        model = AllMemForCausalLM(config)
    expected = {name: tuple(p.shape) for name, p in model.named_parameters() if _MEMORY in name}
    for name, shape in base_shapes(config).items():
        stem = name.removesuffix(".weight")
        if stem + _DOWN in found and stem + _UP in found:
            rank = len(found[stem + _DOWN])
            expected |= {stem + _DOWN: (rank, shape[1]), stem + _UP: (shape[0], rank)}
    for name in sorted(expected.keys() ^ found.keys()):
        state = "lacks" if name in expected else "holds, with no place in the model of its config,"
        raise ConvertError(f"{checkpoint} {state} {name}")
    halves = {}
    for name in sorted(found):
        if found[name].shape != expected[name]:
            raise ConvertError(
                f"{name} in {checkpoint} has shape {list(found[name].shape)}; "
                f"its config means {list(expected[name])}"
            )
        with np.errstate(over="ignore"):
            halves[name] = found[name].astype(np.float16)
        if not np.isfinite(halves[name]).all():
            raise ConvertError(f"{name} in {checkpoint} holds values outside the range of float16")
    return halves


def _results(
    folder: Path, model: BaseModel, modes: Sequence[Quantization], progress: Progress
) -> dict[str, str]:
    """The SHA-256 of each model.onnx.data, as the assembly will make it."""
    adapter, results = read_adapter(folder), dict[str, str]()
    with tempfile.TemporaryDirectory() as temporary:
        for mode in modes:
            path = Path(temporary) / mode
            results[mode] = write_weights(adapter, model, path, mode, progress)
            path.unlink()
    return results


def _folder(base: Path) -> Path:
    return base if base.is_dir() else base.parent


def _base_files(base: Path) -> dict[str, str]:
    """Name and SHA-256 of the files that the base model is made of."""
    if base.is_file():
        return {base.name: sha256_of(base)}
    names = ["config.json", "tokenizer.json", *sorted(path.name for path in base.glob("*.safetensors"))]
    return {name: sha256_of(base / name) for name in names if (base / name).is_file()}


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
