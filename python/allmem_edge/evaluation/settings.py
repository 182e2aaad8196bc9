"""What a report says about how it came to be: all that somebody needs to repeat it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from allmem_edge import __version__
from allmem_edge.checksums import sha256_of
from allmem_edge.errors import ModelNotFoundError
from allmem_edge.model import Model, fingerprint


def settings_of(evaluation: str, model: Model, *, exact: bool, **more: Any) -> dict[str, Any]:
    """The model, what was chosen when it was loaded, and whatever else decides the results."""
    engine = model.engine
    return {
        "evaluation": evaluation,
        "version": __version__,
        "model": model.name,
        "fingerprint": fingerprint(model),
        "quantization": engine.quantization,
        "memory": engine.memory,
        "window": engine.window,
        "sinks": engine.sinks,
        "chunk": engine.chunk,
        "exact": exact,
        **more,
    }


def texts_of(paths: Iterable[Path]) -> list[dict[str, str]]:
    """What tells each of these files from others of its name. Raises ModelNotFoundError, StorageError."""
    found = []
    for path in paths:
        if not path.exists():
            raise ModelNotFoundError(f"There is no file {path}.")
        found.append({"name": path.name, "sha256": sha256_of(path)})
    return found
