"""The mean of what several checkpoints have learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from allmem_export.average import average, average_runs
from allmem_export.graft_task import load_adapter
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


def test_a_run_becomes_the_mean_of_its_checkpoints_and_its_end(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step, value in ((5, 1.0), (10, 2.0)):
        (run / f"checkpoint-{step}").mkdir(parents=True)
        checkpoint(run / f"checkpoint-{step}" / "model.safetensors", value)
        (run / f"checkpoint-{step}" / "step.json").write_text("{}")
    (run / "checkpoint-11").mkdir()  # a kill cut it short
    (run / "config.json").write_text('{"window": 64, "sinks": 4}')
    (run / "tokenizer.json").write_text("{}")
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(ConfigError, match="no finished run"):
        average_runs([run], tmp_path / "out")
    checkpoint(run / "adapter.safetensors", 6.0)
    average_runs([run], tmp_path / "out", window=1024)
    assert (load_adapter(tmp_path / "out" / "adapter.safetensors")[MEMORY] == 3.0).all()
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"window": 1024, "sinks": 4}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"adapter.safetensors", "config.json", "tokenizer.json"}
    other = tmp_path / "other"
    other.mkdir()
    checkpoint(other / "adapter.safetensors", 11.0)
    files = average_runs([run, other], tmp_path / "both")
    assert len(files) == 4
    assert (load_adapter(tmp_path / "both" / "adapter.safetensors")[MEMORY] == 5.0).all()
