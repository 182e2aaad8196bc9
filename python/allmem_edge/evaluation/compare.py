"""The paper's comparison: several models, or one model in several settings, through the same evaluations.

Everything that is measured goes through one journal, so that a run of hours may be killed and goes on.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from allmem_edge import __version__, _core
from allmem_edge.cost import Cost, Shape
from allmem_edge.errors import InvalidArgumentError
from allmem_edge.evaluation import by_position, metrics, needle, plot
from allmem_edge.evaluation.answering import Answerer
from allmem_edge.evaluation.journal import Journal
from allmem_edge.evaluation.settings import texts_of
from allmem_edge.evaluation.speed import timed
from allmem_edge.model import Model, fingerprint

Say = Callable[[str], object]
_CHOICES = {"window": int, "sinks": int, "chunk": int, "memory": str}


@dataclass(frozen=True)
class Variant:
    """A model in one setting: what Model.load() takes beside its path."""

    name: str
    model: str | None
    choices: dict[str, Any]

    @classmethod
    def parse(cls, text: str, model: str | None, prefix: str = "") -> Variant:
        """Of "NAME", or "NAME:window=512,memory=off"."""
        name, _, rest = text.partition(":")
        choices: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            key, _, value = part.partition("=")
            if key not in _CHOICES or not value or (_CHOICES[key] is int and not value.isdecimal()):
                raise InvalidArgumentError(
                    f"The setting {text!r} is not of the form "
                    "NAME:window=N,sinks=N,chunk=N,memory=on|frozen|off."
                )
            choices[key] = _CHOICES[key](value)
        if not name:
            raise InvalidArgumentError(f"The setting {text!r} has no name.")
        return cls(prefix + name, model, choices)


@dataclass(frozen=True)
class Plan:
    """What is measured. Empty lists leave a part out."""

    texts: Sequence[Path] = ()
    length: int = 16_384  # tokens of a stretch of text
    stretches: int = 4
    needles: Sequence[str] = ()
    needle_lengths: Sequence[int] = ()
    samples: int = 100  # of a needle task and length
    depths: Sequence[int] = ()  # tokens of context before speed is measured
    timed: int = 32  # tokens to decode, and eight times as many to prefill
    seed: int = 1
    threads: int = 0
    exact: bool = False
    haystack: Sequence[str] = field(default=(), repr=False)


def settings(variants: Sequence[Variant], plan: Plan) -> dict[str, Any]:
    """What decides the results, for the journal. Raises what loading each model does."""
    return {
        "evaluation": "compare",
        "version": __version__,
        "variants": [
            {"name": v.name, "model": v.model, "fingerprint": fingerprint(Model.load(v.model)), **v.choices}
            for v in variants
        ],
        "texts": texts_of(plan.texts),
        "length": plan.length,
        "seed": plan.seed,
        "exact": plan.exact,
        "haystack_passages": len(plan.haystack),
    }


def run(
    variants: Sequence[Variant], plan: Plan, losses: by_position.Losses, journal: Journal, say: Say
) -> Any:
    """What was measured, for the report. say: is told what is measured next."""
    found = []
    for variant in variants:
        model = Model.load(variant.model, exact=plan.exact, **variant.choices)
        engine = model.engine
        row: dict[str, Any] = {
            "name": variant.name,
            "model": model.name,
            "window": engine.window,
            "sinks": engine.sinks,
            "chunk": engine.chunk,
            "memory": engine.memory,
            "quantization": engine.quantization,
            "state_bytes": engine.state_bytes,
            "weight_bytes": engine.weight_bytes,
        }
        if plan.texts:
            say(f"{variant.name}: perplexity")
            row["perplexity"] = _perplexity(variant, model, plan, losses, journal)
        if plan.needles:
            row["needle"] = _needles(variant, model, plan, journal, say)
        if plan.depths:
            row["speed"] = [_speed(variant, model, depth, plan, journal, say) for depth in plan.depths]
            row["cost"] = _costs(model, plan)
        found.append(row)
    for row in found[:-1] if plan.needles else ():
        _add_differences(row, found[-1]["name"], journal)
    return {
        "stretches": plan.stretches,
        "samples": plan.samples,
        "isa": _core.isa_name(),
        "results": found,
    }


def _perplexity(
    variant: Variant, model: Model, plan: Plan, losses: by_position.Losses, journal: Journal
) -> Any:
    pieces = list(islice(by_position.pieces_of(model, plan.texts, plan.length), plan.stretches))
    named = [(f"{variant.name} | {name}", ids) for name, ids in pieces]
    bands = by_position.bands_of(max(len(ids) for _, ids in pieces))
    return by_position.run(model.session(plan.threads), named, bands, losses, journal, lambda: None)


def _needles(variant: Variant, model: Model, plan: Plan, journal: Journal, say: Say) -> list[dict[str, Any]]:
    answerer = Answerer(model, threads=plan.threads)
    makers = needle.tasks(needle.Haystack(plan.haystack))
    rows = []
    for length in plan.needle_lengths:
        for task in plan.needles:
            say(f"{variant.name}: {task}, {length:,} tokens")
            row = needle.measure(
                answerer,
                makers[task],
                task,
                length,
                plan.samples,
                plan.seed,
                journal,
                prefix=f"{variant.name} | ",
            )
            rows.append(row)
    return rows


def _add_differences(row: dict[str, Any], last: str, journal: Journal) -> None:
    """How much better the last variant does than this one, from the same samples: a paired difference.

    Samples differ in how hard they are. Where both see the same ones that cancels out, so the difference's
    standard error is smaller than those of the scores would make it. Left out where the samples are not the
    same, as those of models with other tokenizers, or not measured for one of both.
    """
    for cell in row["needle"]:
        keys = [f"{cell['task']} {cell['length']} {i}" for i in range(cell["samples"])]
        if not keys or any(f"{last} | {key}" not in journal for key in keys):
            continue
        pairs = [(journal[f"{row['name']} | {key}"], journal[f"{last} | {key}"]) for key in keys]
        if all(one["answers"] == other["answers"] for one, other in pairs):
            gained = [other["score"] - one["score"] for one, other in pairs]
            cell["to_last"], cell["to_last_standard_error"] = metrics.mean_and_error(gained)


def _speed(
    variant: Variant, model: Model, depth: int, plan: Plan, journal: Journal, say: Say
) -> dict[str, float]:
    key = f"{variant.name} | speed at {depth}"
    if key in journal:
        found: dict[str, float] = journal[key]
        return found
    say(f"{variant.name}: speed after {depth:,} tokens")
    rng = np.random.default_rng(plan.seed)
    session, vocabulary = model.new_engine_session(plan.threads), model.engine.vocab_size
    for begin in range(0, depth, 512):
        session.forward(rng.integers(0, vocabulary, min(512, depth - begin)), True)
    runs = [timed(session.clone(), rng.integers(0, vocabulary, 8 * plan.timed), plan.timed) for _ in range(3)]
    result = {
        "depth": depth,
        "prefill_tokens_per_s": statistics.median(run.prefill for run in runs),
        "decode_tokens_per_s": statistics.median(run.decode for run in runs),
    }
    journal.put(key, result)
    return result


def _costs(model: Model, plan: Plan) -> list[dict[str, Any]]:
    """Counted for a token after each depth, to full attention over all of it (in the same runtime) = 1."""
    config, engine = model.files.read_json("config.json"), model.engine
    chosen = {"window": engine.window, "sinks": engine.sinks, "chunk": max(1, engine.chunk)}
    shape = Shape.from_config(config | chosen)
    if shape is None:
        return []
    exact = plan.exact or engine.quantization == "none"
    ours = Cost(shape, engine.weight_bytes, exact, memory_use=engine.memory)
    full = Cost(shape, engine.weight_bytes, exact, full_attention=True)
    key_and_value = full.attention(1, 0, together=False).bytes  # of one token, in all layers
    memory = engine.state_bytes - sum(s.bytes for s in engine.states if ".attention." in s.name)
    rows = []
    for depth in plan.depths:
        token, full_token = ours.decode(depth), full.decode(depth)
        rows.append(
            {
                "depth": depth,
                "operations": token.operations,
                "bytes": token.bytes,
                "of_full_operations": token.operations / full_token.operations,
                "of_full_bytes": token.bytes / full_token.bytes,
                "of_full_state": (memory + key_and_value * min(depth, shape.window + shape.sinks))
                / (key_and_value * depth)
                if depth
                else None,
            }
        )
    return rows


# --- the page


def markdown(report: dict[str, Any], picture: str) -> str:
    """The report as a page."""
    rows = report["results"]
    lines = [f"# {', '.join(row['name'] for row in rows)}", "", f"![by length of context]({picture})", ""]
    lines += [
        "| | model | weights | window | sinks | chunk | memory | state |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['name']} | {row['model']} | {row['quantization']} | {row['window']:,} | "
            f"{row['sinks']} | {row['chunk'] or '-'} | {row['memory']} | {row['state_bytes'] / 1e6:,.1f} MB |"
        )
    if any("perplexity" in row for row in rows):
        lines += [
            "",
            f"## Perplexity by position ({', '.join(text['name'] for text in report['texts'])})",
            "",
        ]
        lines += _table(
            "tokens before",
            rows,
            "perplexity",
            lambda cell: f"{cell['begin']:,} to {cell['end']:,}",
            lambda cell: _with_error(cell["perplexity"], cell["standard_error"], 2),
        )
    if any("needle" in row for row in rows):
        lines += ["", f"## Needle suite ({report['samples']} samples of each)", ""]
        lines += _table(
            "task, tokens",
            rows,
            "needle",
            lambda cell: f"{cell['task']}, {cell['length']:,}",
            lambda cell: _percent(cell["score"], cell["standard_error"]),
        )
        paired = [{**row, "needle": [c for c in row["needle"] if "to_last" in c]} for row in rows[:-1]]
        if any(row["needle"] for row in paired):
            lines += ["", f"## Needle suite: {rows[-1]['name']} less each, on the same samples", ""]
            lines += _table(
                "task, tokens",
                paired,
                "needle",
                lambda cell: f"{cell['task']}, {cell['length']:,}",
                lambda cell: _with_error(100 * cell["to_last"], 100 * cell["to_last_standard_error"], 1),
            )
    if any("speed" in row for row in rows):
        lines += ["", f"## Tokens a second, prefill / decode ({report['isa']})", ""]
        lines += _table(
            "tokens before",
            rows,
            "speed",
            lambda cell: f"{cell['depth']:,}",
            lambda cell: f"{cell['prefill_tokens_per_s']:,.0f} / {cell['decode_tokens_per_s']:,.1f}",
        )
        lines += ["", "## A token's operations / bytes / state, counted; full attention = 100 %", ""]
        lines += _table(
            "tokens before",
            rows,
            "cost",
            lambda cell: f"{cell['depth']:,}",
            lambda cell: " / ".join(
                "-" if cell[name] is None else f"{cell[name]:.1%}"
                for name in ("of_full_operations", "of_full_bytes", "of_full_state")
            ),
        )
    return "\n".join(lines) + "\n"


def _table(
    first: str,
    rows: Sequence[dict[str, Any]],
    part: str,
    label: Callable[[dict[str, Any]], str],
    show: Callable[[dict[str, Any]], str],
) -> list[str]:
    """Lines of a table with a column for each variant."""
    cells = {row["name"]: {label(cell): show(cell) for cell in row.get(part, ())} for row in rows}
    labels: Iterable[str] = dict.fromkeys(name for of in cells.values() for name in of)
    head = [f"| {first} | {' | '.join(cells)} |", "|---|" + "---|" * len(cells)]
    return head + [f"| {name} | {' | '.join(of.get(name, '') for of in cells.values())} |" for name in labels]


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    if value is None or error is None or not math.isfinite(value):
        return "-"
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def _percent(share: float | None, error: float | None) -> str:
    return "-" if share is None or error is None else _with_error(100 * share, 100 * error, 1) + " %"


def picture(report: dict[str, Any]) -> str:
    """The report's lines over the length of the context, as an SVG."""
    rows, pictures = report["results"], []

    def draw(title: str, y_name: str, part: str, x: str, y: Callable[[dict[str, Any]], Any]) -> None:
        series = {
            row["name"]: [(max(1, cell[x]), y(cell)) for cell in row.get(part, ()) if y(cell) is not None]
            for row in rows
        }
        if any(series.values()):
            pictures.append(
                plot.lines(title, "tokens of context", y_name, series, from_zero=part != "perplexity")
            )

    draw("Perplexity by position", "perplexity", "perplexity", "end", lambda cell: cell["perplexity"])
    title, means = _needle_means(rows)
    if any(means.values()):
        pictures.append(plot.lines(title, "tokens of context", "%", means, from_zero=True))
    draw("Tokens decoded a second", "tokens/s", "speed", "depth", lambda cell: cell["decode_tokens_per_s"])
    draw(
        "Bytes moved for a token, full attention = 100 %",
        "%",
        "cost",
        "depth",
        lambda cell: 100 * cell["of_full_bytes"],
    )
    return plot.page(pictures)


def _needle_means(rows: Sequence[dict[str, Any]]) -> tuple[str, dict[str, list[tuple[float, float]]]]:
    """A title, and for each row its mean score in percent by length.

    Of the tasks that every row has at every length: means of other tasks could not be compared.
    """
    cells = [cell for row in rows for cell in row.get("needle", ())]
    left_out = {cell["task"] for cell in cells if cell["score"] is None}
    tasks = {cell["task"] for cell in cells} - left_out
    title = "Needle suite, mean" + (" (of tasks that fit into every length)" if left_out else "")
    means = {}
    for row in rows:
        by_length: dict[int, list[float]] = {}
        for cell in row.get("needle", ()):
            if cell["task"] in tasks:
                by_length.setdefault(cell["length"], []).append(cell["score"])
        means[row["name"]] = [(float(n), 100 * sum(s) / len(s)) for n, s in by_length.items()]
    return title, means
