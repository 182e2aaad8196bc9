"""The exceptions of allmem_edge. Each message is a sentence: what was wrong, where, and what to do."""

from __future__ import annotations

# What Python raises where a file that is being parsed is not what it should be.
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


class AllMemError(Exception):
    """Base of everything that allmem_edge raises on purpose."""


class InvalidArgumentError(AllMemError, ValueError):
    """The caller passed something that the function's contract excludes."""


class ModelNotFoundError(AllMemError):
    """A file, a directory or a model on the hub does not exist."""


class StorageError(AllMemError):
    """The system refused to read, write or map a file."""


class OutOfMemoryError(AllMemError, MemoryError):
    """A model or a session does not fit into memory."""


class ModelFormatError(AllMemError):
    """A file of the model is damaged or inconsistent."""


class UnsupportedModelError(AllMemError):
    """The model is well-formed, but needs something that this runtime does not have."""


class TokenizerError(AllMemError):
    """tokenizer.json is missing, damaged or inconsistent."""


class ChatTemplateError(AllMemError):
    """The model's chat template is missing, broken, or cannot be used for a streamed conversation."""


class MissingDependencyError(AllMemError):
    """An optional package is not installed; the message names the `pip install` that brings it."""


class CancelledError(AllMemError):
    """Stopped on request."""


class SnapshotError(AllMemError):
    """A saved memory is damaged, or belongs to another model or format; the session is unchanged."""


class ConflictError(AllMemError):
    """A saved memory was changed by somebody else since, or could not be loaded here; nothing was written."""


class SessionInUseError(AllMemError):
    """Another thread is using the session or the text: nothing was changed; try again, or use a clone."""


class PoisonedSessionError(AllMemError):
    """An earlier error left the session unusable until it is reset, wiped, undone or loaded."""
