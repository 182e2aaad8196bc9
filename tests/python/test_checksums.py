"""SHA256SUMS of a model directory: what is damaged, missing or left out is refused by name."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import allmem_edge as ae
from allmem_edge.checksums import CHECKSUMS, check_files, damaged_files, read_checksums, write_checksums
from allmem_edge.cli import run
from allmem_edge.hub import BUNDLED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the bundled model."""
    return Path(shutil.copytree(BUNDLED, tmp_path / "model"))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_the_bundled_models_checksums_are_right() -> None:
    assert sorted(check_files(BUNDLED)) == sorted(
        path.name for path in BUNDLED.iterdir() if path.name != CHECKSUMS
    )


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs coreutils")
def test_sha256sum_reads_them_too() -> None:
    subprocess.run(
        ["sha256sum", "--check", "--strict", CHECKSUMS], cwd=BUNDLED, check=True, capture_output=True
    )


def test_what_is_written_is_read_and_leaves_out_what_is_hidden(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "x y").write_bytes(b"1")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "z").write_bytes(b"2")
    write_checksums(folder)
    assert set(read_checksums(folder)) == {*read_checksums(BUNDLED), "sub/x y"}
    check_files(folder)


@pytest.mark.parametrize("name", sorted(read_checksums(BUNDLED)))
def test_a_flipped_bit_in_any_file_is_refused_by_name(folder: Path, name: str) -> None:
    flip(folder / name, (folder / name).stat().st_size // 2)
    assert list(damaged_files(folder)) == [name]
    with pytest.raises(ae.ModelFormatError, match=rf"{name} is not what SHA256SUMS says"):
        ae.Model.load(folder, check=True)


def test_a_missing_file_is_refused_by_name(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ae.ModelFormatError, match=r"lacks tokenizer_config\.json"):
        ae.Model.load(folder, check=True)


def test_a_model_without_checksums_is_checked_only_on_request(folder: Path) -> None:
    (folder / CHECKSUMS).unlink()
    ae.Model.load(folder)
    with pytest.raises(ae.ModelNotFoundError, match="no SHA256SUMS"):
        ae.Model.load(folder, check=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"abc  model.onnx\n",
        b"0" * 64 + b"  ../x\n",
        b"0" * 64 + b"  /etc/passwd\n",
        b"0" * 64 + b"  C:model.onnx\n",
        b"0" * 64 + b"  sub\\model.onnx\n",
        b"0" * 64 + b"  ./model.onnx\n",
        b"0" * 64 + b"  .//model.onnx\n",
        b"0" * 64 + b"  sub/\n",
        b"0" * 64 + b"  a\0b\n",
        2 * (b"0" * 64 + b"  model.onnx\n"),
        b"\0" * (2 << 20),
    ],
    ids=[
        *("empty", "no text", "short", "outside", "absolute", "drive", "backslash", "dot", "dots", "slash"),
        *("NUL", "twice", "huge"),
    ],
)
def test_a_list_that_is_none_is_a_sentence(folder: Path, content: bytes) -> None:
    (folder / CHECKSUMS).write_bytes(content)
    with pytest.raises(ae.ModelFormatError, match=CHECKSUMS):
        read_checksums(folder)


def test_a_name_that_the_system_refuses_is_a_sentence(folder: Path) -> None:
    (folder / CHECKSUMS).write_text("0" * 64 + f"  {'x' * 300}\n")
    with pytest.raises(ae.StorageError, match="cannot be read"):
        check_files(folder)


def damage_nothing(folder: Path) -> None:
    pass


def damage_weights(folder: Path) -> None:
    flip(folder / "model.onnx.data", 100_000)


def remove_list(folder: Path) -> None:
    (folder / CHECKSUMS).unlink()


@pytest.mark.parametrize(
    ("damage", "code"),
    [(damage_nothing, 0), (damage_weights, 1), (remove_list, 1)],
    ids=["whole", "damaged", "none"],
)
def test_verify_files(
    folder: Path, damage: Callable[[Path], None], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder)
    assert run(["verify", str(folder), "--files", "--json"]) == code
    out, err = capsys.readouterr()
    if code == 0:
        assert json.loads(out)["files"] == list(read_checksums(folder))
    else:
        assert out == "" and CHECKSUMS in err
