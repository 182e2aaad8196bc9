"""`allmem-edge eval needle`: needles, variables, frequent words and questions in contexts of any length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from allmem_edge.cli import console
from allmem_edge.cli.bench import NUMBERS
from allmem_edge.cli.options import (
    choice_options,
    exact_option,
    format_option,
    json_option,
    model_argument,
    out_option,
    threads_option,
)
from allmem_edge.evaluation import needle
from allmem_edge.evaluation.answering import Answerer, Format
from allmem_edge.evaluation.journal import Journal
from allmem_edge.evaluation.metrics import mean_and_error
from allmem_edge.evaluation.recall import filler_of
from allmem_edge.evaluation.settings import settings_of
from allmem_edge.model import Model

_TASKS = tuple(needle.tasks(needle.Haystack()))


@click.command("needle")
@model_argument
@click.option(
    "--task", "wanted", type=click.Choice(_TASKS), multiple=True, help="One of them. [default: all]"
)
@click.option("--length", type=NUMBERS, default="4096", show_default=True, help="Tokens, with the answer's.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Samples of each task and length.",
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--haystack",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Hide the needles in this text instead of small talk; may be given several times.",
)
@format_option
@out_option
@choice_options()
@exact_option
@threads_option
@json_option
def command(
    model: str | None,
    wanted: tuple[str, ...],
    length: list[int],
    limit: int,
    seed: int,
    haystack: tuple[Path, ...],
    form: Format,
    out: Path | None,
    exact: bool,
    threads: int,
    as_json: bool,
    choices: dict[str, Any],
) -> None:
    """Tasks after RULER, by length of context, scored as RULER does.

    Texts are made here from the seed, so figures compare models and settings with each other, not with
    RULER's own. Every sample is read by a new session.
    """
    loaded = Model.load(model, exact=exact, **choices)
    answerer = Answerer(loaded, threads=threads, form=form)
    makers = needle.tasks(needle.Haystack(filler_of(haystack)))
    settings = settings_of(
        "needle",
        loaded,
        exact=exact,
        seed=seed,
        format=answerer.form,
        haystack=[path.name for path in haystack],
    )
    journal = Journal(out, settings)
    rows = []
    with console.progress(console.stderr()) as progress:
        for tokens in length:
            for task in wanted or _TASKS:
                bar = progress.add_task(f"{task}, {tokens:,} tokens", total=limit)
                scores = []
                for i in range(limit):
                    key = f"{task} {tokens} {i}"
                    if key not in journal:
                        journal.put(key, _ask(answerer, makers[task], task, tokens, f"{seed} {i}"))
                    scores.append(journal[key]["score"])
                    progress.advance(bar)
                progress.remove_task(bar)
                mean, error = mean_and_error(scores)
                rows.append(
                    {"task": task, "length": tokens, "samples": limit, "score": mean, "standard_error": error}
                )
    journal.close()
    report = settings | {"limit": limit, "results": rows}
    if as_json:
        console.write_json(report)
    else:
        _print(report)


def _ask(answerer: Answerer, make: needle.Make, task: str, length: int, seed: str) -> dict[str, Any]:
    sample = needle.fit(make, f"{task} {seed}", length, lambda prompt: len(answerer.ids(prompt)))
    answer = answerer.answer(answerer.ids(sample.prompt), sample.max_tokens, step=lambda: None)
    return {
        "answers": sample.answers,
        "answer": answer,
        "score": needle.score(task, answer, sample.answers),
    }


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
        table.add_row(task, *(f"{cells[n]['score']:.1%} ± {cells[n]['standard_error']:.1%}" for n in lengths))
    out.print(table)
