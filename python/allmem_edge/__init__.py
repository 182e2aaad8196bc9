"""Chat with models that learn while they read: AllMem on phones and laptops.

    import allmem_edge as ae

    model = ae.Model.load()
    chat = model.chat()
    for piece in chat.send("My code is 4711."):
        print(piece, end="")

The names below are imported on first use, so that `allmem_edge.dialogues` and `--help` start at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from allmem_edge.errors import (
    AllMemError,
    CancelledError,
    ChatTemplateError,
    ConflictError,
    InvalidArgumentError,
    MissingDependencyError,
    ModelFormatError,
    ModelNotFoundError,
    OutOfMemoryError,
    PoisonedSessionError,
    SessionInUseError,
    SnapshotError,
    StorageError,
    TokenizerError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from allmem_edge.batch import Batch
    from allmem_edge.chat import Chat
    from allmem_edge.model import Model
    from allmem_edge.session import Session, delete_memory

__version__ = "0.2.0"

__all__ = [
    "AllMemError",
    "Batch",
    "CancelledError",
    "Chat",
    "ChatTemplateError",
    "ConflictError",
    "InvalidArgumentError",
    "MissingDependencyError",
    "Model",
    "ModelFormatError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "PoisonedSessionError",
    "Session",
    "SessionInUseError",
    "SnapshotError",
    "StorageError",
    "TokenizerError",
    "UnsupportedModelError",
    "__version__",
    "delete_memory",
]

_LAZY = {
    "Batch": "allmem_edge.batch",
    "Chat": "allmem_edge.chat",
    "Model": "allmem_edge.model",
    "Session": "allmem_edge.session",
    "delete_memory": "allmem_edge.session",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
