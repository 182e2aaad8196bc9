"""The base model's own answers to ordinary questions: what training must leave as it is.

    python -m allmem_export.own_answers MODEL --out runs/corpus/answers.jsonl --count 1000

asks MODEL, an exported model directory whose memory is left out, and writes one JSON line per short chat: a
list of [question, answer]. sequences.py reads the file as the kind `talk`. Half of the questions are from the
lists below, and half the model makes up itself, going on from where a user's turn begins: it was trained on
such turns, and no list of ours has as many kinds (Magpie, arXiv 2406.08464).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import click
from rich.progress import track

from allmem_edge import Model, Session
from allmem_edge.evaluation import divergence

LONGEST_QUESTION = 60  # tokens; a longer one mostly rambles
KEPT_OUT = frozenset(divergence.questions())
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
    "Who are you?",
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


def own_question(model: Model, session: Session, seed: int) -> str:
    """What MODEL writes where a user's turn begins; nothing if that is long or one `eval divergence` asks."""
    chat = "".join(segment.text for segment in model.chat_template.render([{"role": "user", "content": "?"}]))
    session.reset()
    generator = session.generate(
        chat[: chat.rindex("?")],
        seed=seed,
        temperature=0.9,
        top_p=0.95,
        repetition_penalty=1.0,
        max_tokens=LONGEST_QUESTION,
    )
    text = "".join(generator).strip()
    return "" if generator.finish_reason != "stop_token" or text in KEPT_OUT else text


def questions(model: Model, rng: random.Random) -> Iterator[str]:
    """Ordinary questions without end, half of them MODEL's own."""
    session = model.session()
    while True:
        own = own_question(model, session, rng.randrange(1 << 30)) if rng.random() < 0.5 else ""
        yield own or question(rng)


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--count", default=1000, show_default=True, help="Chats of two questions.")
@click.option("--seed", default=1, show_default=True)
def main(model: Path, out: Path, count: int, seed: int) -> None:
    """Asks MODEL, without its memory, and writes its answers."""
    loaded = Model.load(model, memory="off")
    rng = random.Random(seed)
    asked = questions(loaded, rng)
    with out.open("w", encoding="utf-8") as file:
        for _ in track(range(count), "answers"):
            chat = loaded.chat(
                max_tokens=100, seed=rng.randrange(1 << 30), repetition_penalty=1.0, temperature=0.3
            )
            turns = []
            for _ in range(2):
                user = next(asked)
                answer = "".join(chat.send(user))
                turns.append([user, answer])
            file.write(json.dumps(turns, ensure_ascii=False) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
