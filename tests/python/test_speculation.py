"""Drafts, from Python and the command line: the same text, and figures of what was drafted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tiny_model import VOCAB

import allmem_edge as ae

HIDDEN = 1 << 16  # so many that the weights are larger than a cache, below which nothing is drafted


@pytest.fixture(scope="module")
def looping(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in 8 bits whose next token depends on the last one alone: greedily it soon goes in a circle."""
    directory = tmp_path_factory.mktemp("looping") / "model"
    shutil.copytree(tiny_dir, directory)
    (directory / "model.onnx.data").unlink()
    rng = np.random.default_rng(4)
    weights: dict[str, NDArray[Any]] = {"embed": rng.normal(0, 1, (VOCAB, 64)).astype(np.float32)}
    nodes = [helper.make_node("Gather", ["embed", "input_ids"], ["x"])]
    for x, name, y, rows, cols in (("x", "up", "h", HIDDEN, 64), ("h", "down", "logits", VOCAB, HIDDEN)):
        weights[name] = rng.integers(0, 256, (rows, cols // 64, 64), dtype=np.uint8)
        weights[f"{name}.scales"] = np.full((rows, cols // 64), 1e-4, np.float32)
        nodes.append(
            helper.make_node(
                "MatMulNBits",
                [x, name, f"{name}.scales"],
                [y],
                domain="com.microsoft",
                K=cols,
                N=rows,
                bits=8,
                block_size=64,
            )
        )
    graph = helper.make_graph(
        nodes,
        "looping",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["T"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["T", VOCAB])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    facts = {"format": 1, "window": 8, "sinks": 0, "chunk": 4, "layers": 1, "vocab_size": VOCAB}
    helper.set_model_props(model, {f"allmem.{key}": str(value) for key, value in facts.items()})
    onnx.save(model, directory / "model.onnx")
    return directory


@pytest.mark.parametrize("temperature", [0.0, 0.01])
def test_drafts_change_neither_the_text_nor_the_session(looping: Path, temperature: float) -> None:
    model = ae.Model.load(looping)
    texts, snapshots, figures = set(), set(), {}
    for speculate in (True, False):
        session = model.session()
        text = session.generate(
            "Hello", temperature=temperature, seed=2, max_tokens=150, stop=["\0"], speculate=speculate
        )
        texts.add("".join(text))
        snapshots.add(session.snapshot())
        assert session.position == text.prompt_tokens + text.generated_tokens
        figures[speculate] = text.drafted_tokens, text.accepted_tokens
    assert len(texts) == len(snapshots) == 1
    assert figures[True][0] >= figures[True][1] > 20
    assert figures[False] == (0, 0)


def test_with_logprobs_a_text_is_read_token_by_token(looping: Path) -> None:
    model = ae.Model.load(looping)
    text = model.session().generate("Hello", temperature=0.0, max_tokens=60, logprobs=0)
    pieces = "".join(text)
    assert pieces == "".join(model.session().generate("Hello", temperature=0.0, max_tokens=60))
    assert text.drafted_tokens == 0
    assert len(text.take_tokens()) == text.generated_tokens


def test_in_exact_mode_and_with_small_models_nothing_is_drafted(looping: Path, tiny: ae.Model) -> None:
    for model in (ae.Model.load(looping, exact=True), tiny, ae.Model.load()):
        text = model.session().generate("a b c a b c a b c a b c", temperature=0.0, max_tokens=30)
        assert "".join(text)
        assert text.drafted_tokens == 0


def test_the_command_line_tells_what_was_drafted(looping: Path) -> None:
    results = []
    for flag in ("--speculate", "--no-speculate"):
        arguments = [
            "generate",
            str(looping),
            "--prompt",
            "Hello",
            "--temp",
            "0",
            "--max-tokens",
            "80",
            "--json",
        ]
        command = [sys.executable, "-m", "allmem_edge", *arguments, flag]
        results.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    drafted, plain = results
    assert drafted["text"] == plain["text"]
    assert drafted["drafted_tokens"] >= drafted["accepted_tokens"] > 10
    assert plain["drafted_tokens"] == plain["accepted_tokens"] == 0
