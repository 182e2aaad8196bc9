"""Window, sinks, chunk and the use of the memory, chosen when a model is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import CHUNK, SINKS, WINDOW

import allmem_edge as ae
from allmem_edge.cost import Cost, Shape
from allmem_edge.errors import InvalidArgumentError, SnapshotError

IDS = [int(i) for i in np.random.default_rng(0).integers(0, 256, 90)]


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "allmem_edge", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120, check=False)


def test_a_models_facts_are_those_chosen(tiny_dir: Path) -> None:
    own = ae.Model.load(tiny_dir).engine
    assert (own.window, own.sinks, own.chunk, own.memory) == (WINDOW, SINKS, CHUNK, "on")
    model = ae.Model.load(tiny_dir, window=20, sinks=0, chunk=10).engine
    assert (model.window, model.sinks, model.chunk) == (20, 0, 10)
    off = ae.Model.load(tiny_dir, memory="off").engine
    assert off.chunk == 0
    assert [state.name.split(".")[2] for state in off.states] == ["attention", "attention"]
    frozen = ae.Model.load(tiny_dir, memory="frozen").engine
    assert off.state_bytes < frozen.state_bytes < own.state_bytes
    assert off.weight_bytes < own.weight_bytes == frozen.weight_bytes


def test_a_frozen_model_reads_as_a_frozen_session(tiny_dir: Path) -> None:
    session = ae.Model.load(tiny_dir).session(1)
    session.freeze()
    model = ae.Model.load(tiny_dir, memory="frozen")
    frozen = model.session(1)
    np.testing.assert_array_equal(session.forward(IDS), frozen.forward(IDS))
    assert frozen.frozen
    with pytest.raises(InvalidArgumentError, match="frozen"):
        frozen.freeze(False)
    (layer,) = frozen.inspect().layers
    assert layer.momentum == layer.gradient == layer.drift == 0
    engine = model.new_engine_session(1)
    for i, state in enumerate(model.engine.states):
        assert engine.state(i).shape == tuple(state.shape)


def test_pieces_take_the_same_choices(tiny_dir: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_dir.iterdir()}
    choices: dict[str, Any] = {"window": 5, "sinks": 1, "memory": "off"}
    pieces = ae.Model.load_memory(files, **choices).session(1).forward(IDS)
    np.testing.assert_array_equal(pieces, ae.Model.load(tiny_dir, **choices).session(1).forward(IDS))


@pytest.mark.parametrize(
    "choices",
    [
        {"window": 0},
        {"window": 2**20 + 1},
        {"window": 2**70},
        {"window": True},
        {"window": "8"},
        {"window": 4.0},
        {"sinks": -1},
        {"chunk": 0},
        {"chunk": 9},
        {"window": 3},
        {"memory": "of"},
        {"memory": None},
        {"memory": "off", "chunk": 2},
        {"backend": "onnxruntime", "window": 8},
        {"backend": "onnxruntime", "memory": "off"},
    ],
)
def test_what_a_model_does_not_allow_is_refused(choices: dict[str, Any], tiny_dir: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"\.$"):
        ae.Model.load(tiny_dir, **choices)


def test_a_saved_memory_belongs_to_the_choices_and_says_so(tiny_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "memory"
    small = ae.Model.load(tiny_dir, window=6, sinks=1, chunk=3).session(1)
    small.forward(IDS)
    small.save(file)
    with pytest.raises(SnapshotError, match="window 6, sinks 1, chunk 3, memory on"):
        ae.Model.load(tiny_dir).session(1).load(file)
    same = ae.Model.load(tiny_dir, window=6, sinks=1, chunk=3).session(1)
    same.load(file)
    np.testing.assert_array_equal(same.forward(IDS), small.forward(IDS))
    inspected = run("inspect", file, "--model", tiny_dir, "--json")
    assert inspected.returncode == 0, inspected.stderr
    assert json.loads(inspected.stdout)["chosen"] == "window 6, sinks 1, chunk 3, memory on"


def test_the_commands_take_them(tiny_dir: Path, tmp_path: Path) -> None:
    chosen = ["--window", "6", "--sinks", "1", "--chunk", "3"]
    bench = run("bench", tiny_dir, *chosen, "--prompt", "8", "--gen", "4", "--depth", "0", "--json")
    assert bench.returncode == 0, bench.stderr
    report = json.loads(bench.stdout)
    assert (report["window"], report["sinks"], report["chunk"], report["memory"]) == (6, 1, 3, "on")
    generated = run("generate", tiny_dir, "--prompt", "Hello", "--max-tokens", "4", "--no-memory")
    assert generated.returncode == 0, generated.stderr
    memory = tmp_path / "memory"
    assert (
        run("chat", tiny_dir, "--memory", memory, *chosen, "--max-tokens", "4", stdin=b"Hi\n").returncode == 0
    )
    again = run("chat", tiny_dir, "--memory", memory, "--max-tokens", "4", stdin=b"Hi\n")
    assert again.returncode == 1
    assert b"window 6, sinks 1, chunk 3, memory on" in again.stderr
    recall = run("eval", "recall", tiny_dir, "--frozen", "--distance", "40", "--questions", "2", "--json")
    assert json.loads(recall.stdout)["results"][0]["memory"] == "frozen"


def test_a_wrong_choice_is_bad_usage(tiny_dir: Path) -> None:
    result = run("generate", tiny_dir, "--prompt", "Hello", "--window", "0")
    assert result.returncode == 2
    assert b"1 to 1048576" in result.stderr


def test_a_memory_that_is_off_costs_nothing_and_a_frozen_one_only_its_reading() -> None:
    shape = Shape(2, 8, 12, 4, 2, 4, 32, 6, 2, 4, 8)
    on, frozen, off = (Cost(shape, 0, exact=True, memory_use=use) for use in ("on", "frozen", "off"))
    assert off.memory(9, 3, together=False).operations == 0
    assert 0 < frozen.memory(9, 3, together=False).operations < on.memory(9, 3, together=False).operations
