"""`allmem-edge compare` on a tiny model: the page, what is kept, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from tiny_model import write_json

from allmem_edge.cost import Cost, Shape
from allmem_edge.errors import InvalidArgumentError
from allmem_edge.evaluation.compare import Variant, _add_differences, _needle_means, picture
from allmem_edge.evaluation.journal import Journal

CONFIG = {
    "model_type": "allmem",
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "intermediate_size": 0,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 259,
    "window": 8,
    "sinks": 2,
    "chunk": 4,
    "memory_ratio": 2,
}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "allmem_edge", "compare", *map(str, arguments)]
    return subprocess.run(command, input=b"", capture_output=True, timeout=300, check=False)


@pytest.fixture
def arguments(tiny_copy: Path, tmp_path: Path) -> list[str | Path]:
    write_json(tiny_copy / "config.json", CONFIG)
    (tmp_path / "text").write_text("Some words that go on and on, in no order at all. " * 60)
    measured: list[str | Path] = [
        "--text",
        tmp_path / "text",
        "--length",
        "700",
        "--stretches",
        "2",
        "--needle",
        "niah_single_1",
    ]
    measured += ["--needle-length", "1200", "--samples", "2", "--depth", "0,500"]
    return [tiny_copy, "--out", tmp_path / "out", *measured]


def test_the_page_has_every_part_for_every_setting(arguments: list[str | Path], tmp_path: Path) -> None:
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert result.stdout.decode().strip() == str(tmp_path / "out" / "comparison.md")
    report = json.loads((tmp_path / "out" / "comparison.json").read_text())
    rows = {row["name"]: row for row in report["results"]}
    assert list(rows) == ["full attention", "window", "frozen", "memory"]
    assert [row["memory"] for row in rows.values()] == ["off", "off", "frozen", "on"]
    assert rows["full attention"]["window"] == 3072 and rows["memory"]["window"] == 8
    for row in rows.values():
        assert [cell["tokens"] for cell in row["perplexity"]] == [2 * 255, 2 * 256, 2 * (700 - 512)]
        assert [cell["length"] for cell in row["needle"]] == [1200]
        assert [cell["depth"] for cell in row["speed"]] == [0, 500]
    full, window = rows["full attention"]["cost"][1], rows["window"]["cost"][1]
    assert full["of_full_operations"] == full["of_full_bytes"] == 1
    assert full["of_full_state"] == pytest.approx(1, abs=0.01) and window["of_full_state"] < 0.1
    assert window["of_full_operations"] < 1 and window["of_full_bytes"] < 1
    # Nothing is beyond the window of 8 that the first 10 tokens of full attention do not see as well.
    assert rows["full attention"]["perplexity"] != rows["window"]["perplexity"]
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert all("to_last" in cell for name in list(rows)[:3] for cell in rows[name]["needle"])
    for text in (
        "## Perplexity",
        "## Needle",
        "memory less each",
        "## Tokens a second",
        "full attention = 100 %",
        "| frozen |",
    ):
        assert text in page
    ET.parse(tmp_path / "out" / "comparison.svg")


def test_a_run_that_was_killed_goes_on(arguments: list[str | Path], tmp_path: Path) -> None:
    first = run(*arguments, "--no-speed", "--setting", "a:memory=off", "--setting", "b")
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "out"
    whole, page = (folder / "results.jsonl").read_bytes(), (folder / "comparison.md").read_text()
    (folder / "results.jsonl").write_bytes(whole[: len(whole) // 2])
    assert run(*arguments, "--no-speed", "--setting", "a:memory=off", "--setting", "b").returncode == 0
    assert (folder / "results.jsonl").read_bytes() == whole
    assert (folder / "comparison.md").read_text() == page
    other = run(*arguments, "--no-speed", "--setting", "a:memory=off")
    assert other.returncode == 1 and b"variants" in other.stderr


def test_differences_are_of_the_same_samples(tmp_path: Path) -> None:
    scores = {"a": [1.0, 0.0, 0.5, 0.0], "b": [1.0, 1.0, 0.5, 1.0], "c": [0.0] * 4}
    journal = Journal(tmp_path / "journal", {})
    for name, of in scores.items():
        for i, score in enumerate(of):
            answers = ["other" if name == "c" else f"answer {i}"]
            journal.put(f"{name} | vt 100 {i}", {"answers": answers, "answer": "", "score": score})
    cells = {name: {"task": "vt", "length": 100, "samples": 4} for name in scores}
    for name, cell in cells.items():
        _add_differences({"name": name, "needle": [cell]}, "b", journal)
    assert cells["a"]["to_last"] == 0.5
    assert cells["a"]["to_last_standard_error"] == pytest.approx((1 / 3) ** 0.5 / 2)  # of 0, 1, 0, 1
    assert "to_last" not in cells["c"]  # not the same samples
    short = {"task": "cwe", "length": 100, "samples": 0, "score": None}
    other = {"task": "vt", "length": 100, "samples": 4}  # of which "d", the last, measured nothing
    _add_differences({"name": "a", "needle": [short]}, "b", journal)
    _add_differences({"name": "a", "needle": [other]}, "d", journal)
    assert "to_last" not in short and "to_last" not in other


def test_the_mean_is_of_the_tasks_that_every_column_has_at_every_length() -> None:
    def cells(*scores: float | None) -> list[dict[str, object]]:
        places = [(task, length) for task in ("vt", "cwe") for length in (100, 200)]
        return [
            {"task": task, "length": length, "score": score}
            for (task, length), score in zip(places, scores, strict=True)
        ]

    rows = [
        {"name": "a", "needle": cells(1.0, 0.5, None, 0.0)},
        {"name": "b", "needle": cells(0.0, 1.0, 0.5, 0.5)},
    ]
    title, means = _needle_means(rows)
    assert "fit into every length" in title
    assert means == {"a": [(100, 100), (200, 50)], "b": [(100, 0), (200, 100)]}
    rows[0]["needle"] = cells(1.0, 0.5, 0.0, 0.0)
    assert _needle_means(rows)[1]["a"] == [(100, 50), (200, 25)]
    for row in rows:
        row["needle"] = cells(None, None, None, None)
    assert not any(_needle_means(rows)[1].values()) and picture({"results": rows}).startswith("<svg")


def test_a_task_that_does_not_fit_leaves_the_others_on_the_page(
    arguments: list[str | Path], tmp_path: Path
) -> None:
    result = run(*arguments, "--needle", "cwe", "--no-speed", "--setting", "a:memory=off", "--setting", "b")
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "out" / "comparison.md").read_text()
    assert "| cwe, 1,200 | - | - |" in page and page.count("| niah_single_1, 1,200 |") == 2


def test_a_quick_look_is_small(arguments: list[str | Path], tmp_path: Path) -> None:
    result = run(*arguments, "--quick", "--setting", "a", "--no-speed", "--needle-length", "0")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert report["stretches"] == 1 and "needle" not in report["results"][0]


def test_settings_are_read_strictly() -> None:
    assert Variant.parse("a b:window=5,memory=off", None) == Variant(
        "a b", None, {"window": 5, "memory": "off"}
    )
    assert Variant.parse("a", "m", "m, ") == Variant("m, a", "m", {})
    for text in ("", ":window=1", "a:window", "a:window=", "a:window=x", "a:size=3", "a:window=-1"):
        with pytest.raises(InvalidArgumentError):
            Variant.parse(text, None)


def test_two_columns_of_one_name_and_a_folder_that_is_a_file_are_refused(
    arguments: list[str | Path], tmp_path: Path
) -> None:
    assert run(*arguments, "--setting", "a", "--setting", "a").returncode == 2
    (tmp_path / "out").write_text("")
    result = run(*arguments)
    assert result.returncode == 2 and b"is a file" in result.stderr


def test_costs_know_which_layers_have_a_memory_and_its_maps() -> None:
    base = Shape.from_config(CONFIG | {"num_hidden_layers": 4})
    some = Shape.from_config(CONFIG | {"num_hidden_layers": 4, "memory_layers": [1, 3]})
    maps = Shape.from_config(CONFIG | {"num_hidden_layers": 4, "memory_maps": True})
    assert base is not None and some is not None and maps is not None
    of = [Cost(shape, 0, exact=True).memory(7, 0, together=False).operations for shape in (base, some, maps)]
    assert of[1] == of[0] / 2
    assert of[2] - of[0] == 2 * 7 * 4 * 3 * 8 * 8  # tokens, layers, heads of q and k, D x D
