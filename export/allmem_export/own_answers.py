"""The base model's own answers to ordinary questions: what training must leave as it is.

    python -m allmem_export.own_answers MODEL --out runs/corpus/answers.jsonl --count 1000

asks MODEL, an exported model directory whose memory is left out, and writes one JSON line per short chat: a
list of [question, answer]. sequences.py reads the file as the kind `talk`. Half of the questions are from the
lists below, and half the model makes up itself, going on from where a user's turn begins: it was trained on
such turns, and no list of ours has as many kinds (Magpie, arXiv 2406.08464). What is long is left out: a long
question mostly rambles, and an answer that was cut off would teach to end in the middle of a sentence.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.progress import track

from allmem_edge import Model
from allmem_edge.evaluation import divergence
from allmem_edge.sampling import Sampling
from allmem_edge.template import Message

TOGETHER = 16  # questions that are answered at once
OWN = 8  # the model's own among them, at most
OWN_QUESTION: Sampling = {"temperature": 0.9, "top_p": 0.95, "repetition_penalty": 1.0, "max_tokens": 60}
ANSWER: Sampling = {"temperature": 0.3, "repetition_penalty": 1.0, "max_tokens": 120}


def plain(text: str) -> str:
    """The letters and figures of a text, so that the same question is the same however it is written."""
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


KEPT_OUT = frozenset(map(plain, divergence.questions()))
SLOTS: dict[str, list[str]] = {
    name: " ".join(text.split()).split(", ")
    for name, text in {
        "country": "France, Germany, Italy, Japan, Spain, Egypt, Brazil, India, China, Canada, Kenya, Peru",
        "person": "Albert Einstein, Marie Curie, Isaac Newton, Shakespeare, Mozart, Cleopatra",
        "work": "Hamlet, Romeo and Juliet, the Mona Lisa, Pride and Prejudice, The Odyssey, 1984",
        "topic": """photosynthesis, gravity, the water cycle, computers, volcanoes, electricity,
            bees, the moon, the heart, recycling, fractions, the internet, evolution, atoms, the ocean,
            vaccines, music, trade, rain, robots, sleep, money, maps, trees""",
        "thing": """potatoes, a bicycle, rice, an apple, a garden, bread, a book, a dog, a cat, tea, a guitar,
            a chair, eggs, a phone, a lamp""",
        "task": """learn a language, sleep better, write a letter, save money, cook pasta, stay healthy,
            plan a trip, make friends, study for an exam, grow tomatoes, draw a face, give a speech""",
    }.items()
}
QUESTIONS = (
    "What is the capital of {country}?",
    "Tell me about {country}.",
    "Where is {country}?",
    "What language do people speak in {country}?",
    "Who was {person}?",
    "What is {person} famous for?",
    "Who made {work}?",
    "What is {work} about?",
    "What is {topic}?",
    "Explain {topic} to a child.",
    "Why is {topic} important?",
    "Write two sentences about {topic}.",
    "Give me three facts about {topic}.",
    "What can I do with {thing}?",
    "How do I choose {thing}?",
    "Describe {thing}.",
    "How do I {task}?",
    "Give me a tip: I want to {task}.",
    "Tell me a joke.",
    "Tell me a joke about {thing}.",
    "Write a short poem about {topic}.",
    "Tell me a story about {thing}.",
    "Hello!",
    "How are you?",
    "What can you do?",
    "Thank you!",
    "I feel sad today.",
    "I am bored. What should I do?",
    "What is two plus three?",
    "How many days does a week have?",
    "Is it better to walk or to run?",
    "Name three animals.",
    "What should I eat for breakfast?",
    "Good morning.",
)


def question(rng: random.Random) -> str:
    """An ordinary question."""
    return rng.choice(QUESTIONS).format(**{name: rng.choice(values) for name, values in SLOTS.items()})


class Asker:
    """A model that is asked several things at once: a batch reads its weights once for all of them."""

    def __init__(self, model: Model, rng: random.Random) -> None:
        self._model = model
        self._rng = rng
        self._batch = model.batch()
        self._sessions = [model.session() for _ in range(OWN + TOGETHER)]

    def answers(self) -> Iterator[tuple[str, str]]:
        """Ordinary questions and the model's answers, without end; every answer is a whole one."""
        asked: list[str] = []
        while True:  # while it answers some questions, the model makes up a part of the next ones
            prompts = [self._opening()] * OWN + [self._prompt(text) for text in asked]
            texts = self.written(prompts, [OWN_QUESTION] * OWN + [ANSWER] * len(asked))
            yield from ((user, answer) for user, answer in zip(asked, texts[OWN:], strict=True) if answer)
            asked = [text for text in texts[:OWN] if text and plain(text) not in KEPT_OUT]
            asked += [question(self._rng) for _ in range(TOGETHER - len(asked))]

    def written(self, prompts: Sequence[list[int]], sampling: Sequence[Sampling]) -> list[str]:
        """What the model writes after each prompt; nothing where it did not end by itself."""
        texts = []
        for session, prompt, options in zip(self._sessions, prompts, sampling, strict=False):
            session.reset()
            seeded: Sampling = {**options, "seed": self._rng.randrange(1 << 30)}
            texts.append(session.generate(prompt, **seeded))
        pieces: list[list[str]] = [[] for _ in texts]
        for step in self._batch.generate(texts):
            for number, piece in step.items():
                pieces[number].append(piece)
        ended = [text.finish_reason == "stop_token" for text in texts]
        return ["".join(piece).strip() if end else "" for piece, end in zip(pieces, ended, strict=True)]

    def _prompt(self, user: str) -> list[int]:
        """A chat that begins with what the user says, up to where the answer begins."""
        tokenizer = self._model.tokenizer
        chat = [Message("user", user)]
        segments = self._model.chat_template.render(chat, control=tokenizer.special_tokens)
        return tokenizer.encode_parts(segments)

    def _opening(self) -> list[int]:
        """A chat up to where the user begins."""
        segments = self._model.chat_template.render([Message("user", "?")])
        chat = "".join(segment.text for segment in segments)
        return self._model.tokenizer.encode(chat[: chat.rindex("?")])


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--count", default=1000, show_default=True, help="Questions that are answered.")
@click.option("--seed", default=1, show_default=True)
def main(model: Path, out: Path, count: int, seed: int) -> None:
    """Asks MODEL, without its memory, and writes its answers."""
    answers = Asker(Model.load(model, memory="off"), random.Random(seed)).answers()
    with out.open("w", encoding="utf-8") as file:
        for _ in track(range(count), "answers"):
            file.write(json.dumps([next(answers)], ensure_ascii=False) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
