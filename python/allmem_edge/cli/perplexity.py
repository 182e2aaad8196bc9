"""`allmem-edge eval perplexity`: how well a model expects texts by position, or what is said in dialogues."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from allmem_edge.cli import console
from allmem_edge.cli.options import Run, model_argument, run_options
from allmem_edge.dialogues import Generator, Turn
from allmem_edge.errors import InvalidArgumentError, StorageError
from allmem_edge.evaluation import by_position
from allmem_edge.evaluation import plot as plotting
from allmem_edge.evaluation.journal import Journal
from allmem_edge.evaluation.log_softmax import log_softmax
from allmem_edge.evaluation.settings import settings_of, texts_of
from allmem_edge.model import Model
from allmem_edge.session import Session
from allmem_edge.turns import Exchange, Turns, messages_of
from allmem_edge.words import Segment, skip, text_of

_READ_TOKENS = 256  # logits that are held at a time: 155 MB for a vocabulary of 152 thousand
_ALL, _REPLIES = "assistant", "replies to questions"


@click.command("perplexity")
@model_argument
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE]...")
@click.option(
    "--length",
    type=click.IntRange(min=2),
    default=16_384,
    show_default=True,
    help="Tokens of a stretch of text.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Maximum number of stretches.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.svg",
    help="Plot perplexity by position.",
)
@click.option(
    "--dialogues",
    "count",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="Number of dialogues.",
)
@click.option(
    "--turns",
    type=click.IntRange(7, 100_000),
    default=100,
    show_default=True,
    help="Turns of a dialogue; 100 are about 2,600 tokens of the bundled model.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Random seed.")
@run_options
def command(
    model: str | None,
    files: tuple[Path, ...],
    length: int,
    limit: int | None,
    plot: Path | None,
    count: int,
    turns: int,
    seed: int,
    run: Run,
) -> None:
    """Measure the perplexity of texts by position, or of generated dialogues.

    With text FILEs (the first argument may be one, in place of MODEL), each is cut into stretches of --length
    tokens. A new session reads each stretch, and perplexity is listed by the number of tokens before.

    Without FILEs, dialogues are generated as for the bundled model's training, with values that are not in
    it. Perplexity is measured over all that the assistant says, and over its replies to questions about what
    it was told.
    """
    if model is not None and Path(model).is_file() and Path(model).suffix != ".onnx":
        files, model = (Path(model), *files), None
    loaded = Model.load(model, exact=run.exact, **run.choices)
    session = loaded.session(run.threads)
    if files:
        _by_position(loaded, session, files, length, limit, plot, run)
        return
    if plot is not None or run.out is not None:
        raise InvalidArgumentError("--plot and --out are for texts by position; name their files.")
    sums = {part: (0.0, 0) for part in (_ALL, _REPLIES)}  # Σ -log p, tokens
    with console.progress(console.stderr()) as progress:
        task = progress.add_task("dialogues", total=count)
        for dialogue in held_out_dialogues(seed, count, turns):
            session.reset()
            ids, parts = tokens_of(loaded, dialogue)
            losses = token_losses(session, ids)
            for part, mask in parts.items():
                total, tokens = sums[part]
                sums[part] = total + float(losses[mask].sum()), tokens + int(mask.sum())
            progress.advance(task)
    results = [
        {"of": part, "tokens": tokens, "perplexity": math.exp(total / tokens) if tokens else None}
        for part, (total, tokens) in sums.items()
    ]
    report = settings_of(
        "perplexity of dialogues",
        loaded,
        exact=run.exact,
        seed=seed,
        dialogues=count,
        turns=turns,
        frozen=loaded.engine.memory == "frozen",
        results=results,
    )
    if run.as_json:
        console.write_json(report)
    else:
        _print(report)


def _by_position(
    loaded: Model,
    session: Session,
    files: tuple[Path, ...],
    length: int,
    limit: int | None,
    plot: Path | None,
    run: Run,
) -> None:
    engine = loaded.engine
    settings = settings_of("perplexity", loaded, exact=run.exact, files=texts_of(files), length=length)
    journal = Journal(run.out, settings)
    with console.progress(console.stderr()) as progress:
        task = progress.add_task("reading", total=limit)
        pieces = list(islice(by_position.pieces_of(loaded, files, length), limit))
        progress.update(task, total=len(pieces))
        bands = by_position.bands_of(max(len(ids) for _, ids in pieces))
        rows = by_position.run(session, pieces, bands, token_losses, journal, lambda: progress.advance(task))
    journal.close()
    report = settings | {"pieces": len(pieces), "results": rows}
    if plot is not None:
        line = [(row["end"], row["perplexity"]) for row in rows if row["perplexity"] is not None]
        picture = plotting.lines(f"{loaded.name}", "tokens before, at most", "perplexity", {"": line})
        try:
            plot.write_text(picture, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"The picture {plot} cannot be written: {error.strerror}.") from error
    if run.as_json:
        console.write_json(report)
        return
    screen = console.stdout()
    screen.print(
        f"perplexity of {loaded.name}, window {engine.window} tokens, memory {engine.memory}, of "
        f"{len(pieces)} stretches of at most {length:,} tokens",
    )
    table = Table("tokens before", "tokens", "perplexity", "± ", box=None)
    for row in rows:
        known = row["perplexity"] is not None
        table.add_row(
            f"{row['begin']:,} to {row['end']:,}",
            f"{row['tokens']:,}",
            f"{row['perplexity']:.4f}" if known else "none",
            f"{row['standard_error']:.4f}" if known else "",
        )
    screen.print(table)


def held_out_dialogues(seed: int, count: int, turns: int) -> list[list[Turn]]:
    """Dialogues as the last part of the bundled model's training has them (export/configs/bundled-5.toml),
    with values that it never has."""
    rng, generator = random.Random(seed), Generator(seed, held_out=True)
    return [
        generator.dialogue(
            turns, rng.randint(2, 6), rng.uniform(0.2, 0.85), spread=rng.uniform(0.05, 0.7), unknown=0.22
        )
        for _ in range(count)
    ]


def tokens_of(model: Model, dialogue: Sequence[Turn]) -> tuple[list[int], dict[str, NDArray[np.bool_]]]:
    """A dialogue as tokens [T], and which of them count for each of the figures, [T]."""
    tokenizer, template, stops = model.tokenizer, model.chat_template, set(model.stop_ids)
    turns = Turns(template, tokenizer.special_tokens)
    ids: list[int] = []
    said_by: list[Turn | None] = []  # the turn whose reply a token is part of

    def add(segments: list[Segment], before: Turn | None) -> None:
        """What is not the assistant's, but for the mark that ends the reply before it."""
        frame = tokenizer.encode_parts(segments)
        of: list[Turn | None] = [None] * len(frame)
        if frame and frame[0] in stops:
            of[0] = before
        ids.extend(frame)
        said_by.extend(of)

    exchanges = [Exchange(turn.user, turn.assistant) for turn in dialogue]
    for i, turn in enumerate(dialogue):
        before = (exchanges[i - 1], dialogue[i - 1]) if i else (None, None)
        add(turns.turn(turn.user, after=i, last=before[0]), before[1])
        reply = tokenizer.encode(turn.assistant, special=False)
        ids += reply
        said_by += [turn] * len(reply)
    last = [*messages_of(exchanges[-1:])]
    shown = template.render(last, add_generation_prompt=False)
    add(skip(shown, text_of(shown).rindex(exchanges[-1].answer) + len(exchanges[-1].answer)), dialogue[-1])
    return ids, {
        _ALL: np.array([turn is not None for turn in said_by]),
        _REPLIES: np.array([turn is not None and turn.kind == "ask" for turn in said_by]),
    }


def token_losses(session: Session, ids: Sequence[int]) -> NDArray[np.float64]:
    """-log p of every token given those before it, [T]; the first, which has none, counts as 0."""
    losses = np.zeros(len(ids))
    for begin in range(0, len(ids) - 1, _READ_TOKENS):
        end = min(begin + _READ_TOKENS, len(ids) - 1)
        log_p = log_softmax(session.forward(ids[begin:end]))
        losses[begin + 1 : end + 1] = -log_p[np.arange(end - begin), ids[begin + 1 : end + 1]]
    return losses


def _print(report: dict[str, Any]) -> None:
    out = console.stdout()
    memory = f", memory {report['memory']}" if report["memory"] != "on" else ""
    out.print(f"perplexity of {report['model']}, window {report['window']} tokens{memory}")
    table = Table("of", "tokens", "perplexity", box=None)
    for row in report["results"]:
        perplexity = "none" if row["perplexity"] is None else f"{row['perplexity']:.4f}"
        table.add_row(row["of"], f"{row['tokens']:,}", perplexity)
    out.print(table)
