"""The graph of a model's step, traced by PyTorch's exporter from the config alone: without weights."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx import numpy_helper
from onnxscript.onnx_opset import opset24 as op
from torch import Tensor, nn
from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

from allmem_edge import __version__

from .configuration import AllMemConfig
from .functions import OPSET, function_protos
from .modeling import AllMemForCausalLM
from .streaming import StreamingDecoder, SymbolicOps, state_shapes


def trace(config: AllMemConfig) -> onnx.ModelProto:
    """The graph of one step. Its weights are initializers without data: external, but nowhere.

    They have the names of the model's parameters, of `derived` (streaming.py), and of states (W_0).
    """
    shapes = state_shapes(config)
    states = [torch.zeros(()).expand(shape) for shape in shapes.values()]  # no memory: shapes are what counts
    decoder, weights = _decoder_without_weights(config)
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
    initializers = dict(traced.graph.initializers)
    traced.graph.initializers.clear()
    model = _tidy(ir.to_proto(traced), config.memory)
    for name, value in initializers.items():
        if name in weights:
            _add_weight(model, name, weights[name])
        else:
            assert value.const_value is not None
            model.graph.initializer.append(numpy_helper.from_array(value.const_value.numpy(), name))
    for name, shape in shapes.items():
        if config.memory == "mlp" and ".memory.weight." in name:  # states that do not start as zeros
            _add_weight(model, name, shape)
    return model


def _add_weight(model: onnx.ModelProto, name: str, shape: tuple[int, ...]) -> None:
    model.graph.initializer.add(
        name=name,
        data_type=onnx.TensorProto.FLOAT,
        dims=shape,
        data_location=onnx.TensorProto.EXTERNAL,
    )


def _decoder_without_weights(config: AllMemConfig) -> tuple[StreamingDecoder, dict[str, tuple[int, ...]]]:
    """A decoder whose weights take no memory, and their names and shapes."""
    with torch.device("meta"):
        model = AllMemForCausalLM(config)
        model.model.rotary_emb = None
    model.model.rotary_emb = Qwen3RotaryEmbedding(config)
    decoder = StreamingDecoder(model, SymbolicOps).eval()
    placeholders: dict[int, Tensor] = {}  # by the parameter, which a tied model has twice
    weights: dict[str, tuple[int, ...]] = {}
    for prefix, module in decoder.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is None or not tensor.is_meta:
                    continue
                if id(tensor) not in placeholders:
                    # A value of its own, which no constant has: the exporter merges small equal tensors.
                    value = torch.tensor(len(placeholders) + 0.3).expand(tensor.shape)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    placeholders[id(tensor)] = (
                        nn.Parameter(value, requires_grad=False) if is_parameter else value
                    )
                tensors[name] = placeholders[id(tensor)]
                weights[f"{prefix}.{name}"] = tuple(tensor.shape)
    return decoder, weights


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


def _tidy(model: onnx.ModelProto, memory: str) -> onnx.ModelProto:
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
    model.functions.extend(function_protos(memory))
    return model
