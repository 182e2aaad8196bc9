"""The commands that need PyTorch, as processes without a terminal: their result and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tiny


def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "allmem_edge", *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


@pytest.mark.slow
def test_export_and_verify_are_silent_but_for_their_result(tmp_path: Path) -> None:
    checkpoint, directory = tmp_path / "checkpoint", tmp_path / "model"
    tiny.save_checkpoint(checkpoint)
    exported = run("export", checkpoint, "--out", directory, "--quantize", "int4")
    assert (exported.returncode, exported.stdout, exported.stderr) == (0, b"", b"")
    verified = run("verify", directory, "--checkpoint", checkpoint, "--tokens", "100", "--json")
    assert (verified.returncode, verified.stderr) == (0, b"")
    report = json.loads(verified.stdout)
    assert report["ok"] and len(report["rows"]) == 3
    again = run("export", checkpoint, "--out", directory)
    assert (again.returncode, again.stdout) == (1, b"")
    assert again.stderr.startswith(b"error: ") and again.stderr.count(b"\n") == 1
