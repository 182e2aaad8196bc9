"""The mean of what several checkpoints have learned."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from allmem_export.average import average
from allmem_export.task import ConfigError

MEMORY, DOWN, UP = (
    f"model.layers.0.self_attn.{name}" for name in ("memory.eta", "q_proj.lora_A", "q_proj.lora_B")
)


def checkpoint(path: Path, value: float, *, rank: int = 2) -> Path:
    save_file(
        {
            MEMORY: torch.full((3,), value),
            DOWN: torch.full((rank, 4), value),
            UP: torch.full((4, rank), value),
            "model.norm.weight": torch.ones(4),  # of the base: not learned
        },
        path,
    )
    return path


def test_the_mean_is_of_what_was_learned(tmp_path: Path) -> None:
    files = [checkpoint(tmp_path / f"{value}.safetensors", value) for value in (1.0, 2.0, 6.0)]
    mean = average(files)
    assert set(mean) == {MEMORY, DOWN, UP}
    assert (mean[MEMORY] == 3.0).all()
    assert (mean[DOWN] == 3.0).all()
    assert (mean[UP] == 3.0).all()


def test_checkpoints_of_another_shape_and_files_without_any_are_refused(tmp_path: Path) -> None:
    one, other = checkpoint(tmp_path / "one", 1.0), checkpoint(tmp_path / "other", 1.0, rank=3)
    with pytest.raises(ConfigError, match="other has no memory or low-rank update, or another one"):
        average([one, other])
    save_file({"model.norm.weight": torch.ones(4)}, tmp_path / "base")
    with pytest.raises(ConfigError, match="base has no memory"):
        average([tmp_path / "base"])
