"""The shipped model against its own checkpoint: what quantising and 8-bit arithmetic may cost."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import allmem_edge as ae
from allmem_edge.cli.perplexity import held_out_dialogues, token_losses, tokens_of
from allmem_edge.hub import BUNDLED
from allmem_export.export import export
from allmem_export.quantize import dequantized_weights

pytestmark = pytest.mark.xdist_group("bundled_export")
CHECKPOINT = Path(__file__).parents[2] / "export" / "checkpoints" / "bundled"


def perplexity(path: Path, *, exact: bool = False) -> float:
    """Of what the assistant says in ten dialogues, 26,000 tokens in all."""
    model = ae.Model.load(path, exact=exact)
    losses = []
    for dialogue in held_out_dialogues(1, 10, 100):
        ids, parts = tokens_of(model, dialogue)
        losses.append(token_losses(model.session(threads=1), ids)[parts["assistant"]])
    return math.exp(np.concatenate(losses).mean())


@pytest.fixture(scope="module")
def float32(tmp_path_factory: pytest.TempPathFactory) -> float:
    out = tmp_path_factory.mktemp("bundled") / "none"
    export(CHECKPOINT, out)
    return perplexity(out)


@pytest.mark.slow
def test_the_bundled_models_perplexity_is_within_one_percent_of_float32s(float32: float) -> None:
    assert perplexity(BUNDLED) <= 1.01 * float32


@pytest.mark.slow
def test_so_is_that_of_its_checkpoint_in_four_bits(float32: float, tmp_path: Path) -> None:
    export(CHECKPOINT, tmp_path / "model", quantize="int4")
    assert perplexity(tmp_path / "model") <= 1.01 * float32


@pytest.mark.slow
def test_the_bundled_model_is_the_export_of_its_checkpoint(tmp_path: Path) -> None:
    export(CHECKPOINT, tmp_path / "model", quantize="int8")
    shipped, made = (dict(dequantized_weights(path / "model.onnx")) for path in (BUNDLED, tmp_path / "model"))
    assert shipped.keys() == made.keys()
    for name, weight in made.items():
        np.testing.assert_array_equal(shipped[name], weight, err_msg=name)
