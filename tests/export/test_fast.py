"""The native runtime's two kinds of arithmetic on quantised weights: exact as onnxruntime, or fast."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import allmem_edge as ae
import tiny
from allmem_edge.ort_backend import OrtModel, OrtSession
from allmem_export.verify import TOLERANCE, random_cuts

CMAKE_LIST = (Path(__file__).parents[2] / "cmake" / "isa.cmake").read_text()
ISAS = ["ref", *re.findall(r"^ *allmem_isa\((\w+)", CMAKE_LIST, re.MULTILINE)]
IDS = np.random.default_rng(1).integers(0, 384, 200)


@pytest.mark.parametrize("mode", ["int8", "mixed", "int4"])
def test_exact_is_onnxruntime_and_fast_is_not(mode: str, exported: Callable[..., Any]) -> None:
    directory = exported("base", mode).directory
    exact = ae.Model.load(directory, exact=True).session().forward(IDS)
    fast = ae.Model.load(directory).session().forward(IDS)
    np.testing.assert_allclose(exact, OrtSession(OrtModel(directory), 1).forward(IDS), atol=TOLERANCE, rtol=0)
    assert np.abs(fast - exact).max() > TOLERANCE


def test_8_bit_activations_lose_less_than_4_bit_weights_do(exported: Callable[..., Any]) -> None:
    _, model, directory = exported("base", "int4")
    with torch.no_grad():
        unquantised = model(input_ids=torch.from_numpy(IDS)[None]).logits[0].numpy()
    exact = ae.Model.load(directory, exact=True).session().forward(IDS)
    fast = ae.Model.load(directory).session().forward(IDS)
    assert 0 < np.square(fast - exact).mean() < np.square(exact - unquantised).mean()


@pytest.mark.parametrize("isa", [pytest.param("ref", marks=pytest.mark.slow), *ISAS[1:]])
@pytest.mark.parametrize(
    "mode", ["mixed", *(pytest.param(m, marks=pytest.mark.slow) for m in ("int8", "int4"))]
)
@pytest.mark.parametrize("name", tiny.names("llama_some_memories_maps", "linear_some_memories_maps_dynamic"))
def test_with_maps_gates_and_layers_without_memory_no_split_and_no_snapshot_changes_a_bit(
    name: str,
    isa: str,
    mode: str,
    exported: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALLMEM_ISA", isa)
    try:
        model = ae.Model.load(exported(name, mode).directory)
    except ae.InvalidArgumentError:
        pytest.skip(f"this machine has no {isa}")
    whole = model.session().forward(IDS)
    session, pieces = model.session(), []
    for start, stop in random_cuts(len(IDS), np.random.default_rng(5)):
        pieces.append(session.forward(IDS[start:stop]))
        session.save(tmp_path / "memory")
        session = model.session()
        session.load(tmp_path / "memory")
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_a_layer_without_memory_has_none_to_inspect(exported: Callable[..., Any]) -> None:
    session = ae.Model.load(exported("llama_some_memories_maps", "int8").directory).session()
    session.forward(IDS)
    report = session.inspect()
    assert [layer.layer for layer in report.layers] == [0, 2]
    assert all(layer.drift > 0 for layer in report.layers)


def test_without_quantised_weights_fast_is_exact(exported: Callable[..., Any]) -> None:
    directory = exported("base").directory
    exact, fast = (ae.Model.load(directory, exact=e).session().forward(IDS) for e in (True, False))
    np.testing.assert_array_equal(exact, fast)
