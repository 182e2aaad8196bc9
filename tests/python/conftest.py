"""A tiny random model for tests that need a real one."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

import allmem_edge as ae

# A shell starts background jobs with SIGINT ignored, and children inherit that. The tests of Ctrl-C need it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny random model; not to be written."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_dir: Path) -> ae.Model:
    return ae.Model.load(tiny_dir)


@pytest.fixture
def tiny_copy(tiny_dir: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_dir, tmp_path / "copy"))
