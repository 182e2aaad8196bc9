"""`allmem-edge compare`: models and settings side by side, by quality and by cost, as one page."""

from __future__ import annotations

import json
from pathlib import Path

import click

from allmem_edge.cli import console
from allmem_edge.cli.bench import NUMBERS
from allmem_edge.cli.options import exact_option, threads_option
from allmem_edge.cli.perplexity import token_losses
from allmem_edge.errors import InvalidArgumentError, StorageError
from allmem_edge.evaluation import compare, needle
from allmem_edge.evaluation.journal import Journal
from allmem_edge.evaluation.recall import filler_of
from allmem_edge.model import Model

_TASKS = tuple(needle.tasks(needle.Haystack()))
_QUICK_TASKS = ("niah_single_2", "vt")


@click.command("compare")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="NAME:KEY=VALUE,...",
    help="A column of the comparison, with keys window, sinks, chunk and memory (on, frozen, off); may be "
    "repeated. [default: full attention, window only, memory frozen, memory on]",
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Output directory."
)
@click.option(
    "--text",
    "texts",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Measure perplexity by position on this text; may be repeated.",
)
@click.option(
    "--length",
    type=click.IntRange(min=2),
    default=16_384,
    show_default=True,
    help="Length of a text in tokens.",
)
@click.option(
    "--stretches",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Number of texts of that length.",
)
@click.option(
    "--needle",
    "tasks",
    type=click.Choice(_TASKS),
    multiple=True,
    help="Needle task; may be repeated. [default: all]",
)
@click.option(
    "--needle-length",
    type=NUMBERS,
    default="1024,4096",
    show_default=True,
    help="Lengths of the needle tasks in tokens; 0: none.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Samples per task and length.",
)
@click.option(
    "--depth",
    type=NUMBERS,
    default="0,4096,16384",
    show_default=True,
    help="Depths of context at which speed and cost are measured.",
)
@click.option("--no-speed", is_flag=True, help="Skip speed and cost.")
@click.option(
    "--quick", is_flag=True, help="A rough comparison in minutes: two tasks, few samples, short texts."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Random seed.")
@exact_option
@threads_option
def command(
    models: tuple[str, ...],
    settings: tuple[str, ...],
    out: Path,
    texts: tuple[Path, ...],
    length: int,
    stretches: int,
    tasks: tuple[str, ...],
    needle_length: list[int],
    samples: int,
    depth: list[int],
    no_speed: bool,
    quick: bool,
    seed: int,
    exact: bool,
    threads: int,
) -> None:
    """Measure MODELs (default: the bundled one) in several settings and write a one-page comparison.

    Writes comparison.md, comparison.json and comparison.svg to the output directory. Results are kept in
    results.jsonl there: run the same command again to resume.
    """
    if quick:
        length, stretches, samples = min(length, 2048), min(stretches, 1), min(samples, 4)
        tasks = tuple(task for task in tasks or _QUICK_TASKS if task in _QUICK_TASKS) or tasks[:1]
        needle_length = [n for n in needle_length if n <= 2048] or [1024]
        depth = [n for n in depth if n <= 4096] or [0]
    lengths = [n for n in needle_length if n > 0]
    plan = compare.Plan(
        texts=texts,
        length=length,
        stretches=stretches,
        needles=(tasks or _TASKS) if lengths else (),
        needle_lengths=lengths,
        samples=samples,
        depths=() if no_speed else sorted(set(depth)),
        seed=seed,
        threads=threads,
        exact=exact,
        haystack=filler_of(texts),
    )
    variants = _variants(models, settings, max([length, *lengths, *plan.depths]))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"The directory {out} cannot be created: {error.strerror}.") from error
    chosen = compare.settings(variants, plan)
    journal = Journal(out / "results.jsonl", chosen)
    with console.stderr().status("comparing ...") as status:
        report = chosen | compare.run(variants, plan, token_losses, journal, status.update)
    journal.close()
    files = {
        "comparison.json": json.dumps(report, ensure_ascii=True, indent=2) + "\n",
        "comparison.svg": compare.picture(report),
        "comparison.md": compare.markdown(report, "comparison.svg"),
    }
    for name, content in files.items():
        try:
            (out / name).write_text(content, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{out / name} cannot be written: {error.strerror}.") from error
    click.echo(str(out / "comparison.md"))


def _variants(models: tuple[str, ...], settings: tuple[str, ...], longest: int) -> list[compare.Variant]:
    """A column for each model and setting. Full attention's window holds the longest context."""
    found = []
    for model in models or (None,):
        prefix = f"{Model.load(model).name}, " if len(models) > 1 else ""
        whole = min(-(-(longest + 1024) // 1024) * 1024, 1 << 20)
        full = f"full attention:window={whole},memory=off"
        own = settings or (full, "window:memory=off", "frozen:memory=frozen", "memory")
        found += [compare.Variant.parse(text, model, prefix) for text in own]
    names = [variant.name for variant in found]
    if len(set(names)) < len(names):
        raise InvalidArgumentError(
            "Two columns have the same name; give each setting, and each model, its own."
        )
    return found
