"""Finds a model: the bundled one, a directory, one of an adapter, or a repository on the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from allmem_edge.arguments import native_path
from allmem_edge.checksums import CHECKSUMS, damaged_files
from allmem_edge.errors import ModelFormatError, ModelNotFoundError, StorageError
from allmem_edge.files import SMALL_FILES

BUNDLED = Path(__file__).parent / "models" / "small"

# What a model directory holds (docs/format.md); nothing else of a repository is downloaded.
FILES = ["model.onnx", "model.onnx.data", *SMALL_FILES, CHECKSUMS]
_COMPLETE = [*FILES[:2], "tokenizer.json"]  # without these a download was cut short
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_model(source: str | bytes | os.PathLike[str] | None) -> Path:
    """The model directory (or .onnx file) that `source` means.

    None is the model inside the installed package. A string that is no path here may be the name of an
    adapter ("smollm2"), whose model is put together first if it is not in the cache, or a hub id
    ("org/name"): the local cache is asked first, then the network. Raises ModelNotFoundError, StorageError
    or, for what was fetched and is damaged, ModelFormatError.
    """
    if source is None:
        if not (BUNDLED / "model.onnx").is_file():
            raise ModelNotFoundError(
                f"This installation has no bundled model ({BUNDLED} is missing or incomplete): "
                "name a model directory or a hub id."
            )
        return BUNDLED
    if not isinstance(source, str):
        source = Path(os.fsdecode(native_path(source)))
    path = Path(source)
    try:
        if path.is_dir():
            if not (path / "model.onnx").is_file():
                raise ModelNotFoundError(
                    f"The directory {path} has no model.onnx, so it is not a model directory."
                )
            return path
        if path.is_file():
            return path
    except (OSError, ValueError) as error:  # a name too long, a NUL byte
        raise ModelNotFoundError(f"{str(source)!r} cannot be a path: {error}.") from error
    if isinstance(source, str):
        from allmem_edge.assembly.assemble import find_assembled

        if (assembled := find_assembled(source)) is not None:
            return assembled
        if _HUB_ID.fullmatch(source):
            return _from_hub(source)
    raise ModelNotFoundError(
        f"There is no model at {str(source)!r}: no such directory, and not a hub id (org/name)."
    )


def _from_hub(repo: str) -> Path:
    """The model files of `repo` in the local cache, downloaded if they are not there yet.

    They are kept as plain files, not as the hub cache's links: a model's data must lie in its own directory.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    local = Path(constants.HF_HOME) / "allmem-edge" / repo
    begun = local / ".download"  # there until a download has ended: files that are missing may be its
    if not begun.exists() and all((local / name).is_file() for name in _COMPLETE):
        return local
    try:
        local.mkdir(parents=True, exist_ok=True)
        begun.touch()
        snapshot_download(repo, allow_patterns=FILES, local_dir=local)
    except LocalEntryNotFoundError as error:
        raise ModelNotFoundError(
            f"There is no directory {repo!r}, and the hub model of that name is neither in the local cache "
            "nor can the hub be reached; check the name and the network."
        ) from error
    except HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelNotFoundError(
            f"There is no directory {repo!r}, and the hub refused the model of that name: {reason}"
        ) from error
    except OSError as error:
        raise StorageError(f"The hub model {repo!r} could not be downloaded or stored: {error}.") from error
    if not (local / "model.onnx").is_file():
        raise ModelNotFoundError(
            f"The hub repository {repo!r} has no model.onnx, so it is not an AllMem model."
        )
    _check(local)
    begun.unlink()
    return local


def _check(local: Path) -> None:
    """Refuses a download that is not what its makers wrote, and removes it, to be fetched anew."""
    if not (local / CHECKSUMS).is_file():
        return
    problems = damaged_files(local, needed=FILES)
    for name in problems:
        (local / name).unlink(missing_ok=True)
    for problem in problems.values():
        raise ModelFormatError(problem)
