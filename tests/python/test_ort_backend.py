"""The onnxruntime backend: the same API over the same file, and the same logits as the native runtime."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import CHUNK, VOCAB, rounding, write_tiny_model

import allmem_edge as ae

pytest.importorskip(
    "onnxscript", reason="the operators' bodies are written with onnxscript: allmem-edge[export]"
)
pytest.importorskip("onnxruntime")

IDS = [int(i) for i in np.random.default_rng(2).integers(0, VOCAB, 150)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("ort") / "tiny", functions=True)


@pytest.fixture(scope="module")
def ort(directory: Path) -> ae.Model:
    return ae.Model.load(directory, backend="onnxruntime")


@pytest.fixture(scope="module")
def native(directory: Path) -> ae.Model:
    return ae.Model.load(directory)


def test_it_tells_the_same_facts(ort: ae.Model, native: ae.Model) -> None:
    for fact in ("vocab_size", "window", "sinks", "chunk", "layers", "quantization"):
        assert getattr(ort.engine, fact) == getattr(native.engine, fact)
    shapes = [[(state.name, list(state.shape)) for state in model.engine.states] for model in (ort, native)]
    assert shapes[0] == shapes[1]


def test_the_logits_are_the_native_ones(ort: ae.Model, native: ae.Model) -> None:
    expected = native.session().forward(IDS)
    session = ort.session()
    parts = [session.forward(part) for part in np.split(np.array(IDS), [1, 6, 7, 140])]
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=rounding(expected), rtol=0)
    assert session.position == len(IDS)


def test_frozen_both_read_alike(ort: ae.Model, native: ae.Model) -> None:
    sessions = [model.session() for model in (ort, native)]
    for session in sessions:
        session.forward(IDS[:41])
        session.freeze()
    theirs, ours = (session.forward(IDS[41:]) for session in sessions)
    np.testing.assert_allclose(theirs, ours, atol=rounding(ours), rtol=0)


def test_both_tell_the_same_drift(ort: ae.Model, native: ae.Model) -> None:
    reports = []
    for model in (ort, native):
        session = model.session()
        session.forward(IDS, last_only=True)
        reports.append(session.inspect().layers[0])
    # As in rounding(): in either run about 20 operators lead to a chunk's gradient and its write, each off by
    # 2⁻²⁴ of what it makes, which is ||W_0|| in the drift's unit; and the chunks follow one another.
    bound = 2 * 20 * (len(IDS) // CHUNK) * 2.0**-24
    assert reports[0].drift == pytest.approx(reports[1].drift, rel=0, abs=bound)
    assert reports[0].momentum == pytest.approx(reports[1].momentum, rel=bound, abs=0)


def test_both_generate_the_same_text(ort: ae.Model, native: ae.Model) -> None:
    def write(model: ae.Model) -> str:
        return "".join(model.session().generate("Hello", max_tokens=20, temperature=0.8, top_k=5, seed=9))

    assert write(ort) == write(native)


def test_clone_and_reset_work_as_in_native(ort: ae.Model) -> None:
    session = ort.session()
    session.forward(IDS[:20])
    clone = session.clone()
    np.testing.assert_array_equal(session.forward(IDS[20:30]), clone.forward(IDS[20:30]))
    session.reset()
    assert session.position == 0


@pytest.mark.parametrize("bad", [[], [-1], [VOCAB], [[1]], [0.5]])
def test_bad_tokens_are_refused(ort: ae.Model, bad: object) -> None:
    session = ort.session()
    with pytest.raises(ae.InvalidArgumentError):
        session.forward(bad)  # type: ignore[arg-type]
    assert session.position == 0


def test_without_onnxruntime_the_error_names_the_install(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    with pytest.raises(ae.MissingDependencyError, match=r"pip install 'allmem-edge\[onnxruntime\]'"):
        ae.Model.load(directory, backend="onnxruntime")


def test_a_damaged_file_is_a_sentence(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes((directory / "model.onnx").read_bytes()[:-100])
    with pytest.raises((ae.ModelFormatError, ae.UnsupportedModelError)):
        ae.Model.load(tmp_path, backend="onnxruntime")
