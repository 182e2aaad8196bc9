"""What drafts are worth: tokens/s with and without, on a text that repeats what was read and on others.

    python bench/speculation.py MODEL... [--tokens 200] [--repeat 5] [--threads 0]

Texts, each with and without drafts in turn; the median of --repeat:

    repeats    a page of code is to be written once more, greedily
    goes on    the same page is to be continued, greedily
    chat: ...  an answer to a message, greedily, for models with a chat template
    chance     drawn from all tokens nearly alike (temperature 100): without repetitions

    plain, drafts    tokens/s of decoding
    ratio            drafts / plain
    drafted          tokens that were read before they were drawn, of all that were written
    accepted         those of them that were drawn then

Then what a block of so many tokens costs, with the logits of all, in blocks of one: no draft can gain more
than their number / this.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

import allmem_edge as ae
from allmem_edge.evaluation.answering import Answerer, Prompt
from table import markdown

PAGE = """def read_lines(path, encoding="utf-8"):
    \"\"\"Returns the lines of a text file without their ends.\"\"\"
    with open(path, encoding=encoding) as file:
        return [line.rstrip("\\n") for line in file]


def write_lines(path, lines, encoding="utf-8"):
    \"\"\"Writes lines to a text file, each with an end.\"\"\"
    with open(path, "w", encoding=encoding) as file:
        for line in lines:
            file.write(line + "\\n")


def count_words(path, encoding="utf-8"):
    \"\"\"Returns how often each word of a text file occurs.\"\"\"
    counts = {}
    for line in read_lines(path, encoding):
        for word in line.split():
            counts[word] = counts.get(word, 0) + 1
    return counts
"""
LETTER = """Dear neighbours, on Saturday the water will be turned of from nine in the morning until two in
the afternoon, because the old pipes in the celler are replaced. Please fill some botles before. If you have
questions, ask Mrs. Brandt on the second floor. Thank you for you patience!"""
CHATS = {
    "chat: repeat": f"Repeat this text word for word:\n\n{LETTER}",
    "chat: correct": f"Correct the spelling of this text:\n\n{LETTER}",
    "chat: story": "Tell me a short story about a lighthouse keeper and a storm.",
    "chat: explanation": "Explain how a refrigerator keeps food cold.",
}
BLOCKS = (1, 2, 3, 4, 6, 8)
HEAD = ("model", "text", "plain", "drafts", "ratio", "drafted", "accepted")


def prompts(model: ae.Model) -> dict[str, tuple[list[int], float]]:
    """The prompt of each text, and its temperature."""
    encode = model.tokenizer.encode
    page = f"The file:\n\n{PAGE}\n"
    again = encode(f"{page}The same file again:\n\n{PAGE.splitlines()[0]}\n")
    asked = Answerer(model, threads=1)
    chats = CHATS if asked.form == "chat" else {}
    return {
        "repeats": (again, 0.0),
        "goes on": (encode(page), 0.0),
        **{name: (asked.ids(Prompt(text)), 0.0) for name, text in chats.items()},
        "chance": (encode(page), 100.0),
    }


def row(model: ae.Model, name: str, arguments: argparse.Namespace) -> tuple[str, ...]:
    """A row of the table: a text, each time once without and once with drafts."""
    prompt, temperature = prompts(model)[name]
    speeds: dict[bool, list[float]] = {False: [], True: []}
    texts = set()
    for speculate in (False, True) * arguments.repeat:
        text = model.session(arguments.threads).generate(
            prompt,
            temperature=temperature,
            repetition_penalty=1.0,
            top_k=0,
            top_p=1.0,
            seed=1,
            max_tokens=arguments.tokens,
            speculate=speculate,
        )
        texts.add("".join(text))
        speeds[speculate].append(text.generated_tokens / max(text.decode_seconds, 1e-9))
    assert len(texts) == 1, "a draft has changed the text"
    plain, drafts = (statistics.median(speeds[speculate]) for speculate in (False, True))
    ratio = statistics.median(b / a for a, b in zip(speeds[False], speeds[True], strict=True))
    return (
        model.name,
        name,
        f"{plain:.1f}",
        f"{drafts:.1f}",
        f"{ratio:.2f}",
        f"{text.drafted_tokens} of {text.generated_tokens}",
        str(text.accepted_tokens),
    )


def costs(model: ae.Model, arguments: argparse.Namespace) -> tuple[str, ...]:
    """What a block of so many tokens costs, in blocks of one."""
    session = model.session(arguments.threads)
    rng = np.random.default_rng(0)
    session.forward(rng.integers(0, model.engine.vocab_size, 400), last_only=True)
    seconds: dict[int, list[float]] = {size: [] for size in BLOCKS}
    for _ in range(4 * arguments.repeat):
        for size, taken in seconds.items():
            ids = rng.integers(0, model.engine.vocab_size, size)
            begin = time.perf_counter()
            session.forward(ids)
            taken.append(time.perf_counter() - begin)
    one = statistics.median(seconds[1])
    return (model.name, *(f"{statistics.median(taken) / one:.2f}" for taken in seconds.values()))


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    arguments = parser.parse_args()
    models = [ae.Model.load(path) for path in arguments.models]
    print(markdown([HEAD, *(row(model, name, arguments) for model in models for name in prompts(model))]))
    print(markdown([("model", *map(str, BLOCKS)), *(costs(model, arguments) for model in models)]))


if __name__ == "__main__":
    main()
