"""The commands that need PyTorch import it here, late, and say in one sentence what is missing or wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from allmem_edge.errors import AllMemError, MissingDependencyError

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
    """Around allmem_export: a missing package and the package's own errors become sentences."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").split(".")[0]
        if name not in _PACKAGES:
            raise
        raise MissingDependencyError(
            f"This needs {name}, which is missing: pip install 'allmem-edge[export]'."
        ) from error
    except (AllMemError, OSError, click.ClickException):
        raise
    except Exception as error:
        # The package's exceptions are sentences for users; anything else is a bug and keeps its traceback.
        if type(error).__module__.split(".")[0] != "allmem_export":
            raise
        raise click.ClickException(str(error)) from error
