"""`allmem-edge eval needle`: needles, variables, frequent words and questions in contexts of any length."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from allmem_edge.cli import console
from allmem_edge.cli.bench import NUMBERS
from allmem_edge.cli.options import Run, format_option, model_argument, run_options
from allmem_edge.evaluation import needle
from allmem_edge.evaluation.answering import Answerer, Format
from allmem_edge.evaluation.journal import Journal
from allmem_edge.evaluation.recall import filler_of
from allmem_edge.evaluation.settings import settings_of, texts_of
from allmem_edge.model import Model

_TASKS = tuple(needle.tasks(needle.Haystack()))


@click.command("needle")
@model_argument
@click.option(
    "--task",
    "wanted",
    type=click.Choice(_TASKS),
    multiple=True,
    help="A task; may be repeated. [default: all]",
)
@click.option(
    "--length", type=NUMBERS, default="4096", show_default=True, help="Tokens of a prompt and its answer."
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Samples per task and length.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Random seed.")
@click.option(
    "--haystack",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Hide the needles in this text instead of small talk; may be repeated.",
)
@format_option
@run_options
def command(
    model: str | None,
    wanted: tuple[str, ...],
    length: list[int],
    limit: int,
    seed: int,
    haystack: tuple[Path, ...],
    form: Format,
    run: Run,
) -> None:
    """Run RULER's tasks at several lengths of context, scored as RULER does.

    Texts are generated from the seed: scores compare models and settings with each other, not with RULER's
    published scores. Every sample is read by a new session.
    """
    loaded = Model.load(model, exact=run.exact, **run.choices)
    answerer = Answerer(loaded, threads=run.threads, form=form)
    makers = needle.tasks(needle.Haystack(filler_of(haystack)))
    settings = settings_of(
        "needle",
        loaded,
        exact=run.exact,
        seed=seed,
        format=answerer.form,
        haystack=texts_of(haystack),
    )
    journal = Journal(run.out, settings)
    rows = []
    with console.progress(console.stderr()) as progress:
        for tokens in length:
            for task in wanted or _TASKS:
                bar = progress.add_task(f"{task}, {tokens:,} tokens", total=limit)
                step = functools.partial(progress.advance, bar)
                rows.append(
                    needle.measure(answerer, makers[task], task, tokens, limit, seed, journal, step=step)
                )
                progress.remove_task(bar)
    journal.close()
    report = settings | {"limit": limit, "results": rows}
    if run.as_json:
        console.write_json(report)
    else:
        _print(report)


def _print(report: dict[str, Any]) -> None:
    out = console.stdout()
    out.print(
        f"needle suite, {report['model']}, window {report['window']}, memory {report['memory']}, "
        f"{report['limit']} samples of each, ± one standard error",
    )
    lengths = list(dict.fromkeys(row["length"] for row in report["results"]))
    table = Table("task", *(f"{length:,} tokens" for length in lengths), box=None)
    for task in dict.fromkeys(row["task"] for row in report["results"]):
        cells = {row["length"]: row for row in report["results"] if row["task"] == task}
        table.add_row(task, *(_cell(cells[n]) for n in lengths))
    out.print(table)
    if any(row["score"] is None for row in report["results"]):
        out.print("- not measured: the task's shortest sample has more tokens")


def _cell(row: dict[str, Any]) -> str:
    return "-" if row["score"] is None else f"{row['score']:.1%} ± {row['standard_error']:.1%}"
