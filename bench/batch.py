"""How much faster sessions decode together than one after the other, beside the most that is possible.

    python bench/batch.py MODEL... [--sessions 4] [--depth 0,512] [--tokens 32] [--repeat 3] [--threads 0]

Each session has read --depth random tokens and decodes --tokens more; the median of --repeat, of which each
times both in turn:

    alone      tokens/s of one session
    together   tokens/s of all, in a batch
    ratio      together / alone
    bound      the ratio of what the machine could reach: a batch moves the weights once for all its tokens,
               what each session keeps for each, and computes for each (docs/performance.md)
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

import allmem_edge as ae
from allmem_edge import _core
from allmem_edge.cost import Cost, Machine, Shape, Work
from table import markdown


def decoded_alone(session: ae.Session, ids: list[int]) -> float:
    """Seconds that one session takes for these tokens."""
    begin = time.perf_counter()
    for token in ids:
        session.forward([token], last_only=True)
    return time.perf_counter() - begin


def decoded_together(batch: ae.Batch, sessions: list[ae.Session], ids: list[int]) -> float:
    """Seconds that a batch takes for these tokens of each session."""
    begin = time.perf_counter()
    for token in ids:
        batch.step([(session, [token]) for session in sessions])
    return time.perf_counter() - begin


def bound(model: ae.Model, machine: Machine, depth: int, count: int) -> float:
    """How often the tokens/s of one session `count` of them can have at most."""
    engine = model.engine
    chosen = {"window": engine.window, "sinks": engine.sinks, "chunk": max(1, engine.chunk)}
    shape = Shape.from_config(model.files.read_json("config.json") | chosen)
    assert shape is not None
    cost = Cost(shape, engine.weight_bytes, exact=engine.quantization == "none", memory_use=engine.memory)
    one = cost.decode(depth)
    again = (count - 1) * engine.weight_bytes  # that a batch does not move
    work = Work(count * one.integer, count * one.floating, count * one.bytes - again)
    return count * machine.bound(one)[0] / machine.bound(work)[0]


HEAD = ("model", "depth", "alone", "together", "ratio", "bound")


def measured(path: Path, depth: int, arguments: argparse.Namespace) -> tuple[str, ...]:
    """A row of the table."""
    model = ae.Model.load(path)
    rng = np.random.default_rng(0)
    first = model.session(arguments.threads)
    if depth:
        first.forward(rng.integers(0, model.engine.vocab_size, depth), last_only=True)
    sessions = [first, *(first.clone() for _ in range(arguments.sessions - 1))]
    alone, batch = first.clone(), model.batch(arguments.threads)
    ids = [int(i) for i in rng.integers(0, model.engine.vocab_size, arguments.tokens)]
    decoded_alone(alone, ids[:2])
    decoded_together(batch, sessions, ids[:2])
    times = [
        (decoded_alone(alone, ids), decoded_together(batch, sessions, ids)) for _ in range(arguments.repeat)
    ]
    one, all_of_them = (statistics.median(each) for each in zip(*times, strict=True))
    machine = Machine(*_core.measure_machine(batch.threads, 1 << 29, model.engine.quantization == "none"))
    return (
        path.name,
        f"{depth:,}",
        f"{len(ids) / one:.1f}",
        f"{len(sessions) * len(ids) / all_of_them:.1f}",
        f"{len(sessions) * one / all_of_them:.2f}",
        f"{bound(model, machine, depth, len(sessions)):.2f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--depth", default="0,512")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    depths = [int(depth) for depth in arguments.depth.split(",")]
    rows = [measured(path, depth, arguments) for path in arguments.models for depth in depths]
    print(markdown([HEAD, *rows]))


if __name__ == "__main__":
    main()
