"""`allmem-edge eval bench-files`: LongBench, InfiniteBench and LV-Eval from files that you have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from allmem_edge.cli import console
from allmem_edge.cli.options import Run, format_option, run_options
from allmem_edge.errors import ModelNotFoundError, StorageError
from allmem_edge.evaluation import bench_files
from allmem_edge.evaluation.answering import Answerer, Format, cut_in_the_middle
from allmem_edge.evaluation.journal import Journal
from allmem_edge.evaluation.metrics import mean_and_error
from allmem_edge.evaluation.settings import settings_of, texts_of
from allmem_edge.model import Model


@click.command("bench-files")
@click.argument("model")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    "--suite",
    type=click.Choice(bench_files.SUITES),
    help="The benchmark that the files belong to. [default: detected]",
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="Prompts by dataset, in the form of LongBench's dataset2prompt.json. [default: built in]",
)
@click.option("--limit", type=click.IntRange(min=1), help="Use the first N samples of each file.")
@click.option(
    "--max-length",
    type=click.IntRange(min=2),
    metavar="N",
    help="Cut longer prompts to N tokens, in the middle.",
)
@format_option
@run_options
def command(
    model: str,
    files: tuple[Path, ...],
    suite: str | None,
    prompts: Path | None,
    limit: int | None,
    max_length: int | None,
    form: Format,
    run: Run,
) -> None:
    """Score MODEL on published benchmark FILEs (JSONL), with the benchmarks' own metrics.

    docs/evaluation.md says where to get the files, and where scores differ from the original scripts.
    """
    templates = _templates(prompts) if prompts else {}
    # All files, before the first sample.
    read = [bench_files.read(path, suite=suite, templates=templates) for path in files]
    cases = [case for _, found in read for case in found[:limit]]
    loaded = Model.load(model, exact=run.exact, **run.choices)
    chat = Answerer(loaded, threads=run.threads, form=form)
    plain = chat if chat.form == "plain" else Answerer(loaded, threads=run.threads, form="plain")
    settings = settings_of(
        "bench-files",
        loaded,
        exact=run.exact,
        format=chat.form,
        prompts=texts_of([prompts] if prompts else []),
        max_length=max_length,
        files=texts_of(files),
        suite=suite,
    )
    journal = Journal(run.out, settings)
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
                scores.setdefault(group, []).append(case.score(_answer(journal[case.key], case.key, run.out)))
            progress.advance(bar)
    journal.close()
    rows: list[dict[str, Any]] = []
    for group, each in scores.items():
        mean, error = mean_and_error(each)
        rows.append({"dataset": group, "samples": len(each), "score": mean, "standard_error": error})
    suites = sorted({name for name, _ in read})
    report = settings | {"suites": suites, "limit": limit, "results": rows}
    if run.as_json:
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


def _answer(result: Any, key: str, out: Path | None) -> str:
    answer = result.get("answer") if isinstance(result, dict) else None
    if not isinstance(answer, str):
        raise StorageError(f"{out}: the result of {key} has no text 'answer'; remove its line.")
    return answer


def _templates(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelNotFoundError(f"There is no file {path}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} is not a JSON file with prompts: {error}.") from error
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise StorageError(f"{path} is not a JSON object of prompts by dataset.")
    return found
