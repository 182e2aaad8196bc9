"""allmem-edge beside models whose memory is constant, or nearly so, in llama.cpp: speed and bytes of state.

    python bench/rivals.py --dir MODELS --rival RIVAL/bin/python --smollm2 DIR --json docs/rivals.json
    python bench/rivals.py --dir MODELS --rival RIVAL/bin/python --quick

The rivals are RWKV-7, Mamba-2, LFM2 (short convolutions, and attention in 6 of 16 layers) and Qwen3.5's
text model (gated delta nets, and attention in 6 of 24), in the shapes of shapes.py, and Qwen3-0.6B with all
its keys and values. Their weights are random, in Q4_0, and each has its own vocabulary, in Q4_0, too. Ours
are the shape of Qwen3-0.6B in 4 bits, with windows of 4,096 and 512 tokens, and SmolLM2-135M with its
memory if --smollm2 names its directory (`allmem-edge pull smollm2` prints it). Files are made in MODELS (5
GB), workers and turns are those of against_llama_cpp.py, which also says how the rival is built.

Speeds are of a prefill of 512 tokens and of decoding, with an empty context and after --depths tokens,
which the rivals really read; but for those with a constant state 1,024 tokens stand for all more. The
ones that attend run with flash attention and without, and the faster counts. Quality is not compared: the
weights are random, and no published ones of the rivals were at hand.

Bytes of state are those that a context fills, by the shapes; the program checks them against what llama.cpp
writes for the tokens that were read. Ours are allocated in full from the first token on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from against_llama_cpp import (
    READ,
    SETTINGS,
    WRITE,
    check_rival,
    cpu_cores,
    in_turn,
    machine_facts,
    numbers,
    our_model,
    our_worker,
    rival_model,
    rival_worker,
    room,
    say,
    speeds_of,
)
from shapes import RIVALS, State, state_of
from table import markdown, size
from worker import Worker

LIKE = "qwen3-0.6b"
WINDOWS = (4096, 512)
CONSTANT = 1024  # tokens after which a state that does not grow is measured, for all greater depths
STATES = (0, 8192, 32_768, 131_072)  # tokens of context
TOLERANCE = 0.01  # of the bytes of a state: llama.cpp writes positions and sizes besides


class Lanes:
    """All models, each in a process; a rival that attends has one for each setting."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.facts: dict[str, dict[str, Any]] = {}  # by model
        self.workers: dict[str, Worker] = {}
        self.model_of: dict[str, str] = {}  # by worker
        model = our_model(args.dir, LIKE, "int4-pure")
        for window in WINDOWS:
            worker = our_worker(f"{LIKE}, window {window}", model, args, "--window", str(window))
            self._add(worker.name, worker, {"ours": True})
        if args.smollm2:
            self._add("smollm2-135m", our_worker("smollm2-135m", args.smollm2, args), {"ours": True})
        base = json.loads((model / "config.json").read_text())
        rivals = [(LIKE, "the base of ours", base), *((name, *rival) for name, rival in RIVALS.items())]
        for name, source, config in rivals:
            path = args.dir / f"{name}.json"
            path.write_text(json.dumps(config))
            file = rival_model(args.dir, name, "q4_0", path, args.rival)
            state = state_of(config)
            shape = {key: value for key, value in config.items() if type(value) in (int, float, list)}
            facts = {"ours": False, "source": source, "shape": shape, "state": state._asdict()}
            for setting in settings_for(state):
                worker = rival_worker(
                    f"{name}, {setting}", args.rival, file, SETTINGS[setting], room(max(args.depths)), args
                )
                self._add(name, worker, facts)
                check_rival(self.facts[name]["load"]["system"], args.isa)

    def _add(self, model: str, worker: Worker, facts: dict[str, Any]) -> None:
        load = worker.ask("load")
        load.pop("library", None)
        self.workers[worker.name], self.model_of[worker.name] = worker, model
        self.facts[model] = {**facts, "load": load}
        say(f"{worker.name}: {size(load['file_bytes'])} of weights, {load['system']}")

    def check_states(self) -> None:
        """Notes the bytes of all states, and that the shapes explain the rivals'."""
        for name, worker in self.workers.items():
            found, facts = worker.ask("facts"), self.facts[self.model_of[name]]
            facts |= {key: found[key] for key in ("position", "state_bytes")}
            if not facts["ours"]:
                check_state(name, State(**facts["state"]), facts["position"], facts["state_bytes"])

    def chunks(self) -> dict[str, int]:
        """Of our sides: they write a chunk, so that an update of the memory is in every repetition."""
        ours = {name: self.facts[model] for name, model in self.model_of.items()}
        return {name: facts["load"]["chunk"] for name, facts in ours.items() if facts["ours"]}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything, for the report."""
    lanes = Lanes(args)
    results: dict[tuple[str, int], list[dict[str, float]]] = {}
    runs: dict[str, str] = {}
    for depth in sorted(args.depths, reverse=True):  # an attending rival gets back to 0 without reading again
        at = [(name, measured_at(lanes.facts[lanes.model_of[name]], depth)) for name in lanes.workers]
        runs |= in_turn(lanes.workers, at, lanes.chunks(), args.repeat, results)
        if depth == max(args.depths):
            lanes.check_states()
    for worker in lanes.workers.values():
        worker.close()
    return {
        "models": lanes.facts,
        "runs": runs,
        "speeds": [row | {"model": lanes.model_of[row["side"]]} for row in speeds_of(results)],
    }


def settings_for(state: State) -> list[str]:
    """With flash attention and without, where any layer attends."""
    return ["f16", "f16 flash"] if state.per_token else ["f16"]


def check_state(name: str, state: State, tokens: int, found: int) -> None:
    """Refuses bytes of a state that the shape does not explain."""
    expected = state.bytes(tokens)
    if abs(found - expected) > TOLERANCE * expected + (1 << 16):
        raise SystemExit(f"{name}: the state of {tokens:,} tokens has {found:,} bytes, not {expected:,}.")


def measured_at(facts: dict[str, Any], depth: int) -> int:
    """Where a model is measured for a depth: a rival's constant state needs no more than CONSTANT."""
    return depth if facts["ours"] or facts["state"]["per_token"] else min(depth, CONSTANT)


def state_of_model(facts: dict[str, Any]) -> State:
    return State(facts["state_bytes"], 0) if facts["ours"] else State(**facts["state"])


def speeds_table(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Tokens/s of each model: the median and the quartiles of its fastest setting."""
    depths = sorted(report["arguments"]["depths"])
    head = [f"{name} {'empty' if not d else f'at {d:,}'}" for name in ("prefill", "decode") for d in depths]
    rows = [("model", "weights", *head)]
    for model, facts in report["models"].items():
        cells = []
        for what in ("read", "write"):
            for depth in depths:
                at = measured_at(facts, depth)
                found = [r[what] for r in report["speeds"] if (r["model"], r["depth"]) == (model, at)]
                best = max(found, key=lambda summary: float(summary["median"]))
                low, high = best["quartiles"]
                cells.append(f"{best['median']:.1f} ({low:.1f} to {high:.1f})")
        rows.append((label(model, facts), size(facts["load"]["file_bytes"]), *cells))
    return rows


def states_table(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """Bytes of state by tokens of context, and from where on a rival's is larger than each of ours."""
    models = report["models"]
    ours = {model: facts["state_bytes"] for model, facts in models.items() if facts["ours"]}
    rows: list[tuple[str, ...]] = [
        (
            "model",
            *(f"{tokens:,} tokens" for tokens in STATES),
            *(f"larger than {model}'s {size(count)}" for model, count in ours.items()),
        )
    ]
    for model, facts in models.items():
        state = state_of_model(facts)
        cells = [size(state.bytes(tokens)) for tokens in STATES]
        crossings = [] if facts["ours"] else [crossing(state, count) for count in ours.values()]
        rows.append((label(model, facts), *cells, *(crossings or [""] * len(ours))))
    return rows


def crossing(state: State, ours: int) -> str:
    """From which context on a rival's state is larger than ours."""
    tokens = state.tokens(ours)
    if tokens is None:
        return f"never: {ours / state.fixed:.1f} times smaller"
    return f"from {tokens:,} tokens on" if tokens else "always"


def label(model: str, facts: dict[str, Any]) -> str:
    return f"**allmem-edge, {model}**" if facts["ours"] else f"llama.cpp, {model}"


def shapes_table(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rivals' shapes and where they are from."""
    rows: list[tuple[str, ...]] = [
        ("rival", "layers", "width", "state of a context", "vocabulary", "shape from")
    ]
    for model, facts in report["models"].items():
        if not facts["ours"]:
            shape, state = facts["shape"], State(**facts["state"])
            parts = [size(state.fixed)] if state.fixed else []
            parts += [f"{state.per_token:,} bytes a token"] if state.per_token else []
            cells = [f"{shape[key]:,}" for key in ("num_hidden_layers", "hidden_size", "vocab_size")]
            rows.append((model, cells[0], cells[1], " and ".join(parts), cells[2], facts["source"]))
    return rows


def tables(report: dict[str, Any]) -> str:
    """What was measured, as Markdown."""
    machine, arguments = report["machine"], report["arguments"]
    versions = {m["load"]["version"] for m in report["models"].values() if not m["ours"]}
    conditions = (
        f"{machine['date']}, {machine['cpu']}, cores {arguments['cores']} of {machine['cores']}, "
        f"{arguments['threads']} threads, median (quartiles) of {arguments['repeat']}. "
        f"llama-cpp-python {', '.join(sorted(versions))}."
    )
    parts = [markdown(part(report)) for part in (speeds_table, states_table, shapes_table)]
    return "\n\n".join([conditions, *parts])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dir", type=Path, default=Path("models"), help="where the models are, or will be")
    parser.add_argument("--rival", required=True, help="a Python that has llama-cpp-python and gguf")
    parser.add_argument("--smollm2", type=Path, help="the directory of SmolLM2-135M with its memory")
    parser.add_argument("--depths", type=numbers, default=[0, 4096])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="2 repetitions, after at most 1,024 tokens")
    parser.add_argument("--isa", default="best", choices=["best", "avx2"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cores", help="which both sides run on; default: the first ones")
    parser.add_argument("--json", type=Path, help="where to write all that was measured")
    args = parser.parse_args()
    if args.quick:
        args.depths, args.repeat = [0, 1024], 2
    args.cores = cpu_cores(parser, args)
    return args


def main() -> None:
    args = parse_arguments()
    report = {
        "machine": machine_facts(),
        "arguments": {key: getattr(args, key) for key in ("isa", "depths", "repeat", "threads", "cores")}
        | {"read_tokens": READ, "write_tokens": WRITE},
        **measure(args),
    }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    print(tables(report))


if __name__ == "__main__":
    main()
