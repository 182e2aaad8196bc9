"""AllMem beside other memories, all trained by one recipe (docs/evaluation.md, "Memories compared").

    OMP_NUM_THREADS=1 python bench/memories.py               # trains, exports and evaluates
    OMP_NUM_THREADS=1 python bench/memories.py --speed       # then, on an idle machine; and reports
    python bench/memories.py --report                        # docs/memories.json and docs/memories.svg anew

The recipe is export/configs/comparison.toml, and a memory is what MEMORIES puts into its [model]. Everything
is done by allmem-edge's own commands in runs/comparison/, where a run that was stopped goes on from.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from allmem_edge.evaluation import plot
from table import markdown

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "export" / "configs" / "comparison.toml"
RUNS = Path("runs") / "comparison"
JSON, PICTURE = ROOT / "docs" / "memories.json", ROOT / "docs" / "memories.svg"
DISTANCES = (64, 256, 512, 2048, 8192)  # tokens
QUESTIONS, FACTS = 200, 2  # for each distance; in a conversation
DIALOGUES, TURNS = 100, 36  # of perplexity: about as long as the longest sequence of training
WINDOW = {"window": 64}
LONGEST = 1024  # tokens of a training sequence
FULL = ["--window", "16384"]  # full attention reads all that is asked of it

MEMORIES: dict[str, dict[str, Any]] = {
    "AllMem": {**WINDOW, "memory_ratio": 2},
    "linear, delta rule": {**WINDOW, "memory": "linear"},
    "window and sinks": {**WINDOW, "memory_layers": []},
    "full attention": {"window": LONGEST, "memory_layers": []},
    "linear, Mamba-2": {**WINDOW, "memory": "linear", "memory_delta": False},
    "AllMem, h = 32": {**WINDOW, "memory_ratio": 1},
}


def folder(name: str) -> Path:
    """Where a memory's run is."""
    return RUNS / "".join(c if c.isalnum() else "-" for c in name.lower())


def choices(name: str) -> list[str]:
    """Options of whatever command loads the model."""
    return FULL if name == "full attention" else []


def allmem_edge(*arguments: object, out: Path | None = None) -> None:
    """Runs a command, and keeps what it prints in `out`."""
    done = subprocess.run(
        [sys.executable, "-m", "allmem_edge", *map(str, arguments)],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
    )
    if out is not None:
        out.write_text(done.stdout)


def config_of(name: str) -> str:
    """The recipe for a memory, as TOML."""
    changes = "".join(f"{key} = {json.dumps(value)}\n" for key, value in MEMORIES[name].items())
    recipe = RECIPE.read_text(encoding="utf-8").replace("[model]\n", f"[model]\n{changes}")
    return f"out = {json.dumps(folder(name).as_posix())}\n{recipe}"


def train(name: str) -> None:
    """Trains a memory to the end of the recipe, and exports it with 8-bit weights."""
    run = folder(name)
    run.mkdir(parents=True, exist_ok=True)
    config = run / "config.toml"
    config.write_text(config_of(name), encoding="utf-8")
    if not (run / "model.safetensors").exists():
        allmem_edge("train", config, "--resume")
    if not (run / "int8").exists():
        allmem_edge("export", run, "--out", run / "int8", "--quantize", "int8")


def evaluate(name: str) -> None:
    """Recall at all distances and perplexity, on values that no training saw."""
    run = folder(name)
    model, options = run / "int8", [*choices(name), "--threads", 1, "--json"]
    recall = run / "recall.json"
    if not recall.exists():
        asked = ["--distance", ",".join(map(str, DISTANCES)), "--questions", QUESTIONS, "--facts", FACTS]
        allmem_edge("eval", "recall", model, *asked, "--out", run / "recall.jsonl", *options, out=recall)
    perplexity = run / "perplexity.json"
    if not perplexity.exists():
        drawn = ["--dialogues", DIALOGUES, "--turns", TURNS]
        allmem_edge("eval", "perplexity", model, *drawn, *options, out=perplexity)


def speed(name: str) -> None:
    """Tokens a second and bytes of state, after an empty context and after 8,192 tokens."""
    options = [*choices(name), "--depth", "0,8192", "--read-all", "--threads", 1, "--json"]
    allmem_edge("bench", folder(name) / "int8", *options, out=folder(name) / "bench.json")


def result(name: str) -> dict[str, Any]:
    """All figures of a memory."""

    def read(file: str) -> Any:
        return json.loads((folder(name) / file).read_text())

    bench = read("bench.json")
    said, replies = read("perplexity.json")["results"]
    return {
        "model": MEMORIES[name],
        "perplexity": said["perplexity"],
        "perplexity_of_replies": replies["perplexity"],
        "recall": {row["distance"]: row["correct"] / row["total"] for row in read("recall.json")["results"]},
        "state_bytes": bench["state_bytes"],
        "speed": [
            {key: row[key] for key in ("depth", "prefill_tokens_per_s", "decode_tokens_per_s")}
            for row in bench["results"]
        ],
    }


def share(right: float) -> str:
    """A recall with its standard error, at most: as if both questions of a conversation failed together."""
    error = math.sqrt(right * (1 - right) / (QUESTIONS / FACTS))
    return f"{100 * right:.1f} ± {100 * error:.1f}"


def row(name: str, figures: dict[str, Any]) -> list[str]:
    """A memory's line of the table."""
    bytes_of = figures["state_bytes"]
    decode = [f"{at['decode_tokens_per_s']:,.0f}" for at in figures["speed"]]
    prefill = [f"{at['prefill_tokens_per_s']:,.0f}" for at in figures["speed"]]
    return [
        name,
        *map(share, figures["recall"].values()),
        f"{figures['perplexity']:.3f}",
        f"{figures['perplexity_of_replies']:.3f}",
        f"{bytes_of['total'] / 1e3:,.0f} kB",
        " / ".join(decode),
        " / ".join(prefill),
    ]


def report() -> None:
    """Writes docs/memories.json and its picture, and prints the table."""
    results = {name: result(name) for name in MEMORIES if (folder(name) / "bench.json").exists()}
    JSON.write_text(
        json.dumps({"questions": QUESTIONS, "facts": FACTS, "memories": results}, indent=1) + "\n"
    )
    lines = {name: [(x, 100 * y) for x, y in r["recall"].items()] for name, r in results.items()}
    title = f"Recall of values unseen in training, {QUESTIONS} questions for each point"
    PICTURE.write_text(
        plot.lines(title, "tokens between fact and question", "% right", lines, from_zero=True)
    )
    head = ["", *(f"{x:,}" for x in DISTANCES), "perplexity", "of replies", "state", "decode", "prefill"]
    print(markdown([head, *(row(name, r) for name, r in results.items())]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("names", nargs="*", default=list(MEMORIES))
    arguments = parser.parse_args()
    for name in arguments.names:
        if arguments.speed:
            speed(name)
        elif not arguments.report:
            train(name)
            evaluate(name)
    if arguments.speed or arguments.report:
        report()
