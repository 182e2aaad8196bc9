"""`allmem-edge eval`, and `eval recall`: tells a model facts, talks of other things for long, and asks."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import click
from rich.table import Table

from allmem_edge.chat import Chat
from allmem_edge.cli import bench_files, console, divergence, needle, perplexity
from allmem_edge.cli.bench import NUMBERS
from allmem_edge.cli.options import Run, model_argument, run_options
from allmem_edge.dialogues import DENIAL, Turn
from allmem_edge.evaluation.divergence import questions as ordinary_questions
from allmem_edge.evaluation.journal import Journal
from allmem_edge.evaluation.recall import Cases, Phrasings, filler_of
from allmem_edge.evaluation.settings import settings_of, texts_of
from allmem_edge.model import Model

_MAX_ANSWER = 32  # tokens
_MAX_REPLY = 100  # the same, where the model talks by itself
_READ_TURNS = 32  # turns between two steps of the progress bar


@click.group("eval")
def command() -> None:
    """Measure what a model can do."""


command.add_command(perplexity.command)
command.add_command(needle.command)
command.add_command(divergence.command)
command.add_command(bench_files.command)


@command.command("recall")
@model_argument
@click.option(
    "--distance", type=NUMBERS, help="Tokens between a fact and its question. [default: 8 and 128 windows]"
)
@click.option(
    "--turns",
    type=click.IntRange(min=1),
    help="Instead of a distance: this many ordinary questions, which the model answers itself.",
)
@click.option(
    "--questions",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Questions for each distance.",
)
@click.option(
    "--facts", type=click.IntRange(1, 50), default=2, show_default=True, help="Facts told in a conversation."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Random seed.")
@click.option("--unknown", is_flag=True, help="Ask about what was never told; the right answer is to say so.")
@click.option(
    "--corrected",
    is_flag=True,
    help="Tell each fact anew with another value, after the distance and with as much again to its question.",
)
@click.option(
    "--phrasings",
    type=click.Choice(["generator", "people", "both"]),
    default="generator",
    show_default=True,
    help="Wording of facts and questions: from the training generator, written by people, or half of each.",
)
@click.option(
    "--filler",
    "filler_files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Fill the distance with passages of this text instead of small talk; may be repeated.",
)
@click.option(
    "--paste",
    type=click.File("r", encoding="utf-8", errors="replace"),
    metavar="FILE",
    help="Send the text of FILE (-: stdin) as a message before the questions.",
)
@click.option("--paste-frozen", is_flag=True, help="Freeze the memory while that message is read.")
@run_options
def recall(
    model: str | None,
    distance: list[int] | None,
    turns: int | None,
    questions: int,
    facts: int,
    seed: int,
    unknown: bool,
    corrected: bool,
    phrasings: Phrasings,
    filler_files: tuple[Path, ...],
    paste: TextIO | None,
    paste_frozen: bool,
    run: Run,
) -> None:
    """Tell facts, then ask for them from beyond the window.

    Each conversation tells some facts, fills the distance with small talk or with passages of text files,
    and asks for each fact, in the model's own chat format. Conversations are generated from the seed, with
    values that are not in the training data. An answer is right if it contains the exact value as a whole
    word; with --unknown, if it says "You have not told me", as these models are trained to.

    With --turns the conversation is the model's own, sampled as `allmem-edge chat` samples: it replies to
    each fact, then to ordinary questions, then to the questions for the facts.
    """
    if turns and (distance or filler_files):
        raise click.UsageError("--turns takes the place of --distance and --filler.")
    if unknown and corrected:
        raise click.UsageError("--unknown asks for what was never told, so there is nothing to correct.")
    loaded = Model.load(model, exact=run.exact, **run.choices)
    engine = loaded.engine
    pasted = paste.read() if paste else ""
    distances = [0] if turns else distance or [8 * engine.window, 128 * engine.window]
    sampling: dict[str, Any] = (
        {"max_tokens": _MAX_REPLY} if turns else {"temperature": 0.0, "max_tokens": _MAX_ANSWER}
    )
    chat = loaded.chat(threads=run.threads, undo_bytes=0, **sampling)
    settings = settings_of(
        "recall",
        loaded,
        exact=run.exact,
        seed=seed,
        facts=facts,
        unknown=unknown,
        corrected=corrected,
        phrasings=phrasings,
        filler=texts_of(filler_files),
        turns=turns,
        pasted_characters=len(pasted),
        paste_frozen=paste_frozen,
        sampling={name: value for name, value in chat.sampling.items() if name != "seed"},  # drawn anew
    )
    filler = filler_of(filler_files)
    journal = Journal(run.out, settings)
    results = []
    with console.progress(console.stderr()) as progress:
        tokenizer = loaded.tokenizer
        for tokens in distances:
            task = progress.add_task(f"{turns} turns" if turns else f"distance {tokens:,}", total=questions)
            cases = Cases(
                seed, lambda text: len(tokenizer.encode(text, False)), phrasings=phrasings, filler=filler
            )
            talk = Talk(chat, (pasted, paste_frozen), turns, progress.refresh)
            answers: list[dict[str, Any]] = []
            while len(answers) < questions:
                key = f"{tokens} {len(answers)}"
                told, asked = cases.case(tokens, facts, unknown=unknown, corrected=corrected)
                if key not in journal:
                    journal.put(key, talk.answers(told, asked, f"{seed} {key}"))
                for turn, answer in zip(asked, journal[key], strict=True):
                    right, old = is_right(answer["answer"], turn), says(answer["answer"], turn.old)
                    answers.append(answer | {"right": right, "old": old and not right})
                progress.update(task, completed=min(questions, len(answers)))
            answers = answers[:questions]
            rights = [answer["right"] for answer in answers]
            talks = [rights[first : first + facts] for first in range(0, questions, facts)]
            results.append(
                {
                    "distance": round(sum(answer["away"] for answer in answers) / questions)
                    if turns
                    else tokens,
                    "turns": turns,
                    "facts": facts,
                    "frozen": engine.memory == "frozen",
                    "memory": engine.memory,
                    "unknown": unknown,
                    "pasted_characters": len(pasted),
                    "paste_frozen": paste_frozen,
                    "correct": sum(rights),
                    "total": questions,
                    "accuracy": sum(rights) / questions,
                    "old": sum(answer["old"] for answer in answers) if corrected else None,
                    "standard_error": standard_error(talks),
                    # the share of the replies to ordinary questions, each asked once, that are an earlier one
                    "repeated": sum(answer["repeated"] for answer in answers) / questions if turns else None,
                    "by_phrasing": _by_phrasing(answers),
                }
            )
    journal.close()
    report = settings | {"results": results}
    if run.as_json:
        console.write_json(report)
    else:
        _print(report)


@dataclass
class Talk:
    """How conversations go."""

    chat: Chat
    paste: tuple[str, bool]  # a message before the questions, and whether it is read frozen
    turns: int | None  # ordinary questions between, in a chat of the model's own
    refresh: Callable[[], None]

    def answers(self, told: list[Turn], asked: list[Turn], seed: str) -> list[dict[str, Any]]:
        """What is answered to each question of a conversation, and how far away it was told, in tokens."""
        chat = self.chat
        chat.reset()
        begin, repeated = 0, 0.0
        if self.turns:
            ordinary, rng = ordinary_questions(), random.Random(seed)
            rng.shuffle(ordinary)
            chat.sampling = {**chat.sampling, "seed": rng.getrandbits(64)}
            self._say([turn.user for turn in told])
            begin = chat.session.position
            said = self._say([ordinary[i % len(ordinary)] for i in range(self.turns)])
            said = said[: len(ordinary)]  # a question that comes again may well have the same answer
            repeated = 1 - len(set(said)) / len(said)
        else:
            for first in range(0, len(told), _READ_TURNS):
                chat.read((turn.user, turn.assistant) for turn in told[first : first + _READ_TURNS])
                self.refresh()
        pasted, frozen = self.paste
        if pasted:
            before = chat.session.frozen
            chat.session.freeze(before or frozen)
            list(chat.send(pasted))
            chat.session.freeze(before)
        away = chat.session.position - begin
        return [
            {
                "key": turn.key,
                "value": turn.answer,
                "answer": "".join(chat.fork().send(turn.user)),
                "away": away,
                "repeated": repeated,
            }
            for turn in asked
        ]

    def _say(self, messages: list[str]) -> list[str]:
        """What the model says to each message."""
        said = []
        for message in messages:
            said.append("".join(self.chat.send(message)))
            self.refresh()
        return said


def _by_phrasing(answers: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for answer in answers:
        source = "people" if str(answer["key"]).startswith("people:") else "generator"
        of = counts.setdefault(source, {"correct": 0, "total": 0})
        of["correct"] += answer["right"]
        of["total"] += 1
    return counts


def standard_error(talks: Sequence[Sequence[bool]]) -> float | None:
    """Of the share of right answers: conversations are independent, the questions of one are not.

    talks: which answers of each conversation are right. None for a single one, which tells nothing about it.
    """
    total, count = sum(map(len, talks)), len(talks)
    if count < 2:
        return None
    share = sum(map(sum, talks)) / total
    spread = sum((sum(right) - share * len(right)) ** 2 for right in talks)
    return math.sqrt(spread * count / (count - 1)) / total


def is_right(text: str, turn: Turn) -> bool:
    """Whether `text` says the turn's answer; if it has none, whether `text` says so."""
    # Adapters also say "You have not told me that yet."
    return DENIAL.rstrip(".") in text if turn.kind == "ask_unknown" else says(text, turn.answer)


def says(text: str, value: str | None) -> bool:
    """Whether `text` contains `value`, exactly and not as a part of a longer word or number."""
    return value is not None and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def _print(report: dict[str, Any]) -> None:
    out = console.stdout()
    pasted = report["results"][0]["pasted_characters"]
    after = f", after a message of {pasted:,} characters" if pasted else ""
    if pasted and report["paste_frozen"]:
        after += " that was read with the memory frozen"
    turns = report["turns"]
    if turns:
        after += f", after {turns} turns of ordinary talk"
    out.print(
        f"recall of {report['model']}, window {report['window']} tokens{after}",
    )
    table = Table("distance", "windows", "facts", "memory", "right", "accuracy", "± ", box=None)
    for row in report["results"]:
        table.add_row(
            f"{row['distance']:,}",
            f"{row['distance'] / max(1, report['window']):g}",
            "not told" if row["unknown"] else str(row["facts"]),
            row["memory"],
            f"{row['correct']} of {row['total']}",
            f"{row['accuracy']:.1%}",
            "" if row["standard_error"] is None else f"{100 * row['standard_error']:.1f} %",
        )
    out.print(table)
    if turns:
        repeated = report["results"][0]["repeated"]
        out.print(f"replies to ordinary questions that repeat an earlier one: {repeated:.0%}")
    for row in report["results"] if report["corrected"] else ():
        out.print(f"distance {row['distance']:,}: {row['old']} of {row['total']} are what was corrected")
    for row in report["results"] if report["phrasings"] == "both" else ():
        parts = [f"{k} {v['correct']} of {v['total']}" for k, v in sorted(row["by_phrasing"].items())]
        out.print(f"distance {row['distance']:,}, by whose phrasing: {', '.join(parts)}")
