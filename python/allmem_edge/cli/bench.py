"""`allmem-edge bench`: how fast a model reads and writes at several depths of context, in what memory."""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from allmem_edge import _core
from allmem_edge.cli import console
from allmem_edge.cli.options import json_option, model_argument, threads_option
from allmem_edge.model import Model
from allmem_edge.session import Session

_READ_BLOCK = 512  # tokens between two steps of the progress bar


class _Numbers(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.4
    """A list of whole numbers, separated by commas."""

    name = "N,N,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        if isinstance(value, list):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isascii() and part.isdigit() and len(part) <= 12 for part in parts):
            self.fail(f"{value!r} is not a list of whole numbers such as 0,4096.", param, ctx)
        return [int(part) for part in parts]


NUMBERS = _Numbers()


@click.command("bench")
@model_argument
@click.option(
    "--prompt", type=click.IntRange(min=1), default=512, show_default=True, help="Tokens to read, timed."
)
@click.option(
    "--gen", type=click.IntRange(min=1), default=64, show_default=True, help="Tokens to write, timed."
)
@click.option(
    "--depth", type=NUMBERS, default="0,4096", show_default=True, help="Tokens to have read before."
)
@click.option(
    "--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Take the median of N runs."
)
@threads_option
@json_option
def command(
    model: str | None, prompt: int, gen: int, depth: list[int], repeat: int, threads: int, as_json: bool
) -> None:
    """Measure tokens/s, first-token time, state bytes and peak memory.

    Every depth is really reached: that many random tokens are read first, untimed.
    """
    loaded = Model.load(model)
    session = loaded.session(threads)
    rng = random.Random(0)
    stderr = console.stderr()
    results = []
    with console.progress(stderr) as progress:
        task = progress.add_task("reading", total=max(depth) + len(depth) * repeat * (prompt + gen))
        for at in sorted(set(depth)):
            _read(session, at - session.position, rng, progress, task)
            results.append(_measure(session, prompt, gen, repeat, rng, progress, task))
    report = {
        "model": loaded.name,
        "quantization": loaded.engine.quantization,
        "threads": session.threads,
        "isa": _core.isa_name(),
        "repeat": repeat,
        "results": results,
        "state_bytes": console.state_parts(loaded.engine.states, session.state_bytes),
        "session_bytes": session.total_bytes,
        "weight_bytes": loaded.engine.weight_bytes,
        "rss_bytes": _peak_rss(),
    }
    if as_json:
        console.write_json(report)
    else:
        _print(report)


def go_to_depth(session: _core.Session, model: _core.Model, depth: int, read: Callable[[int], None]) -> str:
    """Brings a session to `depth` tokens of context and says how; read(n) has it read n tokens.

    Once window, sinks and a chunk are full, neither the size of the state nor the work for a token depends
    on the number of tokens read. So a great depth is reached by reading that many, setting the position to
    little less than `depth`, and reading the rest: at least a chunk.
    """
    chunk = max(1, model.chunk)
    full = -(-(model.window + model.sinks + chunk) // chunk) * chunk
    if depth < full + chunk:
        if session.position > depth:
            session.reset()
        count = depth - session.position
        if count > 0:
            read(count)
        return f"read {depth} tokens"
    if session.position < full:
        read(full - session.position)
    place = depth - chunk - (depth - session.position) % chunk  # as far into a chunk as now
    session.place(place)
    read(depth - place)
    return f"read {full} tokens or more, placed at {place}, read {depth - place}"


def _tokens(count: int, vocab_size: int, rng: random.Random) -> list[int]:
    return [rng.randrange(vocab_size) for _ in range(count)]


def _read(session: Session, count: int, rng: random.Random, progress: Progress, task: TaskID) -> None:
    while count > 0:
        block = min(count, _READ_BLOCK)
        session.forward(_tokens(block, session.model.engine.vocab_size, rng), last_only=True)
        progress.advance(task, block)
        count -= block


def _measure(
    start: Session, prompt: int, gen: int, repeat: int, rng: random.Random, progress: Progress, task: TaskID
) -> dict[str, float]:
    """Reads and writes from copies of `start`, so that every repetition begins at the same depth."""
    vocab_size = start.model.engine.vocab_size
    prefill, first, decode = [], [], []
    for _ in range(repeat):
        session = start.clone()
        ids = _tokens(prompt, vocab_size, rng)
        begin = time.perf_counter()
        logits = session.forward(ids, last_only=True)
        prefill.append(time.perf_counter() - begin)
        token = int(logits[-1].argmax())
        first.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        for _ in range(gen):
            token = int(session.forward([token], last_only=True)[-1].argmax())
        decode.append(time.perf_counter() - begin)
        progress.advance(task, prompt + gen)
    prefill_speed = [prompt / seconds for seconds in prefill]
    decode_speed = [gen / seconds for seconds in decode]
    return {
        "depth": start.position,
        "prefill_tokens": prompt,
        "prefill_tokens_per_s": statistics.median(prefill_speed),
        "prefill_deviation": statistics.pstdev(prefill_speed),
        "decode_tokens": gen,
        "decode_tokens_per_s": statistics.median(decode_speed),
        "decode_deviation": statistics.pstdev(decode_speed),
        "first_token_s": statistics.median(first),
    }


def _peak_rss() -> int | None:
    """The most memory this process ever had, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _print(report: dict[str, Any]) -> None:
    out = Console(highlight=False, soft_wrap=True)
    out.print(
        f"{report['model']} ({report['quantization']}), {report['threads']} threads, {report['isa']}, "
        f"median of {report['repeat']}"
    )
    table = Table("depth", "read tokens/s", "write tokens/s", "first token", box=None)
    for row in report["results"]:
        table.add_row(
            f"{row['depth']:,}",
            f"{row['prefill_tokens_per_s']:,.0f} ± {row['prefill_deviation']:,.0f}",
            f"{row['decode_tokens_per_s']:,.0f} ± {row['decode_deviation']:,.0f}",
            f"{row['first_token_s'] * 1000:,.1f} ms",
        )
    out.print(table)
    parts = [
        f"{k.replace('_', ' ')} {console.size(v)}"
        for k, v in report["state_bytes"].items()
        if v and k != "total"
    ]
    out.print(f"memory {console.size(report['state_bytes']['total'])}, constant ({', '.join(parts)})")
    if report["rss_bytes"]:
        out.print(f"peak RSS {console.size(report['rss_bytes'])}")
