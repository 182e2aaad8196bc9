"""verify() passes what agrees, fails what does not, and says what it cannot compare."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
from allmem_edge.ort_backend import OrtModel, OrtSession
from allmem_export import verify as verify_module
from allmem_export.verify import VerifyError, VerifyRow, random_cuts, verify

PAIRS = ["PyTorch ↔ native", "PyTorch ↔ onnxruntime", "native ↔ onnxruntime"]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime in the native runtime's place: these tests are about the comparison."""
    monkeypatch.setattr(verify_module, "_native_forward", lambda d: OrtSession(OrtModel(d), 1).forward)


@pytest.mark.parametrize("name", tiny.names())
def test_all_implementations_agree_over_many_chunks(name: str, exported: Callable[..., Any]) -> None:
    pytest.importorskip("allmem_edge._core")
    checkpoint, _, directory = exported(name)
    report = verify(directory, checkpoint=checkpoint, tokens=600)
    assert report.ok, report.rows
    assert [row.name for row in report.rows] == PAIRS


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize(
    "name", tiny.names("base", "llama_some_memories_maps", "qwen2_maps", "linear_some_memories_maps_dynamic")
)
def test_all_implementations_agree_on_quantised_weights(
    name: str, mode: str, exported: Callable[..., Any]
) -> None:
    pytest.importorskip("allmem_edge._core")
    checkpoint, _, directory = exported(name, mode)
    report = verify(directory, checkpoint=checkpoint, tokens=600)
    assert report.ok, report.rows
    assert report.quantization == mode


@pytest.mark.usefixtures("stand_in")
def test_without_a_checkpoint_only_the_runtimes_are_compared(exported: Callable[..., Any]) -> None:
    report = verify(exported("base").directory, tokens=60)
    assert [row.name for row in report.rows] == PAIRS[2:]
    assert report.ok


@pytest.mark.usefixtures("stand_in")
def test_the_checkpoint_of_another_model_is_told_from_the_files_own(
    exported: Callable[..., Any], tmp_path: Path
) -> None:
    tiny.save_checkpoint(tmp_path / "other", seed=1)
    report = verify(exported("base").directory, checkpoint=tmp_path / "other", tokens=60)
    assert [row.ok for row in report.rows] == [False, False, True]
    assert not report.ok


@pytest.mark.usefixtures("stand_in")
def test_a_single_token_can_be_verified(exported: Callable[..., Any]) -> None:
    assert verify(exported("base").directory, tokens=1).ok


def test_nan_is_not_ok() -> None:
    assert not VerifyRow("a ↔ b", float("nan"), 1.0).ok
    assert not VerifyRow("a ↔ b", 1.5, 1.0).ok
    assert VerifyRow("a ↔ b", 1.0, 1.0).ok


def test_a_native_runtime_that_is_not_built_is_an_error_that_says_so(
    exported: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without_native(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if name == "allmem_edge" and "Model" in (fromlist or ()):
            raise ImportError("no _core")
        return real(name, globals, locals, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", without_native)
    with pytest.raises(VerifyError, match=r"native runtime is not built.*pip install"):
        verify(exported("base").directory, tokens=3)


def test_no_tokens_is_an_error(exported: Callable[..., Any]) -> None:
    with pytest.raises(VerifyError, match="at least 1"):
        verify(exported("base").directory, tokens=0)


@pytest.mark.parametrize("tokens", [1, 2, 3, 600])
def test_cuts_cover_the_stream_once(tokens: int) -> None:
    for seed in range(20):
        cuts = random_cuts(tokens, np.random.default_rng(seed))
        assert [t for start, stop in cuts for t in range(start, stop)] == list(range(tokens))
        assert all(start < stop for start, stop in cuts)
