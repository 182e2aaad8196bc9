"""The adapter of a tiny Llama, which is dear to make, and a cache of each test's own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from adapters import make_adapter, make_base, train


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and no package index but the one that the test makes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The base and the adapter of a tiny Llama; not to be written."""
    folder = tmp_path_factory.mktemp("adapter")
    base = make_base(folder, "llama", "base.gguf", tie_word_embeddings=True)
    return base, make_adapter(folder, base, train(base, folder))


@pytest.fixture
def copied(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same to damage."""
    base, adapter = made
    shutil.copy(base, tmp_path / "base.gguf")
    shutil.copytree(adapter, tmp_path / "adapter")
    return tmp_path / "base.gguf", tmp_path / "adapter"
