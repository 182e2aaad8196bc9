"""The commands that need PyTorch import it here, late, and say in one sentence what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from allmem_edge.cli import console
from allmem_edge.errors import MissingDependencyError

_PACKAGES = {
    "accelerate",
    "allmem_export",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "safetensors",
    "tokenizers",
    "tomli",
    "torch",
    "transformers",
}


@contextmanager
def export_package() -> Iterator[None]:
    """Around allmem_export: a missing package becomes a sentence; no progress bars unless somebody looks."""
    try:
        import torch  # noqa: F401  # before transformers, which prints that it is missing
        from transformers.utils import logging

        if not console.stderr().is_terminal:
            logging.disable_progress_bar()
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").split(".")[0]
        if name not in _PACKAGES:
            raise
        raise MissingDependencyError(
            f"This needs {name}, which is missing: pip install 'allmem-edge[export]'."
        ) from error
