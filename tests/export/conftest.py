"""Threads and models of the export tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from filelock import FileLock

import tiny
from allmem_export.export import Quantization, export
from allmem_export.modeling import AllMemForCausalLM


def pytest_configure() -> None:
    torch.set_num_threads(1)  # the tensors are too small to share out


class Exported(NamedTuple):
    """A checkpoint of tiny.CONFIGS, its model, and what the exporter made of it."""

    checkpoint: Path
    model: AllMemForCausalLM
    directory: Path


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Exported]:
    """Exports a config of tiny.CONFIGS at a quantisation, once per test run, whichever process asks first."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the directory of all workers
        root = root.parent
    (root / "exported").mkdir(exist_ok=True)

    @cache
    def run(name: str, quantize: Quantization) -> Exported:
        directory = root / "exported" / f"{name}-{quantize}"
        checkpoint = directory.with_name(f"{directory.name}-checkpoint")
        with FileLock(f"{directory}.lock"):
            if directory.is_dir():
                return Exported(checkpoint, tiny.make_model(name), directory)
            model = tiny.save_checkpoint(checkpoint, name)
            export(checkpoint, directory, quantize=quantize)
        return Exported(checkpoint, model, directory)

    return lambda name, quantize="none": run(name, quantize)
