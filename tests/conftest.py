"""The tests of both packages use the tree, and so do the processes that they start."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATH = [str(ROOT / "python"), str(ROOT / "export")]


def pytest_configure() -> None:
    os.environ["PYTHONPATH"] = os.pathsep.join([*PATH, *filter(None, [os.environ.get("PYTHONPATH")])])
    if find_spec("allmem_edge._core") is None:
        raise pytest.UsageError("allmem_edge._core is not built: run `make build` first")


def pytest_collection_finish(session: pytest.Session) -> None:
    """pytest-xdist 3.8 groups nothing under pytest 9.2, without a word: what is dear would be made twice."""
    grouped = [item.nodeid for item in session.items if item.get_closest_marker("xdist_group")]
    if getattr(session.config.option, "loadgroup", False) and not all("@" in name for name in grouped):
        raise pytest.UsageError(
            "this pytest-xdist does not group tests under this pytest: see pyproject.toml"
        )
