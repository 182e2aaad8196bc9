"""Files of weights, mapped: bytes are read when they are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from allmem_edge.errors import ModelNotFoundError, StorageError


def mapped(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file, none of an empty one. Raises ModelNotFoundError, StorageError."""
    try:
        return np.memmap(path, np.uint8, "r") if path.stat().st_size > 0 else np.empty(0, np.uint8)
    except (FileNotFoundError, ValueError) as error:  # a name that no file can have
        raise ModelNotFoundError(f"{path} is missing.") from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error
