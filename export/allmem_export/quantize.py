"""Weight-only quantisation of a traced graph: Gemm to MatMulNBits, the embedding to GatherBlockQuantized.

Here the nodes are rewritten and the tensors' shapes; their values come later (assembly/initializers.py).

Symmetric blocks of 64 weights along the input axis: weight = (code − 2^(bits−1)) · scale. In int4 mode the
embedding and the vocabulary projection keep 8 bits, as their error goes straight into every logit; in
int4-pure mode they have 4 as well. In mixed mode all have 8, but for the matrices of the MLP, which have 4 in
affine blocks of 32: weight = (code − zero point) · scale, what GGUF calls Q4_1. The maps of heads in front of
a memory (Einsum), which are small, have 8 in every mode, through DequantizeLinear. Scales of 4-bit weights
and zero points are float16, a quarter of a bit a weight; the graph casts them, as the operators want the type
of their activations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from allmem_edge.assembly.initializers import CODES, FLOAT16, SCALES, ZEROS, Tensor
from allmem_edge.blocks import Floats, dequantize_affine, dequantize_blocks

BITS = {"int8": 8, "int4": 4, "int4-pure": 4, "mixed": 8}
VOCABULARY_BITS = {"int8": 8, "int4": 8, "int4-pure": 4, "mixed": 8}
_AFFINE_BLOCK = 32
_MAP_BITS = 8
# The first that divides the input axis is used.
BLOCK_SIZES = (64, 32, 16)
MICROSOFT = "com.microsoft"
_ROWS = ".rows"  # a table's codes as bytes in rows
# A row per head: no size to save, and they steer the memory.
_STAYS_FLOAT = ("eta_proj", "beta_proj", "memory.gate_proj")


class _Quantizer:
    """A graph and its tensors while they are rewritten."""

    def __init__(
        self,
        model: onnx.ModelProto,
        tensors: dict[str, Tensor],
        mode: str,
        float32_scales: Collection[str],
    ) -> None:
        self.graph = model.graph
        self.tensors = tensors
        self.mode = mode
        self.float32_scales = float32_scales
        self.blocks: dict[str, int] = {}  # block size of every weight quantised so far
        self.left: list[str] = []
        self.before: list[onnx.NodeProto] = []  # nodes that others need

    def run(self) -> list[str]:
        nodes = [n for n in self.graph.node if n.op_type in ("Gather", "Gemm", "Einsum")]
        tables = {n.input[0] for n in nodes if n.op_type == "Gather"}
        for node in sorted(
            nodes, key=lambda n: n.op_type == "Gather"
        ):  # a tied table's linear layer comes first
            name = node.input[0 if node.op_type == "Gather" else 1]
            block = self.blocks.get(name) or self._block_size(name)
            if block is None:
                self.left.append(name)
            elif node.op_type == "Einsum":
                self._heads(name, block)
            else:
                vocabulary = name in tables or self.graph.output[0].name in node.output
                bits = (VOCABULARY_BITS if vocabulary else BITS)[self.mode]
                (self._embedding if node.op_type == "Gather" else self._linear)(node, name, bits, block)
        for node in self.before:
            self.graph.node.insert(0, node)
        return sorted(set(self.left))

    def _block_size(self, name: str) -> int | None:
        if name not in self.tensors or any(part in name for part in _STAYS_FLOAT):
            return None
        return next((b for b in BLOCK_SIZES if self.tensors[name].shape[-1] % b == 0), None)

    def _is_affine(self, name: str) -> bool:
        """Whether a matrix gets affine blocks; the runtime's kernels take two of them at a time."""
        whole = self.tensors[name].shape[-1] % (2 * _AFFINE_BLOCK) == 0
        return self.mode == "mixed" and ".mlp." in name and whole and name not in self.float32_scales

    def _float16(self, name: str) -> str:
        """The name of the initializer that a Cast makes float32 from, which it adds."""
        cast = [name + FLOAT16], [name]
        self.before.append(helper.make_node("Cast", *cast, name, to=onnx.TensorProto.FLOAT))
        return name + FLOAT16

    def _split(
        self,
        name: str,
        codes: tuple[int, ...],
        scales: tuple[int, ...],
        *,
        half: bool,
        affine: bool = False,
    ) -> None:
        """Codes and scales, and zero points of affine blocks, in the place of a weight."""
        parts = {name + CODES: Tensor("uint8", codes)}
        for part in (SCALES, ZEROS) if affine else (SCALES,):
            initializer = self._float16(name + part) if half else name + part
            parts[initializer] = Tensor("float16" if half else "float32", scales)
        old = list(self.tensors.items())
        self.tensors.clear()
        for key, tensor in old:  # where the weight was: its parts are made together
            self.tensors.update(parts if key == name else {key: tensor})

    def _matrix(self, name: str, bits: int, block: int, *, affine: bool = False) -> None:
        rows, cols = self.tensors[name].shape
        half = bits == 4 and name not in self.float32_scales
        blocks = (rows, cols // block)
        self._split(name, (*blocks, block * bits // 8), blocks, half=half, affine=affine)
        self.blocks[name] = block

    def _linear(self, node: onnx.NodeProto, name: str, bits: int, block: int) -> None:
        x, _, *bias = node.input
        rows, cols = self.tensors[name].shape
        affine = self._is_affine(name)
        if affine:
            bits, block = 4, _AFFINE_BLOCK
        self._matrix(name, bits, block, affine=affine)
        inputs = [x, name + CODES, name + SCALES]
        if affine:
            inputs += [name + ZEROS]
        if bias and bias[0]:
            inputs += [""] * (5 - len(inputs)) + [bias[0]]
        attributes: dict[str, Any] = {"K": cols, "N": rows, "bits": bits, "block_size": block}
        new = helper.make_node("MatMulNBits", inputs, list(node.output), node.name, **attributes)
        new.domain = MICROSOFT
        node.CopyFrom(new)

    def _embedding(self, node: onnx.NodeProto, name: str, bits: int, block: int) -> None:
        """Turns a Gather into one that reads bytes through a Reshape.

        The bytes are those of the linear layer that shares the table, if one does.
        """
        if name not in self.blocks:
            self._matrix(name, bits, block)
        rows, blocks, block_bytes = self.tensors[name + CODES].shape
        shape = np.array([rows, blocks * block_bytes], np.int64)
        self.graph.initializer.append(numpy_helper.from_array(shape, f"{name}{_ROWS}.shape"))
        self.before.append(
            helper.make_node("Reshape", [name + CODES, f"{name}{_ROWS}.shape"], [name + _ROWS], name + _ROWS)
        )
        attributes: dict[str, Any] = {"bits": bits, "block_size": block}
        attributes |= {"gather_axis": 0, "quantize_axis": 1}
        inputs = [name + _ROWS, node.input[1], name + SCALES]
        new = helper.make_node("GatherBlockQuantized", inputs, list(node.output), node.name, **attributes)
        new.domain = MICROSOFT
        node.CopyFrom(new)

    def _heads(self, name: str, block: int) -> None:
        """Puts the DequantizeLinear in front that makes the matrices of an Einsum of their codes."""
        *rows, cols = self.tensors[name].shape
        blocks = (*rows, cols // block)
        zeros = "zero_points." + "x".join(map(str, blocks))
        if all(tensor.name != zeros for tensor in self.graph.initializer):
            half = np.full(blocks, 1 << (_MAP_BITS - 1), np.uint8)
            self.graph.initializer.append(numpy_helper.from_array(half, zeros))
        self._split(name, (*rows, cols), blocks, half=False)
        inputs = [name + CODES, name + SCALES, zeros]
        self.before.append(
            helper.make_node("DequantizeLinear", inputs, [name], name, axis=len(rows), block_size=block)
        )


def quantize(
    model: onnx.ModelProto,
    tensors: dict[str, Tensor],
    mode: str,
    float32_scales: Collection[str] = (),
) -> list[str]:
    """Rewrites the graph and the shapes of its weights (`tensors`, by name) in place.

    float32_scales: names of weights whose blocks have no scales in float16 (blocks.py, fits_float16).
    Returns the names of the weights left in float.
    """
    left = _Quantizer(model, tensors, mode, float32_scales).run()
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return left


def dequantized_weights(path: Path) -> Iterator[tuple[str, Floats]]:
    """The name and the values of every weight that `path` holds in blocks: [N, K], or of heads [H, N, K]."""
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
        name = scales_name.removesuffix(SCALES)
        scales = array(scales_name if scales_name in tensors else scales_name + FLOAT16)
        if name + ZEROS + FLOAT16 in tensors:
            yield name, dequantize_affine(array(name + CODES), scales, array(name + ZEROS + FLOAT16))
        else:
            yield name, dequantize_blocks(array(name + CODES), scales, width)
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            codes, scales = array(node.input[0]), array(node.input[1])
            packed = codes.reshape(-1, scales.shape[-1], codes.shape[-1] // scales.shape[-1])
            values = dequantize_blocks(packed, scales.reshape(packed.shape[:2]), _MAP_BITS)
            yield node.output[0], values.reshape(codes.shape)
