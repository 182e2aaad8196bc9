"""`allmem-edge eval bench-files`: LongBench, InfiniteBench and LV-Eval from files that you have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from allmem_edge.cli import console
from allmem_edge.cli.options import (
    choice_options,
    exact_option,
    format_option,
    json_option,
    out_option,
    threads_option,
)
from allmem_edge.errors import ModelNotFoundError, StorageError
from allmem_edge.evaluation import bench_files
from allmem_edge.evaluation.answering import Answerer, Format, cut_in_the_middle
from allmem_edge.evaluation.journal import Journal
from allmem_edge.evaluation.metrics import mean_and_error
from allmem_edge.evaluation.settings import settings_of
from allmem_edge.model import Model


@click.command("bench-files")
@click.argument("model")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--suite", type=click.Choice(bench_files.SUITES), help="Whose files they are. [default: as they look]"
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="Prompts by dataset, as LongBench's dataset2prompt.json, instead of ours.",
)
@click.option("--limit", type=click.IntRange(min=1), help="The first N samples of each file.")
@click.option(
    "--max-length",
    type=click.IntRange(min=2),
    metavar="N",
    help="Cut longer prompts in the middle to N tokens.",
)
@format_option
@out_option
@choice_options()
@exact_option
@threads_option
@json_option
def command(
    model: str,
    files: tuple[Path, ...],
    suite: str | None,
    prompts: Path | None,
    limit: int | None,
    max_length: int | None,
    form: Format,
    out: Path | None,
    exact: bool,
    threads: int,
    as_json: bool,
    choices: dict[str, Any],
) -> None:
    """Score MODEL on benchmark FILEs (JSONL as published), with the benchmarks' own metrics.

    docs/evaluation.md says where the files come from, and where our scores differ from the makers' scripts.
    """
    templates = _templates(prompts) if prompts else {}
    read = [
        bench_files.read(path, suite=suite, templates=templates) for path in files
    ]  # all, before the first
    cases = [case for _, found in read for case in found[:limit]]
    loaded = Model.load(model, exact=exact, **choices)
    chat = Answerer(loaded, threads=threads, form=form)
    plain = chat if chat.form == "plain" else Answerer(loaded, threads=threads, form="plain")
    settings = settings_of(
        "bench-files",
        loaded,
        exact=exact,
        format=chat.form,
        prompts=prompts.name if prompts else None,
        max_length=max_length,
    )
    journal = Journal(out, settings)
    scores: dict[str, list[float]] = {}
    with console.progress(console.stderr()) as progress:
        bar = progress.add_task("samples", total=len(cases))
        for case in cases:
            if case.key not in journal:
                answerer = plain if case.plain else chat
                ids = cut_in_the_middle(answerer.ids(case.prompt), max_length)
                answer = answerer.answer(ids, case.max_tokens, step=progress.refresh)
                journal.put(case.key, {"tokens": len(ids), "answer": answer})
            for group in case.groups:
                scores.setdefault(group, []).append(case.score(journal[case.key]["answer"]))
            progress.advance(bar)
    journal.close()
    rows: list[dict[str, Any]] = []
    for group, each in scores.items():
        mean, error = mean_and_error(each)
        rows.append({"dataset": group, "samples": len(each), "score": mean, "standard_error": error})
    suites = sorted({name for name, _ in read})
    report = settings | {"suites": suites, "files": [p.name for p in files], "limit": limit, "results": rows}
    if as_json:
        console.write_json(report)
        return
    screen = console.stdout()
    screen.print(
        f"{', '.join(suites)} of {loaded.name}, window {report['window']}, memory {report['memory']}",
    )
    table = Table("dataset", "samples", "score", "± ", box=None)
    for row in rows:
        table.add_row(
            row["dataset"], str(row["samples"]), f"{row['score']:.1%}", f"{row['standard_error']:.1%}"
        )
    screen.print(table)


def _templates(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"There is no file {path}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} is no JSON file with prompts: {error}.") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise StorageError(f"{path} is no JSON object of prompts by dataset.")
    return found
