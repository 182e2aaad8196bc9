"""The cache of assembled models: each is made once, and whatever stops that leaves nothing half made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import allmem_edge as ae
from adapters import change_manifest
from allmem_edge.assembly import assemble as assemble_module
from allmem_edge.assembly.adapter import MANIFEST
from allmem_edge.assembly.assemble import cached_path, pull
from allmem_edge.checksums import check_files
from allmem_edge.errors import ModelFormatError, ModelNotFoundError, StorageError

pytestmark = pytest.mark.xdist_group("adapters")


def test_a_model_in_the_cache_is_not_put_together_again_until_the_adapter_changes(
    copied: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = copied
    made = []
    write = assemble_module.write_weights
    monkeypatch.setattr(
        assemble_module, "write_weights", lambda *arguments: made.append(1) or write(*arguments)
    )
    pull(adapter, base=base)
    pull(adapter, base=base)
    assert len(made) == 1
    change_manifest(adapter, about=["Better."])
    out = pull(adapter, base=base)
    assert len(made) == 2 and ae.Model.load(out).about == ["Better."]
    assert sorted(path.name for path in out.parent.iterdir()) == [".tiny.lock", "tiny"]


def test_a_failed_pull_leaves_the_model_that_was_there(copied: tuple[Path, Path]) -> None:
    base, adapter = copied
    before = (pull(adapter, base=base) / "model.onnx.data").read_bytes()
    change_manifest(adapter, results={"int8": "0" * 64})
    with pytest.raises(ModelFormatError):
        pull(adapter, base=base)
    assert (cached_path("tiny") / "model.onnx.data").read_bytes() == before
    check_files(cached_path("tiny"))


def test_killed_in_the_middle_nothing_half_written_is_there_and_the_next_pull_cleans_up(
    made: tuple[Path, Path], cache: Path
) -> None:
    base, adapter = made
    code = (
        "import os, time\nfrom pathlib import Path\n"
        "from allmem_edge.assembly.assemble import pull\n"
        "def report(step, done):\n"
        "    if step.startswith('putting') and done > 0.5:\n"
        "        print('half', flush=True); time.sleep(600)\n"
        f"pull({str(adapter)!r}, base=Path({str(base)!r}), progress=report)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    process.kill()
    process.wait()
    names = {path.name for path in (cache / "allmem-edge" / "models").iterdir()}
    assert "tiny" not in names and any(name.startswith(".tiny.partial-") for name in names)
    with pytest.raises(ModelNotFoundError):
        ae.Model.load("tiny")
    pull(adapter, base=base)
    check_files(cached_path("tiny"))
    assert {p.name for p in (cache / "allmem-edge" / "models").iterdir()} == {"tiny", ".tiny.lock"}


def test_a_model_that_cannot_take_its_place_leaves_the_one_that_was_there(
    copied: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = copied
    out = pull(adapter, base=base)
    before = (out / MANIFEST).read_bytes()
    change_manifest(adapter, about=["Better."])
    replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target == out and self.name != "old":
            raise OSError(5, "Input/output error")
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", refuse)
        with pytest.raises(StorageError, match="Input/output error"):
            pull(adapter, base=base)
    assert (out / MANIFEST).read_bytes() == before
    check_files(out)
    assert sorted(path.name for path in out.parent.iterdir()) == [".tiny.lock", "tiny"]


@pytest.mark.parametrize("reader", ["load", "pull"])
def test_killed_between_moving_the_old_model_away_and_the_new_one_in_the_old_one_is_put_back(
    copied: tuple[Path, Path], reader: str
) -> None:
    base, adapter = copied
    out = pull(adapter, base=base)
    change_manifest(adapter, about=["Better."])
    code = (
        "import os\nfrom pathlib import Path\n"
        "from allmem_edge.assembly.assemble import cached_path, pull\n"
        "replace = Path.replace\n"
        "def kill(self, target):\n"
        "    os._exit(9) if target == cached_path('tiny') else replace(self, target)\n"
        "Path.replace = kill\n"
        f"pull({str(adapter)!r}, base=Path({str(base)!r}))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert not out.exists()
    if reader == "load":
        assert ae.Model.load("tiny").about != ["Better."]
    else:
        with pytest.raises(ModelNotFoundError):
            pull(adapter, base=base / "nowhere")
    check_files(out)
    assert sorted(path.name for path in out.parent.iterdir()) == [".tiny.lock", "tiny"]


def test_without_locks_a_model_is_made_all_the_same(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    check_files(pull(made[1], base=made[0]))


def test_interrupted_pull_leaves_nothing(made: tuple[Path, Path], cache: Path) -> None:
    def interrupt(step: str, done: float) -> None:
        if done > 0.5:
            raise KeyboardInterrupt

    base, adapter = made
    with pytest.raises(KeyboardInterrupt):
        pull(adapter, base=base, progress=interrupt)
    assert [path.name for path in (cache / "allmem-edge" / "models").iterdir()] == [".tiny.lock"]


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    made: tuple[Path, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assemble_module, "write_data", full)
    with pytest.raises(StorageError, match="cannot be written: No space left on device"):
        pull(made[1], base=made[0])
    assert [path.name for path in (cache / "allmem-edge" / "models").iterdir()] == [".tiny.lock"]


def test_two_pulls_at_once_make_one_model(made: tuple[Path, Path]) -> None:
    base, adapter = made
    command = [sys.executable, "-m", "allmem_edge", "pull", str(adapter), "--base", str(base)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == [str(cached_path("tiny"))] * 2
    check_files(cached_path("tiny"))


def test_without_a_home_directory_the_error_says_what_to_set(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(StorageError, match="set XDG_CACHE_HOME"):
        pull(made[1], base=made[0])
