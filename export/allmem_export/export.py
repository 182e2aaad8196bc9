"""A checkpoint of the PyTorch model to the directory that the runtimes read (docs/format.md)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import torch
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxscript.onnx_opset import opset24 as op
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from allmem_edge import __version__
from allmem_edge.chat_format import write_chat_format
from allmem_edge.checksums import write_checksums
from allmem_edge.errors import AllMemError
from allmem_edge.hub import TOKENIZER_FILES, TOOL_TEMPLATE

from . import quantize as quantization
from .functions import OPSET, function_protos
from .modeling import AllMemForCausalLM
from .streaming import StreamingDecoder, SymbolicOps, initial_fast_weights, state_shapes

FORMAT = "1"
DATA_FILE = "model.onnx.data"
ALIGNMENT = 64
_INLINE_BYTES = 1024  # a tensor up to this size stays in model.onnx

Quantization = Literal["none", "int8", "int4", "int4-pure"]
Progress = Callable[[str, float], None]
Weights = dict[str, NDArray[np.generic]]


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
    report("trace", 0.0)
    graph_model, weights = trace(model)
    report("trace", 1.0)
    if mode != "none":
        quantization.quantize(graph_model, weights, mode, lambda fraction: report("quantize", fraction))
    weights.update({name: w.numpy() for name, w in initial_fast_weights(model).items()})
    properties = _properties(model, mode)
    graph_model.metadata_props.extend(
        onnx.StringStringEntryProto(key=k, value=v) for k, v in properties.items()
    )
    _write_weights(graph_model, weights, folder, report)
    (folder / "model.onnx").write_bytes(graph_model.SerializeToString(deterministic=True))


def trace(model: AllMemForCausalLM) -> tuple[onnx.ModelProto, Weights]:
    """The graph of one step without its initializers, and these by name (views of the model's own memory)."""
    shapes = state_shapes(model.config)
    states = [
        torch.zeros(()).expand(shape) for shape in shapes.values()
    ]  # no memory: the exporter looks at shapes
    decoder = StreamingDecoder(model, SymbolicOps).eval()
    tokens = torch.export.Dim("T", min=1)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            decoder,
            (torch.zeros(2, dtype=torch.int64), torch.tensor(0), states),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input_ids", "position", *shapes],
            output_names=["logits", *(f"{name}.out" for name in shapes)],
            dynamic_shapes=({0: tokens}, {}, [{} for _ in states]),
            custom_translation_table={
                torch.ops.aten.silu.default: _silu,
                torch.ops.aten.softplus.default: _softplus,
            },
            verbose=False,
        )
    assert program is not None  # it returns None only when told to write a file
    traced = program.model
    weights = {str(name): _array(value) for name, value in traced.graph.initializers.items()}
    traced.graph.initializers.clear()
    return _tidy(ir.to_proto(traced)), weights


def _array(value: ir.Value) -> NDArray[np.generic]:
    if value.const_value is None:
        raise ExportError(f"the exporter left the weight {value.name} without a value")
    return value.const_value.numpy()


# The exporter's own translation of these two is a chain of nodes; ONNX has each as one.
def _silu(x: Any) -> Any:
    return op.Swish(x)


def _softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    return op.Softplus(x)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on packages that are not installed and on its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what the exporter knew of its source code; with the function bodies."""
    graph = model.graph
    graph.name = "allmem"
    model.producer_name, model.producer_version = "allmem_export", __version__
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    for item in (*graph.node, *graph.input, *graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    for node in graph.node:
        if node.op_type == "Reshape":
            del node.attribute[:]  # allowzero, which means nothing to a shape without zeros
    model.functions.extend(function_protos())
    return model


def _properties(model: AllMemForCausalLM, mode: Quantization) -> dict[str, str]:
    config = model.config
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


def _write_weights(model: onnx.ModelProto, weights: Weights, folder: Path, report: Progress) -> None:
    """Adds the initializers to the graph, all but small ones as external data at aligned offsets."""
    with open(folder / DATA_FILE, "wb") as file:
        for done, (name, value) in enumerate(weights.items()):
            array = np.ascontiguousarray(value)
            if array.nbytes <= _INLINE_BYTES:
                model.graph.initializer.append(numpy_helper.from_array(array, name))
                continue
            file.write(bytes(-file.tell() % ALIGNMENT))
            tensor = model.graph.initializer.add(
                name=name,
                data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
                dims=array.shape,
                data_location=onnx.TensorProto.EXTERNAL,
            )
            where = {"location": DATA_FILE, "offset": file.tell(), "length": array.nbytes}
            tensor.external_data.extend(
                onnx.StringStringEntryProto(key=k, value=str(v)) for k, v in where.items()
            )
            array.tofile(file)
            report("write", (done + 1) / len(weights))
        file.flush()
        os.fsync(file.fileno())


def _check_arguments(checkpoint: Path, out: Path, mode: str) -> None:
    if mode not in ("none", *quantization.BITS):
        raise ExportError(f'quantize must be "none", "int8", "int4" or "int4-pure", not {mode!r}')
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
        raise ExportError(f"{path}: holds no JSON object")
    return value
