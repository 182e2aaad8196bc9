"""SHA256SUMS: what the files of a model directory are, as `sha256sum -c` reads it too.

Written with the directory by whoever makes one; compared by `allmem-edge verify`, Model.load(check=True) and
the first load after a download. csrc/runtime/checksums.cpp reads the same file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from allmem_edge.errors import ModelFormatError, ModelNotFoundError, StorageError

CHECKSUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_LIMIT = 1 << 20  # bytes; a line is about a hundred
_BLOCK = 1 << 20


def write_checksums(folder: Path) -> None:
    """Writes SHA256SUMS for all files in `folder` but hidden ones: the last file of a model directory."""
    lines = [
        f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKSUMS and not _is_hidden(path.relative_to(folder))
    ]
    try:
        (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8", newline="\n")
    except OSError as error:
        raise StorageError(f"{folder / CHECKSUMS} cannot be written: {error.strerror or error}.") from error


def is_plain_name(name: str) -> bool:
    """Whether `name` is a file's name inside a directory on every system, "/" between its parts."""
    return not re.search(r"[\\:\0]", name) and not {"", ".", ".."}.intersection(name.split("/"))


def read_checksums(folder: Path) -> dict[str, str]:
    """Name and SHA-256 of each file. Raises ModelNotFoundError when the model came without checksums."""
    path = folder / CHECKSUMS
    try:
        with open(path, "rb") as file:
            content = file.read(_LIMIT + 1)
    except FileNotFoundError as error:
        raise ModelNotFoundError(
            f"{folder} has no {CHECKSUMS} to compare its files with: it was made before there were any, or "
            "the file was left behind; make or fetch the model again."
        ) from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error
    matches = [_LINE.fullmatch(line) for line in content.decode("utf-8", errors="replace").splitlines()]
    if len(content) > _LIMIT or not matches or None in matches:
        raise ModelFormatError(f"{path} is not a list of checksums; fetch the model again.")
    sums: dict[str, str] = {}
    for digest, name in (match.groups() for match in matches if match):
        if not is_plain_name(name):
            raise ModelFormatError(
                f"{path} names {name!r}, which is no plain path inside the model's directory; fetch the "
                "model again."
            )
        if name in sums:
            raise ModelFormatError(f"{path} names {name!r} twice; fetch the model again.")
        sums[name] = digest
    return sums


def damaged_files(folder: Path, *, needed: Iterable[str] | None = None) -> dict[str, str]:
    """Compares the files of a model directory with its SHA256SUMS: a sentence for each that is not right.

    Of those that are missing only the `needed` ones count (None: all). Raises ModelNotFoundError when there
    is no SHA256SUMS, ModelFormatError when it is none, StorageError.
    """
    sums = read_checksums(folder)
    must = set(sums if needed is None else needed)
    problems = {}
    for name, expected in sums.items():
        if not _is_file(folder / name):
            if name in must:
                problems[name] = (
                    f"The model in {folder} lacks {name}, which {CHECKSUMS} names: it was not copied or "
                    "downloaded to its end; fetch it again."
                )
        elif sha256_of(folder / name) != expected:
            problems[name] = (
                f"{folder / name} is not what {CHECKSUMS} says: it is damaged, or was changed after the "
                "model was made; fetch it again."
            )
    return problems


def check_files(folder: Path) -> list[str]:
    """Compares all files of a model directory with its SHA256SUMS, and returns their names.

    Raises ModelFormatError for one that is missing or differs, and what damaged_files() does.
    """
    for problem in damaged_files(folder).values():
        raise ModelFormatError(problem)
    return list(read_checksums(folder))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:  # a name too long, a directory that may not be searched
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content. Raises StorageError."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error
    return digest.hexdigest()


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
