"""Directories of a cache: each appears complete or not at all, and one process at a time makes it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from allmem_edge.errors import StorageError

_ASIDE = "old"  # what is replaced, in a partial folder of its own, until its successor is in its place


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place if the block succeeds, and is removed if it does not.

    Its bytes are on the disk by then: a power cut leaves no names of empty files either.

    Raises StorageError; `out` is then what it was before.
    """
    partial = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(out)
        yield partial
        partial.chmod(0o755)  # mkdtemp's directory is private
        for path in (*partial.rglob("*"), partial):
            _to_disk(path)
        if out.exists():
            _replace(out, partial)
        else:
            partial.replace(out)
        _to_disk(out.parent)
    except OSError as error:
        raise _cannot_be_written(out, error) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """One process at a time makes `out`; what a killed one left behind is put back or removed."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with open(out.parent / f".{out.name}.lock", "w") as lock:
            if _lock(lock):
                _tidy(out)
            yield
    except OSError as error:
        raise _cannot_be_written(out, error) from error


def recover(out: Path) -> None:
    """Puts `out` back where a process was killed between moving it aside and putting another in its place.

    locked() does so, too; this is for who only wants to read. Raises StorageError.
    """
    if not out.exists() and any(out.parent.glob(f"{_prefix(out)}*/{_ASIDE}")):
        with locked(out):
            pass


def _to_disk(path: Path) -> None:
    """What the system still holds of a file, or of a directory's names where a directory can be opened."""
    if path.is_dir():
        with suppress(OSError):
            _sync(path, os.O_RDONLY)
    else:
        _sync(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)


def _sync(path: Path, mode: int) -> None:
    descriptor = os.open(path, mode)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prefix(out: Path) -> str:
    return f".{out.name}.partial-"


def _partial(out: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=out.parent, prefix=_prefix(out)))


def _replace(out: Path, partial: Path) -> None:
    """Swaps the two; `out` is what it was before if that fails."""
    folder = _partial(out)
    aside = folder / _ASIDE
    try:
        out.replace(aside)
        partial.replace(out)
        with suppress(OSError):
            aside.replace(partial)  # where _tidy() does not take it for one to put back
    finally:
        if not out.exists():
            aside.replace(out)
        shutil.rmtree(folder, ignore_errors=True)


def _tidy(out: Path) -> None:
    for left in out.parent.glob(f"{_prefix(out)}*"):
        if not out.exists() and (left / _ASIDE).is_dir():
            (left / _ASIDE).replace(out)
        shutil.rmtree(left, ignore_errors=True)


def _lock(file: IO[str]) -> bool:
    """Waits for the lock. False where there are none: then two at a time do the work twice."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
    except (ImportError, OSError):  # Windows; a disk without locks
        return False
    return True


def _cannot_be_written(out: Path, error: OSError) -> StorageError:
    return StorageError(f"{out} cannot be written: {error.strerror or error}.")
