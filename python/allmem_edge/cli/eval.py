"""`allmem-edge eval`, and `eval recall`: tells a model facts, talks of other things for long, and asks."""

from __future__ import annotations

import re
from typing import Any, TextIO

import click
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from allmem_edge.chat import Chat
from allmem_edge.cli import console, perplexity
from allmem_edge.cli.bench import NUMBERS
from allmem_edge.cli.options import (
    choice_options,
    exact_option,
    json_option,
    model_argument,
    threads_option,
)
from allmem_edge.dialogues import DENIAL, Generator, Turn
from allmem_edge.model import Model

_MAX_ANSWER = 32  # tokens
_READ_TURNS = 32  # turns between two steps of the progress bar


@click.group("eval")
def command() -> None:
    """Measure what a model can do."""


command.add_command(perplexity.command)


@command.command("recall")
@model_argument
@click.option(
    "--distance", type=NUMBERS, help="Tokens between fact and question. [default: 8 and 128 windows]"
)
@click.option(
    "--questions", type=click.IntRange(min=1), default=200, show_default=True, help="For each distance."
)
@click.option(
    "--facts", type=click.IntRange(1, 50), default=2, show_default=True, help="Told in one conversation."
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--unknown", is_flag=True, help="Ask for what was never told: right is to say so.")
@click.option(
    "--paste",
    type=click.File("r", encoding="utf-8", errors="replace"),
    metavar="FILE",
    help="Before the questions, send the text of FILE (-: of stdin) as a message.",
)
@choice_options()
@exact_option
@threads_option
@json_option
def recall(
    model: str | None,
    distance: list[int] | None,
    questions: int,
    facts: int,
    seed: int,
    unknown: bool,
    paste: TextIO | None,
    exact: bool,
    threads: int,
    as_json: bool,
    choices: dict[str, Any],
) -> None:
    """Facts told, then asked for, beyond the window.

    Conversations come from the seeded generator of allmem_edge.dialogues, with values that training never
    saw. Each tells some facts, fills the distance with small talk, then asks for each fact from the same
    state. An answer is right if it contains the exact value as words of its own; with --unknown, if it says
    that it does not know.
    """
    loaded = Model.load(model, exact=exact, **choices)
    window = loaded.engine.window
    stderr = console.stderr()
    pasted = paste.read() if paste else ""
    results = []
    with console.progress(stderr) as progress:
        for tokens in distance or [8 * window, 128 * window]:
            task = progress.add_task(f"distance {tokens:,}", total=questions)
            chat = loaded.chat(threads=threads, temperature=0.0, max_tokens=_MAX_ANSWER)
            correct = _evaluate(chat, tokens, questions, facts, seed, unknown, pasted, progress, task)
            results.append(
                {
                    "distance": tokens,
                    "facts": facts,
                    "frozen": loaded.engine.memory == "frozen",
                    "memory": loaded.engine.memory,
                    "unknown": unknown,
                    "pasted_characters": len(pasted),
                    "correct": correct,
                    "total": questions,
                    "accuracy": correct / questions,
                }
            )
    report = {"model": loaded.name, "window": window, "seed": seed, "exact": exact, "results": results}
    if as_json:
        console.write_json(report)
    else:
        _print(report)


def _evaluate(
    chat: Chat,
    distance: int,
    questions: int,
    facts: int,
    seed: int,
    unknown: bool,
    pasted: str,
    progress: Progress,
    task: TaskID,
) -> int:
    """How many of `questions` are answered right, over as many conversations as it takes."""
    tokenizer = chat.session.model.tokenizer
    dialogues = Generator(seed, held_out=True)
    asked = correct = 0
    while asked < questions:
        turns = dialogues.recall_case(
            distance, lambda text: len(tokenizer.encode(text, False)), facts, unknown=unknown
        )
        told, questioned = turns[:-facts], turns[-facts:]
        chat.reset()
        for begin in range(0, len(told), _READ_TURNS):
            chat.read((turn.user, turn.assistant) for turn in told[begin : begin + _READ_TURNS])
            progress.refresh()
        if pasted:
            list(chat.send(pasted))
        for turn in questioned[: questions - asked]:
            correct += is_right("".join(chat.fork().send(turn.user)), turn)
            asked += 1
            progress.advance(task)
    return correct


def is_right(text: str, turn: Turn) -> bool:
    """Whether `text` contains the turn's answer, exactly and not as a part of a longer word or number; if it
    has none, whether `text` says so."""
    if turn.kind == "ask_unknown":
        return DENIAL in text
    return turn.answer is not None and re.search(rf"(?<!\w){re.escape(turn.answer)}(?!\w)", text) is not None


def _print(report: dict[str, Any]) -> None:
    out = Console(highlight=False, soft_wrap=True)
    pasted = report["results"][0]["pasted_characters"]
    after = f", after a message of {pasted:,} characters" if pasted else ""
    out.print(f"recall of {report['model']}, window {report['window']} tokens{after}", markup=False)
    table = Table("distance", "windows", "facts", "memory", "right", "accuracy", box=None)
    for row in report["results"]:
        table.add_row(
            f"{row['distance']:,}",
            f"{row['distance'] / max(1, report['window']):g}",
            "not told" if row["unknown"] else str(row["facts"]),
            row["memory"],
            f"{row['correct']} of {row['total']}",
            f"{row['accuracy']:.1%}",
        )
    out.print(table)
