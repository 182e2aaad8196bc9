"""A checkpoint of the PyTorch model to the directory that the runtimes read (docs/format.md)."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from onnx import helper
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from allmem_edge import __version__
from allmem_edge.assembly.initializers import DATA_FILE, Slot, Tensor, slots, write_data
from allmem_edge.blocks import fits_float16
from allmem_edge.chat_format import write_chat_format
from allmem_edge.checksums import write_checksums
from allmem_edge.errors import AllMemError
from allmem_edge.files import TOKENIZER_FILES, TOOL_TEMPLATE

from . import quantize as quantization
from .configuration import AllMemConfig
from .modeling import AllMemForCausalLM
from .trace import trace

FORMAT = "1"

Quantization = Literal["none", "int8", "mixed", "int4", "int4-pure"]
Progress = Callable[[str, float], None]


class ExportError(AllMemError):
    """The export cannot be done; the message says why and what to do."""


def export(
    checkpoint: Path, out: Path, *, quantize: Quantization = "none", progress: Progress | None = None
) -> None:
    """Writes the model directory `out` from the checkpoint directory of an AllMem model and its tokenizer.

    `out` must not exist or be empty; it appears when it is complete. `progress` is told the step and its
    fraction done.
    """
    report: Progress = progress or (lambda step, fraction: None)
    checkpoint, out = Path(checkpoint), Path(out)
    _check_arguments(checkpoint, out, quantize)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.partial-"))
    try:
        _copy_tokenizer(checkpoint, partial)
        report("load", 0.0)
        model = load_checkpoint(checkpoint)
        shutil.copyfile(checkpoint / "config.json", partial / "config.json")
        if not (partial / "generation_config.json").exists():
            model.generation_config.to_json_file(partial / "generation_config.json")
        report("load", 1.0)
        write_model(model, partial, quantize, report)
        write_checksums(partial)
        partial.chmod(0o755)  # mkdtemp's directory is private
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def load_checkpoint(checkpoint: Path) -> AllMemForCausalLM:
    """The model in float32, ready to run."""
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise ExportError(f"{checkpoint}: the checkpoint cannot be loaded: {error}") from error
    model, info = loaded
    if not isinstance(model, AllMemForCausalLM):
        raise ExportError(f"{checkpoint}: holds a {type(model).__name__}, not an AllMem model")
    if info["missing_keys"]:  # transformers would leave them random
        raise ExportError(f"{checkpoint}: the weights lack {', '.join(sorted(info['missing_keys'])[:5])}")
    model.eval()  # type: ignore[no-untyped-call]
    return model


def write_model(model: AllMemForCausalLM, folder: Path, mode: Quantization, report: Progress) -> None:
    """Writes model.onnx and model.onnx.data into `folder`."""
    parameters = dict(model.named_parameters(remove_duplicate=False))

    def read(name: str) -> NDArray[np.float32]:
        weight: NDArray[np.float32] = parameters[name].detach().numpy()
        return weight

    report("trace", 0.0)
    matrices = [name for name, p in parameters.items() if p.ndim == 2]
    float32_scales = [
        name for name in matrices if mode not in ("none", "int8") and not fits_float16(read(name))
    ]
    graph, places = graph_for(model.config, mode, float32_scales)
    report("trace", 1.0)
    write_data(folder / DATA_FILE, places, read, lambda fraction: report("write", fraction))
    (folder / "model.onnx").write_bytes(graph)


def graph_for(
    config: AllMemConfig, mode: Quantization, float32_scales: Collection[str] = ()
) -> tuple[bytes, list[Slot]]:
    """model.onnx of any model of this config, and what belongs where in its model.onnx.data.

    float32_scales: names of matrices that float16 has no scales for (blocks.py, fits_float16).
    """
    model = trace(config)
    initializers = model.graph.initializer
    weights = [t for t in initializers if t.data_location == onnx.TensorProto.EXTERNAL]
    tensors = {t.name: Tensor("float32", tuple(t.dims)) for t in weights}
    constants = [t for t in initializers if t.data_location != onnx.TensorProto.EXTERNAL]
    del initializers[:]
    initializers.extend(constants)
    if mode != "none":
        quantization.quantize(model, tensors, mode, float32_scales)
    places = slots(tensors)
    for slot in places:
        tensor = initializers.add(
            name=slot.name,
            data_type=helper.np_dtype_to_tensor_dtype(np.dtype(slot.tensor.dtype)),
            dims=slot.tensor.shape,
            data_location=onnx.TensorProto.EXTERNAL,
        )
        where = {"location": DATA_FILE, "offset": slot.offset, "length": slot.tensor.size}
        tensor.external_data.extend(
            onnx.StringStringEntryProto(key=k, value=str(v)) for k, v in where.items()
        )
    model.metadata_props.extend(
        onnx.StringStringEntryProto(key=k, value=v) for k, v in _properties(config, mode).items()
    )
    return model.SerializeToString(deterministic=True), places


def _properties(config: AllMemConfig, mode: Quantization) -> dict[str, str]:
    values = {
        "format": FORMAT,
        "model_type": config.model_type,
        "window": config.window,
        "sinks": config.sinks,
        "chunk": config.chunk,
        "layers": config.num_hidden_layers,
        "vocab_size": config.vocab_size,
        "quantization": mode,
        "exporter": __version__,
    }
    return {f"allmem.{key}": str(value) for key, value in values.items()}


def _check_arguments(checkpoint: Path, out: Path, mode: str) -> None:
    if mode not in ("none", *quantization.BITS):
        raise ExportError(f'quantize must be "none", "int8", "mixed", "int4" or "int4-pure", not {mode!r}')
    if not checkpoint.is_dir():
        raise ExportError(f"{checkpoint}: no such checkpoint directory")
    model_type = _read_json(checkpoint / "config.json").get("model_type")
    if model_type != "allmem":
        raise ExportError(
            f'{checkpoint}/config.json: model_type is {model_type!r}, not "allmem"; '
            "convert a Qwen3 checkpoint first (allmem-edge convert)"
        )
    if not (checkpoint / "tokenizer.json").is_file():
        raise ExportError(
            f"{checkpoint}: has no tokenizer.json; save the model's fast tokenizer beside the weights"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out}: exists and is not an empty directory; choose another or remove it")


def _copy_tokenizer(checkpoint: Path, folder: Path) -> None:
    for name in ("generation_config.json", *TOKENIZER_FILES):
        if (checkpoint / name).is_file():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(checkpoint / name, folder / name)
    if not (folder / "chat_template.jinja").exists() and (folder / "tokenizer_config.json").exists():
        template = _read_json(folder / "tokenizer_config.json").get("chat_template")
        named = {"default": template}
        if isinstance(template, list):  # the old form of several templates
            named = {t["name"]: t["template"] for t in template if {"name", "template"} <= t.keys()}
        for name, file in (("default", "chat_template.jinja"), ("tool_use", TOOL_TEMPLATE)):
            if isinstance(text := named.get(name), str):
                (folder / file).parent.mkdir(exist_ok=True)
                (folder / file).write_text(text, encoding="utf-8")
    if (folder / "chat_template.jinja").exists():
        write_chat_format(folder)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ExportError(f"{path}: is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ExportError(f"{path}: does not hold a JSON object")
    return value
