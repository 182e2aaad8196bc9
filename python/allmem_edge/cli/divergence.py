"""`allmem-edge eval divergence`: whether a model still talks as the base that it was made from."""

from __future__ import annotations

import click

from allmem_edge.cli import console
from allmem_edge.cli.options import Run, model_argument, run_options
from allmem_edge.evaluation import divergence
from allmem_edge.evaluation.journal import Journal
from allmem_edge.evaluation.settings import settings_of
from allmem_edge.model import Model, fingerprint


@click.command("divergence")
@model_argument
@click.option(
    "--base",
    "base_name",
    required=True,
    metavar="MODEL",
    help="The model directory of the base; its memory is left out.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Maximum number of questions.")
@run_options
def command(model: str | None, base_name: str, limit: int | None, run: Run) -> None:
    """Measure how far a model is from its base in short chats.

    The base answers ordinary questions, greedily and in its own chat format. Both models read question and
    answer, and KL(base ‖ model) of the next token is averaged over the answers' tokens: 0 is the same model.
    """
    loaded = Model.load(model, exact=run.exact, **run.choices)
    base = Model.load(base_name, exact=run.exact, memory="off")
    asked = divergence.questions()[:limit]
    settings = settings_of(
        "divergence", loaded, exact=run.exact, base=base.name, base_fingerprint=fingerprint(base)
    )
    journal = Journal(run.out, settings)
    with console.progress(console.stderr()) as progress:
        task = progress.add_task("questions", total=len(asked))
        results = divergence.measure(
            base, loaded, asked, journal, threads=run.threads, done=lambda: progress.advance(task)
        )
    journal.close()
    if run.as_json:
        console.write_json(settings | {"results": results})
        return
    console.stdout().print(
        f"{loaded.name} beside {base.name}: {results['questions']} questions, answers of "
        f"{results['tokens']:,} tokens.\n"
        f"KL {results['kl']:.4f} ± {results['standard_error']:.4f} nats a token; "
        f"the same token is the most likely at {results['same_most_likely']:.1%}.",
    )
