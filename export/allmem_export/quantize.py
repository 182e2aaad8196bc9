"""Weight-only quantisation of an exported graph: Gemm to MatMulNBits, the embedding to GatherBlockQuantized.

Symmetric blocks of 64 weights along the input axis: weight = (code − 2^(bits−1)) · scale. In int4 mode the
embedding and the vocabulary projection keep 8 bits, as their error goes straight into every logit; in
int4-pure mode they have 4 as well. Scales of 4-bit weights are float16, a quarter of a bit a weight; the
graph casts them, as the operators want the type of their activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from allmem_edge.blocks import Floats, dequantize_blocks, quantize_blocks

BITS = {"int8": 8, "int4": 4, "int4-pure": 4}
VOCABULARY_BITS = {"int8": 8, "int4": 8, "int4-pure": 4}
# The first that divides the input axis is used.
BLOCK_SIZES = (64, 32, 16)
MICROSOFT = "com.microsoft"
_FLOAT16 = ".float16"  # a tensor of scales that is cast to one without this
_STAYS_FLOAT = ("eta_proj", "beta_proj")  # a row per KV head: no size to save, and they steer the memory

Weights = dict[str, NDArray[Any]]


def quantize(
    model: onnx.ModelProto,
    weights: Weights,
    mode: str,
    progress: Callable[[float], None] | None = None,
) -> list[str]:
    """Rewrites the graph and its initializers (`weights`, by name) in place.

    Returns the names of the weights left in float.
    """
    graph = model.graph
    embeddings = {
        node.input[0]: node for node in graph.node if node.op_type == "Gather" and node.input[0] in weights
    }
    linears = [node for node in graph.node if node.op_type == "Gemm" and node.input[1] in weights]
    left: list[str] = []
    blocks: dict[str, int] = {}  # block size of every weight quantised so far
    for done, node in enumerate(linears):
        name = node.input[1]
        block = _block_size(weights[name])
        if block is None or any(part in name for part in _STAYS_FLOAT):
            left.append(name)
        else:
            vocabulary = name in embeddings or graph.output[0].name in node.output
            _quantize_linear(node, weights, (VOCABULARY_BITS if vocabulary else BITS)[mode], block)
            blocks[name] = block
        if progress is not None:
            progress((done + 1) / len(linears))
    before: list[onnx.NodeProto] = []  # nodes that others need
    for name, node in embeddings.items():
        block = blocks[name] if name in blocks else _block_size(weights[name])
        if block is None:
            left.append(name)
        else:
            before.append(_quantize_embedding(node, weights, VOCABULARY_BITS[mode], block))
    for name in [n for n, array in weights.items() if n.endswith(".scales") and array.dtype == np.float16]:
        weights[name + _FLOAT16] = weights.pop(name)
        before.append(helper.make_node("Cast", [name + _FLOAT16], [name], name, to=onnx.TensorProto.FLOAT))
    for node in before:
        graph.node.insert(0, node)
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return sorted(set(left))


def dequantized_weights(path: Path) -> Iterator[tuple[str, Floats]]:
    """The name and the values [N, K] of every weight that the model file `path` holds in blocks."""
    graph = onnx.load(path, load_external_data=False).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}

    def array(name: str) -> NDArray[Any]:
        return numpy_helper.to_array(tensors[name], base_dir=str(path.parent))

    bits = {
        node.input[2]: attribute.i
        for node in graph.node
        for attribute in node.attribute
        if node.domain == MICROSOFT and attribute.name == "bits"
    }  # by the name of the scales, which a tied table's two nodes share
    for scales_name, width in bits.items():
        name = scales_name.removesuffix(".scales")
        scales = array(scales_name if scales_name in tensors else scales_name + _FLOAT16)
        yield name, dequantize_blocks(array(f"{name}.codes"), scales, width)


def _block_size(weight: NDArray[Any]) -> int | None:
    return next((b for b in BLOCK_SIZES if weight.shape[1] % b == 0), None)


def _quantize_linear(node: onnx.NodeProto, weights: Weights, bits: int, block: int) -> None:
    x, name, *bias = node.input
    weight = weights.pop(name)
    rows, cols = weight.shape
    weights[f"{name}.codes"], weights[f"{name}.scales"] = quantize_blocks(
        weight.astype(np.float32), bits, block
    )
    inputs = [x, f"{name}.codes", f"{name}.scales"]
    if bias and bias[0]:
        inputs += ["", "", bias[0]]
    attributes: dict[str, Any] = {"K": cols, "N": rows, "bits": bits, "block_size": block}
    new = helper.make_node("MatMulNBits", inputs, list(node.output), node.name, **attributes)
    new.domain = MICROSOFT
    node.CopyFrom(new)


def _quantize_embedding(node: onnx.NodeProto, weights: Weights, bits: int, block: int) -> onnx.NodeProto:
    """Turns a Gather into one that reads bytes through the Reshape node that is returned.

    The bytes are those of the linear layer that shares the table, if one does and was quantised before.
    """
    name, indices = node.input
    codes_name, scales_name, rows_name = f"{name}.codes", f"{name}.scales", f"{name}.rows"
    if codes_name not in weights:
        weight = weights.pop(name).astype(np.float32)
        weights[codes_name], weights[scales_name] = quantize_blocks(weight, bits, block)
    rows, blocks, block_bytes = weights[codes_name].shape
    weights[f"{rows_name}.shape"] = np.array([rows, blocks * block_bytes], np.int64)
    attributes: dict[str, Any] = {"bits": bits, "block_size": block}
    attributes |= {"gather_axis": 0, "quantize_axis": 1}
    inputs = [rows_name, indices, scales_name]
    new = helper.make_node("GatherBlockQuantized", inputs, list(node.output), node.name, **attributes)
    new.domain = MICROSOFT
    node.CopyFrom(new)
    return helper.make_node("Reshape", [codes_name, f"{rows_name}.shape"], [rows_name], rows_name)
