"""Results that outlive a killed run: a file with a line of JSON for each of them, written as they come."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TextIO

from allmem_edge.errors import ModelNotFoundError, StorageError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


class Journal:
    """Results by key. The first line of the file has the settings, which a run that goes on must share."""

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        """path: None keeps results in memory only. Raises StorageError for a file that is no such journal."""
        self._path = path
        self._settings = json.loads(json.dumps(settings))  # as it comes back
        self._results: dict[str, Any] = {}
        self._file: TextIO | None = None
        if path is None:
            return
        try:
            self._file = path.open("a", encoding="utf-8")
            _lock(self._file, path)  # before anything is read: another run may be in the middle of a line
            self._read(path)
            if path.stat().st_size == 0:
                self._write(self._first)
        except (OSError, UnicodeDecodeError) as error:
            self.close()
            raise StorageError(f"The results cannot be saved to {path}: {error}.") from error
        except StorageError:
            self.close()
            raise

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def __getitem__(self, key: str) -> Any:
        return self._results[key]

    def __len__(self) -> int:
        return len(self._results)

    def put(self, key: str, result: Any) -> None:
        """Keeps a result, on disk before this returns."""
        self._results[key] = result
        if self._file is not None:
            self._write({"key": key, "result": result})

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def _first(self) -> dict[str, Any]:
        return {"settings": self._settings}

    def _write(self, record: dict[str, Any]) -> None:
        assert self._file is not None
        try:
            self._file.write(_line(record) + "\n")
            self._file.flush()
        except OSError as error:
            raise StorageError(
                f"The results cannot be saved to {self._path}: {error.strerror}. What is there stays."
            ) from error

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                record = json.loads(line)
                if number == 1:
                    self._check(record["settings"])
                else:
                    self._results[record["key"]] = record["result"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise _no_result(path, number) from error
        first = _line(self._first).encode()
        if whole == 0 and not first.startswith(data):  # a text of somebody's, in one line
            raise _no_result(path, 1)
        if whole < len(data):  # killed in the middle of a line
            os.truncate(path, whole)

    def _check(self, settings: dict[str, Any]) -> None:
        for name in self._settings | settings:
            ours, theirs = self._settings.get(name), settings.get(name)
            if ours != theirs:
                raise StorageError(
                    f"{self._path} holds results with {name} {theirs!r}, not {ours!r}: go on with the same "
                    "settings, or name another file."
                )


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=True)


def _no_result(path: Path, line: int) -> StorageError:
    return StorageError(f"{path}, line {line}: not a result of `allmem-edge eval`; name another file.")


def _lock(file: TextIO, path: Path) -> None:
    """Until `file` is closed. Raises StorageError if another run has it."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StorageError(
            f"Another run is writing its results to {path}: wait for it, or name another file."
        ) from error


def lines_of(path: Path, most: int = 256 << 20) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file, each with its line's number.

    Raises ModelNotFoundError for no such file, and StorageError with the line for anything that is not one
    JSON object a line, or a line of more than `most` bytes.
    """
    if not path.is_file():
        raise ModelNotFoundError(f"There is no file {path}.")
    found = []
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(most + 1):
                number += 1
                if len(line) > most:
                    raise StorageError(
                        f"{path}, line {number}: longer than {most >> 20} MiB, which no sample is."
                    )
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise StorageError(f"{path}, line {number}: not valid JSON ({error}).") from error
                if not isinstance(record, dict):
                    raise StorageError(f"{path}, line {number}: not a JSON object.")
                found.append((number, record))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
    if not found:
        raise StorageError(f"{path}: there is no sample in it.")
    return found
