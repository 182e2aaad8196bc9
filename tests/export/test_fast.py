"""The native runtime's two kinds of arithmetic on quantised weights: exact as onnxruntime, or fast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import allmem_edge as ae
from allmem_edge.ort_backend import OrtModel, OrtSession
from allmem_export.verify import TOLERANCE

IDS = np.random.default_rng(1).integers(0, 384, 200)


@pytest.mark.parametrize("mode", ["int8", "int4"])
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
    assert np.square(fast - exact).mean() < np.square(exact - unquantised).mean()


def test_without_quantised_weights_fast_is_exact(exported: Callable[..., Any]) -> None:
    directory = exported("base").directory
    exact, fast = (ae.Model.load(directory, exact=e).session().forward(IDS) for e in (True, False))
    np.testing.assert_array_equal(exact, fast)
