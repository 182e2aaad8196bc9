"""One chat for a memory file at a time: what a second one was told would be lost to the first."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from types import TracebackType

from allmem_edge.errors import ConflictError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt


class MemoryLock:
    """Holds a memory file, which need not exist yet, until close() or the end of the process.

    By a lock on a file beside it, with links followed, so that a saved memory can be replaced meanwhile.
    Where a folder cannot be written or a disk knows no locks there is none, and saving alone finds out
    (Session.save).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises ConflictError when another process has it."""
        real = os.path.realpath(path)
        name = hashlib.sha256(os.fsencode(os.path.basename(real))).hexdigest()[:16]
        self._path = Path(real).with_name(f".allmem-{name}-open")
        self._file: int | None = None
        while self._file is None:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
            except OSError:
                return
            try:
                _lock(file)
            except BlockingIOError as error:
                owner = _read(file)
                os.close(file)
                raise ConflictError(
                    f"Another process{owner} is using the memory '{os.fspath(path)}'. Leave it first, or "
                    "name another file."
                ) from error
            except OSError:  # no locks here
                os.close(file)
                return
            if self._is_there(file):
                self._file = file
            else:  # who had it before has removed it
                os.close(file)
        with contextlib.suppress(OSError):  # a full disk; on Windows what is locked cannot be written
            os.ftruncate(self._file, 0)
            os.write(self._file, b"%d\n" % os.getpid())

    def close(self) -> None:
        """Lets go, and leaves nothing beside the memory."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):  # on Windows an open file cannot be removed: then after it
            self._path.unlink()
        os.close(self._file)
        self._file = None
        if not fcntl:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def __enter__(self) -> MemoryLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.stat(self._path))
        except OSError:
            return False


def _lock(file: int) -> None:
    if fcntl:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    try:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except PermissionError as error:
        raise BlockingIOError from error


def _read(file: int) -> str:
    """The owner's number, if it says so."""
    with contextlib.suppress(OSError):
        number = os.read(file, 20).strip()
        if number.isdigit():
            return f" ({number.decode()})"
    return ""
