"""`allmem-edge bench`: the speed of prefill and decoding at several depths of context, and bytes."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from allmem_edge import _core
from allmem_edge.cli import console
from allmem_edge.cli.options import choice_options, json_option, model_argument, threads_option
from allmem_edge.cost import Cost, Machine, Shape, Work, share_of_full_attention
from allmem_edge.evaluation.speed import timed
from allmem_edge.model import Model

_READ_BLOCK = 512  # tokens between two steps of the progress bar
_CONTEXT = 131_072  # tokens of context for which the cost is compared with full attention


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
    "--prompt",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Tokens to prefill.",
)
@click.option("--gen", type=click.IntRange(min=1), default=64, show_default=True, help="Tokens to decode.")
@click.option(
    "--depth",
    type=NUMBERS,
    default="0,4096",
    show_default=True,
    help="Tokens of context before the timed ones.",
)
@click.option("--read-all", is_flag=True, help="Prefill every token of the depth (slow).")
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Number of runs, of which the median is taken.",
)
@choice_options()
@threads_option
@json_option
def command(
    model: str | None,
    prompt: int,
    gen: int,
    depth: list[int],
    read_all: bool,
    repeat: int,
    threads: int,
    as_json: bool,
    choices: dict[str, Any],
) -> None:
    """Measure tokens/s, time to first token, state bytes and peak memory, beside what this machine can reach.

    Tokens are random. A great depth is reached by filling the window and skipping ahead, as no token costs
    more from there on; --read-all prefills every token.
    """
    loaded = Model.load(model, **choices)
    engine, session = loaded.engine, loaded.new_engine_session(threads)
    assert isinstance(engine, _core.Model) and isinstance(session, _core.Session)
    vocab_size, rng = engine.vocab_size, np.random.default_rng(0)
    with console.progress(console.stderr()) as progress:
        task = progress.add_task("prefill", total=None)

        def prefill(count: int) -> None:
            while count > 0:
                block = min(count, _READ_BLOCK)
                session.forward(rng.integers(0, vocab_size, block), True)
                progress.advance(task, block)
                count -= block

        prefill(prompt)
        prefill(1)
        memory = _memory_use()  # now: the copies below are for measuring alone
        session.reset()
        results = []
        for at in sorted(set(depth)):
            reached = go_to_depth(session, engine, at, prefill, read_all=read_all)
            results.append(_measure(session, vocab_size, prompt, gen, repeat, rng) | {"reached": reached})
            progress.advance(task, repeat * (prompt + gen))
        progress.update(task, description="measuring the machine")
        report = {
            "model": loaded.name,
            "quantization": engine.quantization,
            "window": engine.window,
            "sinks": engine.sinks,
            "chunk": engine.chunk,
            "memory": engine.memory,
            "threads": session.threads,
            "isa": _core.isa_name(),
            "repeat": repeat,
            "results": results,
            "state_bytes": console.state_parts(engine.states, session.state_bytes),
            "session_bytes": session.total_bytes,
            "weight_bytes": engine.weight_bytes,
            **memory,
        }
        chosen = {"window": engine.window, "sinks": engine.sinks, "chunk": max(1, engine.chunk)}
        shape = Shape.from_config(loaded.files.read_json("config.json") | chosen)
        if shape is not None:
            exact = engine.quantization == "none"
            cost = Cost(shape, engine.weight_bytes, exact=exact, memory_use=engine.memory)
            touched = int(cost.decode(max(depth)).bytes)
            machine = Machine(*_core.measure_machine(session.threads, min(touched, 1 << 30), exact))
            report |= _bounds(cost, results, machine)
    if as_json:
        console.write_json(report)
    else:
        _print(report)


def go_to_depth(
    session: _core.Session,
    model: _core.Model,
    depth: int,
    prefill: Callable[[int], None],
    *,
    read_all: bool = False,
) -> str:
    """Brings a session to `depth` tokens of context and says how; prefill(n) gives it n tokens.

    Once window and sinks are full, neither the size of the state nor the work for a token depends on how many
    came before. So a great depth is reached by a prefill until then and for a chunk more, moving the position
    to little less than `depth`, and a prefill of the rest: at least a chunk.
    """
    chunk = max(1, model.chunk)
    full = -(-(model.window + model.sinks + chunk) // chunk) * chunk
    if read_all or depth < full + chunk:
        if session.position > depth:
            session.reset()
        if session.position < depth:
            prefill(depth - session.position)
        return f"prefilled {depth:,} tokens"
    if session.position < full:
        prefill(full - session.position)
    place = depth - chunk - (depth - session.position) % chunk  # as far into a chunk as now
    session.place(place)
    prefill(depth - place)
    return f"prefilled {full:,} tokens, went on from {place:,}, prefilled {depth - place:,}"


def _measure(
    start: _core.Session, vocab_size: int, prompt: int, gen: int, repeat: int, rng: np.random.Generator
) -> dict[str, float | str]:
    """Prefill and decoding from copies of `start`, so that every repetition begins at the same depth."""
    runs = [timed(start.clone(), rng.integers(0, vocab_size, prompt), gen) for _ in range(repeat)]
    prefill, decode, first = zip(*runs, strict=True)
    return {
        "depth": start.position,
        "prefill_tokens": prompt,
        "prefill_tokens_per_s": statistics.median(prefill),
        "prefill_deviation": statistics.pstdev(prefill),
        "decode_tokens": gen,
        "decode_tokens_per_s": statistics.median(decode),
        "decode_deviation": statistics.pstdev(decode),
        "first_token_s": statistics.median(first),
    }


def _bounds(cost: Cost, results: list[dict[str, Any]], machine: Machine) -> dict[str, Any]:
    """Adds to each row its speed at most. Returns what the machine can do, and the cost of a long context."""

    def bound(work: Work, tokens: int, tokens_per_s: float) -> dict[str, float | str]:
        seconds, limit = machine.bound(work)
        return {
            "operations_per_token": work.operations / tokens,
            "bytes_per_token": work.bytes / tokens,
            "bound_tokens_per_s": tokens / seconds,
            "bound_by": limit,
            "reached": tokens_per_s / (tokens / seconds),
        }

    for row in results:
        tokens, depth = row["prefill_tokens"], row["depth"]
        row["prefill_bound"] = bound(cost.prefill(tokens, depth), tokens, row["prefill_tokens_per_s"])
        row["decode_bound"] = bound(cost.decode(depth + tokens), 1, row["decode_tokens_per_s"])
    return {
        "machine": {
            "read_bytes_per_s": machine.read_bytes,
            "integer_operations_per_s": machine.integer,
            "floating_operations_per_s": machine.floating,
        },
        "to_full_attention": {"tokens": _CONTEXT, **share_of_full_attention(cost, _CONTEXT)},
    }


def _memory_use() -> dict[str, int | None]:
    """The most memory this process ever had, in bytes, and how much of what it has now are pages of files."""
    try:
        import resource
    except ImportError:
        return {"rss_bytes": None, "rss_file_bytes": None}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"rss_bytes": peak, "rss_file_bytes": _file_pages()}


def _file_pages() -> int | None:
    """Bytes of mapped files in memory: the weights above all. None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) * 1024 for x in lines if x.startswith("RssFile:")), None)


def _print(report: dict[str, Any]) -> None:
    out = console.stdout()
    out.print(
        f"{console.printable(report['model'])} ({report['quantization']}), {report['threads']} threads, "
        f"{report['isa']}, median of {report['repeat']}"
    )
    table = Table("depth", "prefill tokens/s", "decode tokens/s", "first token", box=None)
    for row in report["results"]:
        table.add_row(
            f"{row['depth']:,}",
            f"{row['prefill_tokens_per_s']:,.1f} ± {row['prefill_deviation']:,.1f}",
            f"{row['decode_tokens_per_s']:,.1f} ± {row['decode_deviation']:,.1f}",
            f"{row['first_token_s'] * 1000:,.1f} ms",
        )
    out.print(table)
    for row in report["results"]:
        out.print(f"depth {row['depth']:,}: {row['reached']}")
    parts = [
        f"{k.replace('_', ' ')} {console.size(v)}"
        for k, v in report["state_bytes"].items()
        if v and k != "total"
    ]
    out.print(f"state {console.size(report['state_bytes']['total'])}, constant ({', '.join(parts)})")
    if report["rss_bytes"]:
        file = report["rss_file_bytes"]
        mapped = f", {console.size(file)} of it pages of mapped files" if file is not None else ""
        out.print(f"peak RSS {console.size(report['rss_bytes'])}{mapped}")
    if "machine" in report:
        _print_bounds(out, report)


def _print_bounds(out: Console, report: dict[str, Any]) -> None:
    for row in report["results"]:
        for what in ("prefill", "decode"):
            bound = row[f"{what}_bound"]
            out.print(
                f"depth {row['depth']:,}, {what}: {bound['reached']:.0%} of the bound of "
                f"{bound['bound_tokens_per_s']:,.1f} tokens/s by {bound['bound_by']} (a token moves "
                f"{console.size(int(bound['bytes_per_token']))} and takes "
                f"{bound['operations_per_token'] / 1e9:.3g} billion operations)"
            )
    machine, share = report["machine"], report["to_full_attention"]
    out.print(
        f"this machine reads {machine['read_bytes_per_s'] / 1e9:.1f} GB/s; its kernels do "
        f"{machine['integer_operations_per_s'] / 1e9:,.0f} billion operations/s on 8 bits, "
        f"{machine['floating_operations_per_s'] / 1e9:,.0f} on float32"
    )
    out.print(
        f"to full attention at {share['tokens']:,} tokens: a token takes {share['token_operations']:.1%} of "
        f"the operations and {share['token_bytes']:.1%} of the bytes; prefilling them all, "
        f"{share['prefill_operations']:.1%} of the operations; decoding them all, "
        f"{share['decode_bytes']:.1%} of the bytes"
    )
