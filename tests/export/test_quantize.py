"""Quantised weights: codes as onnxruntime reads them, small errors, and models that compute with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from allmem_edge.assembly.initializers import Tensor, slots, write_data
from allmem_edge.blocks import dequantize_affine, dequantize_blocks, quantize_affine, quantize_blocks
from allmem_edge.errors import ModelFormatError
from allmem_edge.ort_backend import OrtModel, OrtSession
from allmem_export.export import load_checkpoint
from allmem_export.quantize import quantize
from allmem_export.verify import TOLERANCE, use_weights_of

EPS = float(np.finfo(np.float32).eps)
FORMS = [(4, 32), (4, 16), (8, 32), (8, 16)]


def random_weight(rows: int = 24, cols: int = 96, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)


def run(node: onnx.NodeProto, feeds: dict[str, np.ndarray], constants: dict[str, np.ndarray]) -> np.ndarray:
    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    casts = []
    for name in [n for n, x in constants.items() if x.dtype == np.float16]:  # as quantize() does
        constants[f"{name}.float16"] = constants.pop(name)
        casts.append(helper.make_node("Cast", [f"{name}.float16"], [name], to=TensorProto.FLOAT))
    graph = helper.make_graph(
        [*casts, node],
        "one_op",
        [helper.make_tensor_value_info(n, types[x.dtype.name], x.shape) for n, x in feeds.items()],
        [helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(x, n) for n, x in constants.items()],
    )
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@pytest.mark.parametrize(("bits", "block"), FORMS)
def test_onnxruntime_multiplies_by_the_dequantised_weights(bits: int, block: int) -> None:
    weight, x = random_weight(), random_weight(5, seed=1)
    codes, scales = quantize_blocks(weight, bits, block)
    attributes = {"K": 96, "N": 24, "bits": bits, "block_size": block}
    node = helper.make_node(
        "MatMulNBits", ["x", "codes", "scales"], ["y"], domain="com.microsoft", **attributes
    )
    y = run(node, {"x": x}, {"codes": codes, "scales": scales})
    expected = x.astype(np.float64) @ dequantize_blocks(codes, scales, bits).T.astype(np.float64)
    np.testing.assert_allclose(y, expected, atol=EPS * 96 * np.abs(x).max() * np.abs(weight).max(), rtol=0)


@pytest.mark.parametrize(("bits", "block"), FORMS)
def test_onnxruntime_gathers_the_dequantised_rows(bits: int, block: int) -> None:
    codes, scales = quantize_blocks(random_weight(), bits, block)
    ids = np.array([3, 0, 23, 3])
    attributes = {"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
    node = helper.make_node(
        "GatherBlockQuantized", ["codes", "ids", "scales"], ["y"], domain="com.microsoft", **attributes
    )
    y = run(node, {"ids": ids}, {"codes": codes.reshape(24, -1), "scales": scales})
    np.testing.assert_array_equal(y, dequantize_blocks(codes, scales, bits)[ids])


@pytest.mark.parametrize(("bits", "block"), FORMS)
def test_the_scale_search_beats_plain_rounding(bits: int, block: int) -> None:
    weight = random_weight(64)
    blocks = weight.reshape(64, -1, block)
    step = np.abs(blocks).max(-1, keepdims=True) / (2 ** (bits - 1) - 1)
    plain = np.square(np.rint(blocks / step) * step - blocks).sum(-1)
    found = dequantize_blocks(*quantize_blocks(weight, bits, block), bits).reshape(blocks.shape)
    error = np.square(found - blocks).sum(-1)
    assert (error <= plain * (1 + 1e-4)).mean() > 0.99  # the search looks at a few scales, not at all
    assert error.sum() < (0.85 if bits == 4 else 1.0) * plain.sum()


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_on_the_grid_survive_exactly(bits: int) -> None:
    half = 2 ** (bits - 1)
    codes = np.random.default_rng(3).integers(-half, half, (4, 64))
    codes[:, ::32] = -half  # every block uses the far end of the range
    weight = (codes * np.float32(0.25)).astype(np.float32)
    np.testing.assert_array_equal(dequantize_blocks(*quantize_blocks(weight, bits, 32), bits), weight)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_block_of_zeros_stays_zero(bits: int) -> None:
    weight = np.zeros((2, 64), np.float32)
    weight[1, 40] = -3.0
    np.testing.assert_array_equal(dequantize_blocks(*quantize_blocks(weight, bits, 32), bits), weight)


@pytest.mark.parametrize(
    ("bits", "largest", "scale_type"),
    [
        (4, 1.0, np.float16),
        (4, 0.99 * 2.0**15, np.float16),
        (4, 1.01 * 2.0**15, np.float32),
        (4, 1.01 * 2.0**-8, np.float16),
        (4, 0.99 * 2.0**-8, np.float32),
        (4, 0.0, np.float32),
        (8, 1.0, np.float32),
    ],
)
def test_four_bit_weights_have_float16_scales_where_these_are_in_range(
    bits: int, largest: float, scale_type: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = random_weight()
    weight[5, 32:64] *= 1e-6  # a block whose scale is subnormal, or would be
    weight *= np.float32(largest / np.abs(weight).max())
    codes, scales = quantize_blocks(weight, bits, 32)
    assert scales.dtype == scale_type and np.isfinite(scales).all()

    def squared_errors(values: np.ndarray) -> np.ndarray:
        return np.square(values.astype(np.float64) - weight).reshape(24, -1, 32).sum(-1)

    monkeypatch.setattr("allmem_edge.blocks._FLOAT16_SCALES", (np.inf, np.inf))
    exact_codes, exact_scales = quantize_blocks(weight, bits, 32)
    assert exact_scales.dtype == np.float32
    exact = dequantize_blocks(exact_codes, exact_scales, bits)
    # The scale that float32 found, rounded, was among those that were tried: for the same codes q it adds
    # (rounding of the scale)² Σ q² to the least error.
    rounding = np.maximum(2.0**-11 * np.abs(exact_scales.astype(np.float64)), 2.0**-25)
    added = rounding**2 * 32 * 8**2
    assert (
        squared_errors(dequantize_blocks(codes, scales, bits)) <= squared_errors(exact) * (1 + 1e-4) + added
    ).all()


def affine_weight(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What GGUF's Q4_1 holds: codes of which each block has 0 and 15, scale, minimum; and the weights."""
    rng = np.random.default_rng(6)
    codes = rng.integers(0, 16, (rows, 3, 32))
    codes[..., 5], codes[..., 20] = 0, 15
    scales = rng.uniform(0.01, 0.1, (rows, 3)).astype(np.float16)
    least = (-scales * rng.uniform(0, 15, (rows, 3))).astype(np.float16)
    scale, minimum = (x.astype(np.float32)[..., None] for x in (scales, least))
    return codes, scales, least, (codes * scale + minimum).astype(np.float32).reshape(rows, 96)


def test_affine_blocks_come_back_as_they_were() -> None:
    codes, scales, _, weight = affine_weight(40)
    packed, found, zeros = quantize_affine(weight, 32)
    np.testing.assert_array_equal(found, scales)
    np.testing.assert_array_equal(np.stack((packed & 15, packed >> 4), -1).reshape(40, 3, 32), codes)
    # A zero point up to 15 is rounded to 2^-8 at most, so a weight to a 256th of a step.
    step = scales.astype(np.float32).repeat(32, 1)
    assert (np.abs(dequantize_affine(packed, found, zeros) - weight) <= step * (2.0**-8 + 1e-5)).all()


def test_affine_blocks_lose_at_most_half_a_step_of_any_weight() -> None:
    weight = random_weight(50) + np.linspace(-3, 3, 50, dtype=np.float32)[:, None]
    packed, scales, zeros = quantize_affine(weight, 32)
    step = scales.astype(np.float64).repeat(32, 1)
    zero = np.abs(zeros.astype(np.float64)).repeat(32, 1)
    # Half a step, the scale's rounding over 15 of them, and the zero point's.
    bound = step * (0.5 + 15 * 2.0**-11 + zero * 2.0**-11 + 1e-3)
    assert (np.abs(dequantize_affine(packed, scales, zeros) - weight) <= bound).all()


def test_an_affine_block_of_one_value_or_nearly_keeps_it() -> None:
    weight = np.zeros((5, 64), np.float32)
    weight[1] = 0.3
    weight[2] = -7.0
    weight[3] = 1000 + np.linspace(0, 0.01, 64)
    weight[4, 40] = 1e-9  # of a range that float16 has no scale for
    packed, scales, zeros = quantize_affine(weight, 32)
    found = dequantize_affine(packed, scales, zeros)
    assert np.isfinite(scales).all() and np.isfinite(zeros).all()
    np.testing.assert_allclose(found, weight, rtol=2.0**-11 + 1e-5, atol=1e-8)


def test_onnxruntime_multiplies_by_affine_blocks() -> None:
    x, (_, _, _, weight) = random_weight(5, seed=1), affine_weight(24)
    packed, scales, zeros = quantize_affine(weight, 32)
    attributes = {"K": 96, "N": 24, "bits": 4, "block_size": 32}
    node = helper.make_node(
        "MatMulNBits", ["x", "codes", "scales", "zeros"], ["y"], domain="com.microsoft", **attributes
    )
    floats = {"scales": scales.astype(np.float32), "zeros": zeros.astype(np.float32)}
    y = run(node, {"x": x}, {"codes": packed, **floats})
    expected = x.astype(np.float64) @ dequantize_affine(packed, scales, zeros).T.astype(np.float64)
    largest = 2 * 15 * np.abs(scales).max().astype(np.float64)  # of code and zero point by themselves
    np.testing.assert_allclose(y, expected, atol=EPS * 96 * np.abs(x).max() * largest, rtol=0)


def test_the_graph_casts_float16_scales() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["T", 24])
    model = helper.make_model(helper.make_graph([node], "one_layer", [], [logits]))
    exact = onnx.ModelProto()
    exact.CopyFrom(model)

    tensors = {"w": Tensor("float32", (24, 96))}
    assert quantize(model, tensors, "int4") == []
    assert [n.op_type for n in model.graph.node] == ["Cast", "MatMulNBits"]
    assert model.graph.node[1].input[2] == model.graph.node[0].output[0] == "w.scales"
    assert tensors.keys() == {"w.codes", "w.scales.float16"}

    tensors = {"w": Tensor("float32", (24, 96))}
    assert quantize(exact, tensors, "int4", ["w"]) == []
    assert [n.op_type for n in exact.graph.node] == ["MatMulNBits"]
    assert tensors["w.scales"] == Tensor("float32", (24, 3))


def test_weights_are_written_where_the_graph_looks_for_them(tmp_path: Path) -> None:
    weights = {"w": random_weight(), "b": random_weight(1, 7)[0]}
    tensors = {
        "b": Tensor("float32", (7,)),
        "w.codes": Tensor("uint8", (24, 3, 16)),
        "w.scales.float16": Tensor("float16", (24, 3)),
    }
    write_data(tmp_path / "data", slots(tensors), weights.__getitem__)
    data = (tmp_path / "data").read_bytes()
    codes, scales = quantize_blocks(weights["w"], 4, 32)
    assert [slot.offset for slot in slots(tensors)] == [0, 64, 64 + codes.nbytes]
    assert data == b"".join([weights["b"].tobytes(), bytes(36), codes.tobytes(), scales.tobytes()])


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (random_weight(24, 95), "different models"),
        (random_weight(12, 96), "different models"),
        (random_weight() * 1e-3, "too small for them"),
    ],
)
def test_a_weight_that_the_graph_has_no_room_for_is_refused(
    weight: np.ndarray, message: str, tmp_path: Path
) -> None:
    tensors = {"w.codes": Tensor("uint8", (24, 3, 16)), "w.scales.float16": Tensor("float16", (24, 3))}
    with pytest.raises(ModelFormatError, match=message):
        write_data(tmp_path / "data", slots(tensors), lambda _: weight)


def test_rows_are_quantised_alike_in_slabs_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random_weight(50)
    whole = (*quantize_blocks(weight, 4, 32), *quantize_affine(weight, 32))
    monkeypatch.setattr("allmem_edge.blocks._SLAB", 7 * 96)
    slabs = (*quantize_blocks(weight, 4, 32), *quantize_affine(weight, 32))
    for a, b in zip(whole, slabs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_weight_no_block_size_divides_stays_float_and_is_named() -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "odd"], ["a"], transB=1),
        helper.make_node("Gemm", ["a", "even"], ["logits"], transB=1),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "two_layers",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", 20])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["T", 8])],
        )
    )
    tensors = {"odd": Tensor("float32", (48, 20)), "even": Tensor("float32", (8, 48))}
    assert quantize(model, tensors, "int4") == ["odd"]
    assert [n.op_type for n in model.graph.node] == ["Gemm", "MatMulNBits"]
    assert tensors == {
        "odd": Tensor("float32", (48, 20)),
        "even.codes": Tensor("uint8", (8, 3, 16)),  # 48 columns: blocks of 16, and 8 bits for the logits
        "even.scales": Tensor("float32", (8, 3)),
    }


SLOW = pytest.mark.slow
MODELS = [
    ("base", "int8"),
    ("base", "int4"),
    ("base", "mixed"),  # affine blocks in half of the MLP: the other half has 96 columns
    pytest.param("biased_llama3", "mixed", marks=SLOW),
    pytest.param("no_sinks_untied_dynamic", "int4", marks=SLOW),
    pytest.param("one_kv_head_yarn", "int8", marks=SLOW),  # 48 columns: blocks of 16
    pytest.param("biased_llama3", "int4", marks=SLOW),
    ("llama_some_memories_maps", "int8"),  # maps in blocks of 64
    pytest.param("qwen2_maps", "int4", marks=SLOW),  # and of 16
]


@pytest.mark.parametrize(("name", "mode"), MODELS)
def test_a_quantised_model_computes_with_the_dequantised_weights(
    name: str, mode: str, exported: Callable[..., Any]
) -> None:
    checkpoint, _, directory = exported(name, mode)
    model = load_checkpoint(checkpoint)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, 200)
    with torch.no_grad():
        before = model(input_ids=torch.from_numpy(ids)[None]).logits[0].numpy()
        use_weights_of(model, directory)
        expected = model(input_ids=torch.from_numpy(ids)[None]).logits[0].numpy()
    logits = OrtSession(OrtModel(directory), 1).forward(ids)
    np.testing.assert_allclose(logits, expected, atol=TOLERANCE, rtol=0)
    assert np.abs(before - expected).max() > 10 * TOLERANCE  # it really is another model


@pytest.mark.parametrize(("name", "mode"), MODELS)
def test_what_is_quantised_to_how_many_bits(name: str, mode: str, exported: Callable[..., Any]) -> None:
    _, model, directory = exported(name, mode)
    graph = onnx.load(directory / "model.onnx", load_external_data=False).graph
    bits = {
        n.output[0]: next(a.i for a in n.attribute if a.name == "bits")
        for n in graph.node
        if n.op_type == "MatMulNBits"
    }
    assert bits.pop("logits") == 8
    config = model.config
    if mode == "mixed":
        four = {
            n.output[0] for n in graph.node if n.op_type == "MatMulNBits" and len(n.input) > 3 and n.input[3]
        }
        names = {n.output[0]: n.input[1] for n in graph.node if n.op_type == "MatMulNBits"}
        whole = {"gate_proj": config.hidden_size, "up_proj": config.hidden_size}
        whole |= {"down_proj": config.intermediate_size}
        kinds = Counter(names[output].split(".")[-3] for output in four)
        assert kinds == {k: config.num_hidden_layers for k, cols in whole.items() if cols % 64 == 0}
        assert all((bits[output] == 4) == (output in four) for output in bits)
    else:
        assert set(bits.values()) == {8 if mode == "int8" else 4}
    memories = sum(map(config.has_memory, range(config.num_hidden_layers)))
    floats = [n.input[1].split(".")[-2] for n in graph.node if n.op_type == "Gemm"]
    steering = ["eta_proj", "beta_proj", *(["gate_proj"] if config.gate == "dynamic" else [])]
    assert sorted(floats) == sorted(steering * memories)
    maps = [n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"]
    assert len(maps) == (2 * memories if config.memory_maps else 0)
    assert set(maps) == {n.input[1] for n in graph.node if n.op_type == "Einsum"}
    assert sum(n.op_type == "GatherBlockQuantized" for n in graph.node) == 1
    tables = [
        t
        for t in graph.initializer
        if t.data_type == TensorProto.UINT8 and t.dims[0] == model.config.vocab_size
    ]
    assert len(tables) == (1 if model.config.tie_word_embeddings else 2)
    fast_weights = [t for t in graph.initializer if ".memory.weight." in t.name]
    assert fast_weights and all(t.data_type == TensorProto.FLOAT for t in fast_weights)
