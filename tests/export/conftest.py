"""Markers and threads of the export tests."""

from __future__ import annotations

import pytest
import torch


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: more than a minute or a gigabyte; deselect with -m 'not slow'")
    torch.set_num_threads(1)  # the tensors are too small to share out
