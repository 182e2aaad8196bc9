"""What bench/ makes of a comparison's figures: tables, pictures, the page of performance."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from plot import extended, picture
from report import bounds, comparison, replaced
from table import Speeds, table
from worker import Worker

BENCH = Path(__file__).parents[2] / "bench"
CONFIG = {
    "num_hidden_layers": 28,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "window": 4096,
    "sinks": 128,
    "chunk": 512,
    "memory_ratio": 2,
}


def start(seconds: float) -> dict[str, Any]:
    median = {"load_s": seconds, "first_logits_s": 2 * seconds, "peak_bytes": 990e6}
    facts = {"memory_before": 40e6, "state_bytes": 600e6, "file_bytes": 300e6}
    return {key: {"median": value} for key, value in median.items()} | facts


def report() -> dict[str, Any]:
    """A comparison with two settings of the rival, of which none is always the faster."""
    speeds = {
        "ours": {0: (900.0, 120.0), 8192: (800.0, 80.0), 131_072: (800.0, 78.0)},
        "f16": {0: (400.0, 60.0), 8192: (70.0, 16.0)},
        "flash": {0: (300.0, 80.0), 8192: (100.0, 10.0)},
    }
    return {
        "machine": {"date": "2026-01-01", "cpu": "a processor", "cores": 2, "load_before": 0.2},
        "arguments": {
            "depths": [0, 8192],
            "far": [131_072],
            "isa": "best",
            "read_tokens": 512,
            "threads": 2,
            "cores": "0,1",
            "repeat": 5,
        },
        "speeds": [
            {"side": side, "depth": depth, "read": {"median": read}, "write": {"median": write}}
            for side, rows in speeds.items()
            for depth, (read, write) in rows.items()
        ],
        "starts": {"ours": start(0.01), "f16": start(0.5), "flash": start(0.4)},
        "start_tokens": 1024,
        "sides": {
            "ours": {"load": {"system": "avx2"}, "facts": {"weight_bytes": 335_000_000}},
            "f16": {"load": {"system": "CPU : AVX2 = 1 |", "version": "1.2"}},
            "flash": {"load": {"system": "CPU : AVX2 = 1 |", "version": "1.2"}},
        },
        "machine_speed": {"read_bytes": 40e9, "integer": 900e9, "floating": 200e9},
        "config": CONFIG,
        "rival_state": {"tokens": 131_072, "bytes": 15_032_385_536},
        "libraries": {"module": 1_500_000, "library": 900_000, "rival": 6_000_000},
    }


def test_a_row_takes_the_rivals_fastest_setting() -> None:
    rows = {row.figure: row for row in table(report())}
    assert rows["decode at 0"].rival == "80.0/s (flash)"
    assert rows["decode at 0"].ratio == "1.50 ×"
    assert rows["decode at 8,192"].rival == "16.0/s (f16)"
    assert rows["prefill at 131,072"].rival == "100.0/s (flash, at 8,192)"
    assert rows["prefill at 131,072"].ratio == "8.00 ×"
    assert rows["decode at 131,072 to itself at 8,192"].ratio == "0.975 ×"
    assert rows["load, file cached"].rival == "0.400 s (flash)"
    assert rows["library, stripped"].ours == "0.9 MB"
    assert rows["state at 131,072 (f16 K/V there)"].ratio == "4.0%"
    assert rows["peak RSS, to file + state = 900.0 MB"].ratio == "1.10 ×"


def test_the_share_of_the_bound_is_that_of_the_counts() -> None:
    (row,) = (row for row in table(report()) if row.figure.startswith("decode at 0 to its bound"))
    # 335 MB of weights, 29 MB of memories and a key at 40 GB/s: 9.1 ms.
    assert row.figure == "decode at 0 to its bound of 110/s (bandwidth)"
    assert row.ratio == "109%"


def test_the_picture_is_xml_with_every_side() -> None:
    svg = ElementTree.fromstring(picture(report()))
    words = [element.text for element in svg.iter() if element.tag.endswith("text")]
    assert words.count("allmem-edge") == 3
    assert words.count("128k") == 3


def test_the_rival_is_extended_by_linear_growth() -> None:
    points = [(n, 1 / (0.01 + 2e-6 * n)) for n in (0.0, 4096.0, 8192.0)]
    assert extended(points, 131_072)[-1] == pytest.approx((131_072, 1 / (0.01 + 2e-6 * 131_072)))


def test_the_page_is_filled_in_between_its_markers() -> None:
    page = BENCH.parent / "docs" / "performance-log.md"
    text = page.read_text(encoding="utf-8")
    for name in ("bounds", "full attention", "comparison", "comparison avx2"):
        text = replaced(text, name, f"new {name}")
        assert f"<!-- {name} -->\n\nnew {name}\n\n<!-- /{name} -->" in text
    with pytest.raises(SystemExit, match="no <!-- nothing -->"):
        replaced(text, "nothing", "")


def test_the_page_says_under_which_conditions() -> None:
    text = comparison(report())
    assert "a processor, cores 0,1 of 2, 2 threads, median of 5, load 0.2 before" in text
    assert "llama-cpp-python 1.2: `CPU : AVX2 = 1`" in text
    assert "| **all** | 2,352 M |" in bounds(report())


def test_speeds_of_a_side_that_was_not_measured_are_an_error() -> None:
    with pytest.raises(ValueError):
        Speeds(report()).ours("read", 5)


def test_a_worker_answers_and_its_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "side.py"
    script.write_text(
        textwrap.dedent(
            """
            import argparse
            import os

            import worker

            class Adder:
                def __init__(self, args):
                    self.sum = args.threads
                def environment(self):
                    return {"omp": [name for name in os.environ if name.startswith("OMP_")]}
                def add(self, number):
                    print("noise")
                    self.sum += number
                    return {"sum": self.sum}
                def die(self):
                    os._exit(1)

            parser = argparse.ArgumentParser()
            worker.add_arguments(parser)
            worker.serve(Adder, parser.parse_args())
            """
        )
    )
    core = str(min(os.sched_getaffinity(0)))
    command = [sys.executable, str(script), "--model", "none", "--threads", "5", "--cores", core]
    monkeypatch.setenv("OMP_THREAD_LIMIT", "1")
    side = Worker("adder", command, {"PYTHONPATH": str(BENCH)})
    assert side.ask("environment") == {"omp": []}
    assert side.ask("add", number=2) == {"sum": 7}
    assert side.ask("add", number=3) == {"sum": 10}
    with pytest.raises(SystemExit, match="adder ended with status 1 while it was asked to die"):
        side.ask("die")
    side.close()
