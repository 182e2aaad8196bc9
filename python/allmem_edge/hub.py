"""Finds a model: the bundled one, a directory, one of an adapter, or a repository on the Hugging Face hub."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from allmem_edge.appearing import appearing, locked, recover
from allmem_edge.arguments import native_path
from allmem_edge.checksums import CHECKSUMS, damaged_files
from allmem_edge.errors import ModelFormatError, ModelNotFoundError, StorageError
from allmem_edge.files import SMALL_FILES

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

BUNDLED = Path(__file__).parent / "models" / "small"

# What a model directory holds (docs/format.md); nothing else of a repository is downloaded.
FILES = ["model.onnx", "model.onnx.data", *SMALL_FILES, CHECKSUMS]
_COMPLETE = [*FILES[:2], "tokenizer.json"]  # without these a download was cut short
_BEGUN = ".download"  # left by earlier versions where one was
_REVISION = ".revision"  # the commit that the files in the cache are of
_PATIENCE = 2.0  # seconds to wait for the hub's answer where a model is in the cache
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_model(source: str | bytes | os.PathLike[str] | None) -> Path:
    """The model directory (or .onnx file) that `source` means.

    None is the model inside the installed package. A string that is no path here may be the name of an
    adapter ("smollm2"), whose model is put together first if it is not in the cache, or a hub id
    ("org/name"): its newest revision if the hub answers, else what the local cache has. Raises
    ModelNotFoundError, StorageError or, for what was fetched and is damaged, ModelFormatError.
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
    from allmem_edge.assembly.adapter import packaged

    raise ModelNotFoundError(
        f"There is no model at {str(source)!r}: no such directory, no adapter ({', '.join(packaged())}) and "
        "not a hub id (org/name)."
    )


def _from_hub(repo: str) -> Path:
    """The model files of `repo` in the local cache: of its newest revision, where the hub answers.

    They are kept as plain files, not as the hub cache's links: a model's data must lie in its own directory.
    Another revision takes the place of the one that is there when it is whole.
    """
    from huggingface_hub import constants, model_info
    from huggingface_hub.errors import HfHubHTTPError

    local = Path(constants.HF_HOME) / "allmem-edge" / repo
    recover(local)
    whole = _is_whole(local)
    try:
        newest = model_info(repo, timeout=_PATIENCE if whole else None)
    except Exception as error:  # whatever the transport raises, and being offline on purpose
        if whole:
            return local
        if isinstance(error, HfHubHTTPError):
            raise _refused(repo, error) from error
        raise _unreachable(repo) from error
    if _is_newest(local, newest):
        return local
    try:
        _fetch(repo, newest, local)
    except (ModelNotFoundError, ModelFormatError, StorageError) as error:
        if not whole:
            raise
        warnings.warn(f"{error} Its revision in the cache is used, which is older.", stacklevel=2)
    return local


def _fetch(repo: str, newest: ModelInfo, local: Path) -> None:
    """Downloads a revision into the hub's cache, checks it, and makes it the content of `local`."""
    there = {file.rfilename for file in newest.siblings or ()}
    if "model.onnx" not in there:
        raise ModelNotFoundError(
            f"The hub repository {repo!r} has no model.onnx, so it is not an AllMem model."
        )
    names = [name for name in FILES if name in there]
    with locked(local):
        if _is_newest(local, newest):  # another process has fetched it meanwhile
            return
        snapshot = _download(repo, newest, names)
        with appearing(local) as fresh:
            for name in names:
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                _link((snapshot / name).resolve(), fresh / name)
            _check(fresh, snapshot)
            (fresh / _REVISION).write_text(newest.sha or "")


def _is_whole(local: Path) -> bool:
    return all((local / name).is_file() for name in _COMPLETE) and not (local / _BEGUN).exists()


def _is_newest(local: Path, newest: ModelInfo) -> bool:
    revision = local / _REVISION
    return _is_whole(local) and revision.is_file() and revision.read_text() == newest.sha


def _download(repo: str, newest: ModelInfo, names: list[str]) -> Path:
    """The directory of a revision in the hub's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot = Path(snapshot_download(repo, revision=newest.sha, allow_patterns=FILES))
    except LocalEntryNotFoundError as error:
        raise _unreachable(repo) from error
    except HfHubHTTPError as error:
        raise _refused(repo, error) from error
    except Exception as error:  # a full disk, whatever the transport raises
        raise StorageError(f"The hub model {repo!r} could not be downloaded or stored: {error}.") from error
    if not all((snapshot / name).is_file() for name in names):  # what it gives when the network goes away
        raise _unreachable(repo)
    return snapshot


def _unreachable(repo: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"There is no directory {repo!r}, and the hub model of that name is neither in the local cache "
        "nor can the hub be reached; check the name and the network."
    )


def _refused(repo: str, error: Exception) -> ModelNotFoundError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelNotFoundError(
        f"There is no directory {repo!r}, and the hub refused the model of that name: {reason}"
    )


def _link(source: Path, target: Path) -> None:
    """Another name of the file, or a copy where the system has no such names."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _check(fresh: Path, snapshot: Path) -> None:
    """Refuses a download that is not what its makers wrote, and removes it, to be fetched anew."""
    if not (fresh / CHECKSUMS).is_file():
        return
    problems = damaged_files(fresh, needed=FILES)
    for name in problems.keys() & set(FILES):
        (snapshot / name).resolve().unlink(missing_ok=True)
        (snapshot / name).unlink(missing_ok=True)
    for problem in problems.values():
        raise ModelFormatError(problem)
