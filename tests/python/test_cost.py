"""What `bench` holds a model against: counted operations and bytes, and the way to a great depth."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import allmem_edge as ae
from allmem_edge import _core
from allmem_edge.cli.bench import go_to_depth
from allmem_edge.cost import GRADIENT_BLOCK, Q8_BYTES, Cost, Shape, share_of_full_attention
from allmem_edge.hub import BUNDLED

SMALL = Shape(
    layers=2,
    hidden=8,
    mlp=12,
    heads=4,
    kv_heads=2,
    dim=4,
    vocabulary=32,
    window=6,
    sinks=2,
    chunk=4,
    memory=8,
    memory_layers=1,
    maps=True,
)
QWEN3_06B = Shape(
    layers=28,
    hidden=1024,
    mlp=3072,
    heads=16,
    kv_heads=8,
    dim=128,
    vocabulary=151_936,
    window=4096,
    sinks=128,
    chunk=512,
    memory=256,
)
LINEAR = replace(SMALL, linear=True, chunk=1)
counts = st.integers(1, 40)
depths = st.integers(0, 40)


@given(counts, depths, st.booleans())
def test_attention_counts_every_key_that_a_token_sees(tokens: int, depth: int, full: bool) -> None:
    cost = Cost(SMALL, 0, exact=True, full_attention=full)
    seen = [
        {s for s in range(t + 1) if full or s < SMALL.sinks or t - s < SMALL.window}
        for t in range(depth, depth + tokens)
    ]
    products = 2 * SMALL.layers * SMALL.heads * SMALL.dim * sum(map(len, seen))
    row = 2 * SMALL.layers * SMALL.kv_heads * SMALL.dim * 4
    one_by_one = cost.attention(tokens, depth, together=False)
    assert one_by_one.operations == 2 * products
    assert one_by_one.bytes == row * sum(map(len, seen))
    together = cost.attention(tokens, depth, together=True)
    assert together.operations == one_by_one.operations
    assert together.bytes == row * len(set().union(*seen))


@given(depths)
def test_a_prompt_costs_the_operations_of_its_tokens(depth: int) -> None:
    cost = Cost(SMALL, 1000, exact=False)
    tokens = 3 * SMALL.chunk  # whole chunks: the updates are whole, too
    prompt = cost.prefill(tokens, depth)
    singles = [cost.decode(depth + i) for i in range(tokens)]
    logits = cost.logits().operations
    assert prompt.operations == pytest.approx(sum(w.operations - logits for w in singles) + logits)
    assert prompt.bytes < sum(w.bytes for w in singles)


def test_the_memory_is_counted_by_hand() -> None:
    assert SMALL.memory_layers is not None
    weights = 3 * SMALL.memory * SMALL.dim
    work = Cost(SMALL, 0, exact=False).memory(1, 0, together=False)
    maps = (SMALL.heads + SMALL.kv_heads) * SMALL.dim**2
    assert work.integer == 2 * SMALL.memory_layers * (SMALL.heads * weights + maps)
    # Three products forward, one back, three outer ones: 7 h D. An update: 6 a weight, once in a chunk.
    each = 2 * 7 * SMALL.memory * SMALL.dim + 6 * weights / SMALL.chunk
    assert work.floating == pytest.approx(SMALL.memory_layers * SMALL.kv_heads * each)
    # W_0 in float32, three numbers in 8 bits; at the end of a chunk W_0, W, S and G changed, and the copy.
    bytes_each = Q8_BYTES + (4 + 3 * Q8_BYTES) / GRADIENT_BLOCK + (4 + 7 * Q8_BYTES) / SMALL.chunk
    assert work.bytes == pytest.approx(SMALL.memory_layers * SMALL.kv_heads * weights * bytes_each)


def test_the_layers_are_those_of_the_bundled_model() -> None:
    model = ae.Model.load()
    shape = Shape.from_config(model.files.read_json("config.json"))
    assert shape is not None
    graph = onnx.load(BUNDLED / "model.onnx", load_external_data=False).graph
    linear = sum(
        attributes["K"] * attributes["N"]
        for node in graph.node
        if node.op_type == "MatMulNBits"
        for attributes in [{a.name: a.i for a in node.attribute}]
    )
    cost = Cost(shape, model.engine.weight_bytes, exact=False)
    assert cost.layers(1).operations + cost.logits().operations == 2 * linear


def test_a_config_says_which_layers_have_a_memory_and_whether_it_has_maps() -> None:
    config = ae.Model.load().files.read_json("config.json")
    every = Shape.from_config(config)
    some = Shape.from_config({**config, "memory_layers": [0, 3], "memory_maps": True})
    assert every is not None and every.memory_layers is None and not every.maps
    assert some is not None and (some.layers, some.memory_layers, some.maps) == (4, 2, True)


def test_a_config_without_shapes_has_none() -> None:
    assert Shape.from_config({"model_type": "allmem", "vocab_size": 259}) is None
    assert Shape.from_config(dict.fromkeys(("hidden_size", "window"), "8")) is None


def test_the_cost_of_a_long_context_to_full_attention() -> None:
    # Weights of 4 bits with a float32 scale for 64, as `export --quantize int4-pure` writes them.
    weights = 0.5625 * (28 * 1024 * (2 * 2048 + 2 * 1024 + 3 * 3072) + 151_936 * 1024)
    share = share_of_full_attention(Cost(QWEN3_06B, int(weights), exact=False), 131_072)
    assert share["token_operations"] == pytest.approx(0.075, abs=0.001)
    assert share["token_bytes"] == pytest.approx(0.075, abs=0.001)
    assert share["prefill_operations"] == pytest.approx(0.127, abs=0.001)


class Recorder:
    """A session that only counts."""

    def __init__(self) -> None:
        self.position = 0
        self.full_at = SMALL.window + SMALL.sinks
        self.read_tokens = 0

    def reset(self) -> None:
        self.position = 0

    def place(self, position: int) -> None:
        assert self.position >= self.full_at, "the window must be full"
        assert (position - self.position) % SMALL.chunk == 0, "as far into a chunk as before"
        self.position = position

    def read(self, count: int) -> None:
        assert count > 0
        self.position += count
        self.read_tokens += count


class Facts:
    window, sinks, chunk = SMALL.window, SMALL.sinks, SMALL.chunk


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
def test_a_depth_is_reached_by_few_tokens(depths: list[int]) -> None:
    session = Recorder()
    for depth in depths:
        before = session.read_tokens
        go_to_depth(cast(_core.Session, session), cast(_core.Model, Facts), depth, session.read)
        assert session.position == depth
        assert session.read_tokens - before <= Facts.window + Facts.sinks + 4 * Facts.chunk


def test_a_placed_session_goes_on_as_at_that_depth(tiny: ae.Model) -> None:
    session = tiny.new_engine_session(1)
    assert isinstance(session, _core.Session) and isinstance(tiny.engine, _core.Model)
    session.forward(np.arange(64))
    bytes_before = session.state_bytes
    session.place(1_000_000)
    assert (session.position, session.state_bytes) == (1_000_000, bytes_before)
    assert session.forward(np.array([1]), True).shape == (1, tiny.engine.vocab_size)


def test_the_machine_is_measured_with_some_threads() -> None:
    for exact in (False, True):
        assert all(rate > 0 for rate in _core.measure_machine(1, 1 << 20, exact))
    with pytest.raises(ae.InvalidArgumentError, match="1 to 256 threads"):
        _core.measure_machine(0, 1 << 20, False)


@given(counts, depths)
def test_a_linear_memory_costs_every_token_the_same(tokens: int, depth: int) -> None:
    cost = Cost(LINEAR, 0, exact=False)
    matrix, layers = LINEAR.dim**2, LINEAR.memory_layers
    assert layers is not None
    # For a query head S q; for a KV head S k, and the multiply, multiply and add of β S + e kᵀ; the maps.
    once = layers * matrix * (2 * LINEAR.heads + 5 * LINEAR.kv_heads)
    maps = layers * matrix * 2 * (LINEAR.heads + LINEAR.kv_heads)
    one_by_one = cost.memory(tokens, depth, together=False)
    assert one_by_one.floating == tokens * once
    assert one_by_one.integer == tokens * maps
    assert one_by_one.bytes == tokens * layers * LINEAR.kv_heads * matrix * 2 * 4  # read and written
    together = cost.memory(tokens, depth, together=True)
    assert together.operations == one_by_one.operations
    assert together.bytes == layers * LINEAR.kv_heads * matrix * 2 * 4
    frozen = Cost(LINEAR, 0, exact=False, memory_use="frozen").memory(1, depth, together=False)
    assert frozen.floating == layers * matrix * 2 * LINEAR.heads
    assert Cost(LINEAR, 0, exact=False, memory_use="off").memory(1, depth, together=False).operations == 0
