"""`allmem-edge inspect FILE`: what a saved memory holds, as text, as JSON and as a picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from tiny_model import write_tiny_model

import allmem_edge as ae
from allmem_edge.errors import UnsupportedModelError


def inspect(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "allmem_edge", "inspect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def memory(tiny: ae.Model, tmp_path: Path) -> Path:
    """A chat of the tiny model, saved."""
    chat = tiny.chat(max_tokens=20, temperature=1.0, seed=1)
    for text in ("one", "two"):
        list(chat.send(text))
    chat.save(tmp_path / "me.allmem")
    return tmp_path / "me.allmem"


@pytest.mark.parametrize("exact", [False, True])
def test_the_report_is_what_the_session_says(tiny_dir: Path, tmp_path: Path, exact: bool) -> None:
    model = ae.Model.load(tiny_dir, exact=exact)
    session = model.session()
    session.forward(list(range(101)))
    session.save(tmp_path / "memory")
    done = inspect(tmp_path / "memory", "--model", tiny_dir, "--json")
    assert done.returncode == 0, done.stderr
    report, expected = json.loads(done.stdout), session.inspect()
    # The tiny model's weights are float32, and so it is exact however it is loaded.
    assert (report["tokens_seen"], report["exact"], report["unfinished"]) == (101, True, False)
    assert [layer["drift"] for layer in report["layers"]] == [layer.drift for layer in expected.layers]
    (layer,) = report["layers"]
    assert layer["drift"] > 0 and layer["momentum"] > 0
    parts = report["state_bytes"]
    assert parts["total"] == session.state_bytes == sum(parts.values()) - parts["total"]
    assert min(parts["window"], parts["fast_weights"], parts["momentum"], parts["gradient"]) > 0


def test_a_fast_session_tells_its_memory_though_it_keeps_it_in_8_bits() -> None:
    fast, exact = ae.Model.load(), ae.Model.load(exact=True)
    engine, start = fast.new_engine_session(1), exact.new_engine_session(1)
    names = [state.name for state in fast.engine.states]
    weights = [i for i, name in enumerate(names) if name.startswith("layers.0.memory.weight.")]
    for i in weights:
        np.testing.assert_array_equal(engine.state(i), start.state(i))
    engine.forward(np.arange(3 * fast.engine.chunk), last_only=True)
    moved = sum(np.square(engine.state(i) - start.state(i), dtype=np.float64).sum() for i in weights)
    layer = engine.layer_memories()[0]
    assert layer.drift > 0
    assert np.sqrt(moved) == pytest.approx(layer.drift * layer.weight, rel=1e-5)  # of differences in float32
    with pytest.raises(UnsupportedModelError, match="kept in 8 bits"):
        engine.state(names.index("layers.0.attention.keys.state"))
    bytes_of = {state.name: state.bytes for state in exact.engine.states}
    for state in fast.engine.states:
        if state.name.split(".")[3] in ("weight", "momentum", "gradient"):
            assert state.bytes * 64 == bytes_of[state.name] * 17  # 8 bits, and a scale for 64 numbers


def test_the_text_shows_every_layer(memory: Path, tiny_dir: Path) -> None:
    done = inspect(memory, "--model", tiny_dir)
    assert done.returncode == 0 and done.stderr == ""
    assert "tokens seen" in done.stdout and "fast weights" in done.stdout and "drift" in done.stdout


def test_the_picture_is_svg_with_a_bar_for_every_layer(memory: Path, tiny_dir: Path, tmp_path: Path) -> None:
    picture = tmp_path / "memory.svg"
    assert inspect(memory, "--model", tiny_dir, "--plot", picture).returncode == 0
    root = ElementTree.parse(picture).getroot()
    assert root.tag.endswith("svg")
    words = " ".join(text for element in root.iter() if (text := element.text))
    assert "me.allmem" in words and "tokens seen" in words and "momentum" in words
    rects = [e for e in root.iter() if e.tag.endswith("rect")]
    assert all(0 <= float(e.get("height", "nan")) <= 600 for e in rects)
    # Bars are wider than what the legend shows, and lie above the bar of the state's parts.
    bars = [e for e in rects if 20 < float(e.get("width", "nan")) < 100 and float(e.get("y", "nan")) < 500]
    assert [bar.get("fill") for bar in bars] == ["#2f6db3", "#d9822b", "#8fa7bf"]  # drift, last update, next


def test_the_memory_of_another_model_is_refused(memory: Path, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", seed=5)
    for options in ([], ["--model", str(other)]):  # without --model it is taken for the bundled one's
        done = inspect(memory, *options)
        assert done.returncode == 1 and done.stdout == ""
        assert "belongs to another model" in done.stderr and "Traceback" not in done.stderr


def test_damaged_files_and_bad_usage_are_sentences(memory: Path, tiny_dir: Path, tmp_path: Path) -> None:
    content = memory.read_bytes()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    cases: list[tuple[list[str | Path], int, str]] = [
        ([damaged], 1, "damaged"),
        ([memory, "--model", tiny_dir, "--plot", tmp_path / "none" / "x.svg"], 1, "cannot be written"),
        ([tiny_dir, "--plot", tmp_path / "x.svg"], 2, "saved memory"),
        ([tiny_dir, "--model", tiny_dir], 2, "saved memory"),
    ]
    for arguments, code, words in cases:
        done = inspect(*arguments)
        assert (done.returncode, done.stdout) == (code, "")
        assert words in done.stderr and "Traceback" not in done.stderr
