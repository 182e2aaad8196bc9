"""A suite after RULER ("RULER: What's the Real Context Size of Your Long-Context Language Models?", 2024).

Thirteen tasks of any length, all generated here and seeded: needles in a haystack of repeated sentences, of
prose, or of other needles; chains of variables; frequent words; questions among distracting passages. What
RULER takes from essays and from SQuAD is made up here (or cut from your own text files), so figures are
comparable between models and settings, not with RULER's own.
"""

from __future__ import annotations

import itertools
import random
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from allmem_edge.dialogues import Generator
from allmem_edge.dialogues.values import FIRST_NAMES, words
from allmem_edge.errors import InvalidArgumentError
from allmem_edge.evaluation import metrics
from allmem_edge.evaluation.answering import Answerer, Prompt
from allmem_edge.evaluation.journal import Journal

_REPEATED = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_ADJECTIVES = words(
    "amber ancient bitter brave bright broken calm clever cloudy cold crooked curious distant dusty "
    "eager early empty faded famous fierce foggy frozen gentle giant golden hidden hollow humble icy "
    "jolly late lonely loud lucky mellow misty modest narrow noble odd pale patient plain proud "
    "quick quiet rapid rusty secret shiny silent silver simple sleepy slow smooth solid stormy "
    "sturdy sunny tender thirsty tidy tiny tough vast warm wild windy wise wooden young zesty"
)
_NOUNS = words(
    "anchor apple arrow badger barrel basket beacon bell blanket bottle branch bridge bucket button "
    "candle canyon castle cellar chapel chimney circle clover compass copper coral cottage cradle "
    "crystal curtain dagger diamond donkey dragon eagle engine falcon feather fiddle forest fountain "
    "garden glacier goblet hammer harbor hazel helmet island jacket kettle ladder lantern library "
    "magnet maple marble meadow mirror mountain needle nickel orchard otter paddle pebble pepper "
    "pillow pirate planet pocket pumpkin raven ribbon river rocket saddle sailor scarf shadow shovel "
    "spider stable summit temple thimble thunder tunnel turtle valley velvet violin walnut whistle "
    "window winter wizard"
)
_FIRST_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Sample:
    """A prompt, what a right answer contains, and how many tokens it may have."""

    prompt: Prompt
    answers: tuple[str, ...]
    max_tokens: int


# Makes a sample with a context of so many units (sentences, needles, words, passages).
Make = Callable[[random.Random, int], Sample]


def _number(rng: random.Random) -> str:
    return str(rng.randint(1_000_000, 9_999_999))


def _uuid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _word(rng: random.Random) -> str:
    return f"{rng.choice(_ADJECTIVES)}-{rng.choice(_NOUNS)}"


def _distinct(
    rng: random.Random, make: Callable[[random.Random], str], count: int, there_are: int | None = None
) -> list[str]:
    """`count` different texts. Of more than there are, all come again with numbers: apple, apple2."""
    found: dict[str, None] = {}
    while len(found) < count:
        again = len(found) // there_are if there_are else 0
        text = make(rng)
        found[_FIRST_WORD.sub(rf"\g<0>{again + 1}", text, count=1) if again else text] = None
    return list(found)


def _words(rng: random.Random, count: int) -> list[str]:
    return _distinct(rng, _word, count, len(_ADJECTIVES) * len(_NOUNS))


def _uuids(rng: random.Random, count: int) -> list[str]:
    return _distinct(rng, _uuid, count)


def _listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]


class Haystack:
    """Prose: sentences of your own texts in their order, or of generated small talk."""

    def __init__(self, passages: Sequence[str] = ()) -> None:
        self._sentences = [
            sentence.strip()
            for passage in passages
            for sentence in passage.replace("\n", " ").replace("? ", "?\0").replace(". ", ".\0").split("\0")
            if sentence.strip()
        ]

    def sentences(self, rng: random.Random, count: int) -> list[str]:
        if self._sentences:
            begin = rng.randrange(len(self._sentences))
            return [self._sentences[(begin + i) % len(self._sentences)] for i in range(count)]
        talk = Generator(rng.getrandbits(32), held_out=True)
        found: list[str] = []
        while len(found) < count:
            found.append(talk.small_talk().user)
        return found


def _needle_task(
    haystack: Callable[[random.Random, int], list[str]],
    *,
    different: Callable[[random.Random, int], list[str]] = _words,
    value: Callable[[random.Random], str] = _number,
    kind: str = "number",
    keys: int = 1,
    values: int = 1,
    queries: int = 1,
    among_needles: bool = False,
) -> Make:
    """Needles "One of the special magic numbers for KEY is: VALUE." `keys` counts distracting ones too.

    different: gives so many keys.
    """

    def make(rng: random.Random, units: int) -> Sample:
        count = units if among_needles else max(keys, queries)
        names = different(rng, count)
        of = {name: _distinct(rng, value, values) for name in names}
        needles = [f"One of the special magic {kind}s for {n} is: {v}." for n in names for v in of[n]]
        rng.shuffle(needles)
        if among_needles:
            text = "\n".join(needles)
        else:
            lines = haystack(rng, units)
            for place, needle in sorted(
                zip((rng.randint(0, len(lines)) for _ in needles), needles, strict=True), reverse=True
            ):
                lines.insert(place, needle)
            text = " ".join(lines)
        asked = rng.sample(names, queries)
        answers = tuple(v for name in asked for v in of[name])
        what, kinds = _listed(asked), f"{kind}s" if len(answers) > 1 else kind
        are = "are" if len(answers) > 1 else "is"
        return Sample(
            Prompt(
                f"Somewhere in the text below, special magic {kind}s are mentioned. Remember them: you will "
                f"be asked afterwards.\n\n{text}\n\nWhich {are} the special magic {kinds} for {what} in "
                "the text?",
                f"The special magic {kinds} for {what} in the text {are}",
            ),
            answers,
            128,
        )

    return make


def _repeated(rng: random.Random, units: int) -> list[str]:
    return [_REPEATED] * units


def _variables(rng: random.Random, units: int) -> Sample:
    """A chain of five variables with one value, and another chain that has another."""
    names = _distinct(rng, lambda r: "".join(r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(5)), 10)
    right, other = (str(number) for number in rng.sample(range(10_000, 100_000), 2))
    chains = []
    for chain, value in ((names[:5], right), (names[5:], other)):
        chains.append(
            [f"VAR {chain[0]} = {value}."]
            + [f"VAR {after} = VAR {before}." for before, after in itertools.pairwise(chain)]
        )
    lines = [_REPEATED] * units
    for chain in chains:
        places = sorted(rng.randint(0, units) for _ in chain)
        for place, line in reversed(list(zip(places, chain, strict=True))):  # in their order
            lines.insert(place, line)
    return Sample(
        Prompt(
            "Variables are assigned in the text below, some by way of others. Keep track of them.\n\n"
            f"{' '.join(lines)}\n\nWhich variables have the value {right} in the end? Name all of them.",
            f"Answer: by the assignments in the text, five variables have the value {right}, namely: ",
        ),
        tuple(names[:5]),
        30,
    )


def _common_words(rng: random.Random, units: int) -> Sample:
    """Ten words that come thirty times each, among words that come three times."""
    vocabulary = _words(rng, 10 + max(1, units))
    common, others = vocabulary[:10], vocabulary[10:]
    listed = common * 30 + others * 3
    rng.shuffle(listed)
    numbered = " ".join(f"{i}. {word}" for i, word in enumerate(listed, 1))
    return Sample(
        Prompt(
            "Here is a numbered list of words. Some of them come more often than others.\n\n"
            f"{numbered}\n\nWhich ten words come most often in the list?",
            "Answer: the ten words that come most often in the list are:",
        ),
        tuple(common),
        120,
    )


def _frequent_words(rng: random.Random, units: int) -> Sample:
    """Coded words whose frequencies fall as 1/rank²; the three most frequent after dots, which are noise."""
    coded = _distinct(rng, lambda r: "".join(r.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(6)), 60)
    listed = ["..."] * (units // 2)
    for rank, word in enumerate(coded, 1):
        times = max(4 - rank, 0) + max(1, int(units / rank**2 / 1.65))
        if rank <= 3 or len(listed) < 2 * units:
            listed += [word] * times
    rng.shuffle(listed)
    return Sample(
        Prompt(
            "The text below is in code. Count how often each of its words comes.\n\n"
            f"{' '.join(listed)}\n\nWhich three words come most often? Dots are no words. Give no reasons.",
            "Answer: the three words that come most often are:",
        ),
        tuple(coded[:3]),
        50,
    )


_ABOUT = (
    ("{name} was born in the year {year}.", "In which year was {name} born?", "{year}"),
    ("{name} works as a {job}.", "What does {name} work as?", "{job}"),
    ("{name} keeps a {pet} called {word}.", "What is the {pet} of {name} called?", "{word}"),
    ("{name} moved to the town of {town}.", "To which town did {name} move?", "{town}"),
)
_JOBS = words("baker carpenter dentist farmer gardener pilot plumber sailor surgeon tailor teacher weaver")
_PETS = words("cat dog parrot rabbit tortoise pony")


def _questions(*, hops: int) -> Make:
    """A question among passages about other people; with two hops, by way of a friend."""

    def make(rng: random.Random, units: int) -> Sample:
        people = _distinct(
            rng,
            lambda r: f"{r.choice(FIRST_NAMES)} {r.choice(_NOUNS).capitalize()}",
            max(units, 2 * hops) + 1,
            len(FIRST_NAMES) * len(_NOUNS),
        )
        passages, asked = [], ("", "")
        friend = people[-1]
        for i, name in enumerate(people[:-1]):
            facts = {
                "name": name,
                "year": str(rng.randint(1900, 2010)),
                "job": rng.choice(_JOBS),
                "pet": rng.choice(_PETS),
                "word": rng.choice(_NOUNS).capitalize(),
                "town": (rng.choice(_ADJECTIVES) + rng.choice(("ford", "ton", "burg", "field"))).capitalize(),
            }
            told = [text.format(**facts) for text, _, _ in _ABOUT]
            if i == 0:
                _, question, answer = rng.choice(_ABOUT)
                asked = (question.format(**facts), answer.format(**facts))
                if hops == 2:
                    told.append(f"{name} has been a close friend of {friend} since school.")
                    asked = (asked[0].replace(name, f"the close friend of {friend}"), asked[1])
            passages.append(" ".join(told))
        rng.shuffle(passages)
        numbered = "\n\n".join(f"Document {i}:\n{passage}" for i, passage in enumerate(passages, 1))
        return Sample(
            Prompt(
                f"Here are some documents.\n\n{numbered}\n\nAnswer from these documents, as briefly as you "
                f"can and with nothing else.\n\nQuestion: {asked[0]}",
                "Answer:",
            ),
            (asked[1],),
            32,
        )

    return make


def tasks(haystack: Haystack) -> dict[str, Make]:
    """By RULER's names."""
    prose = haystack.sentences
    return {
        "niah_single_1": _needle_task(_repeated),
        "niah_single_2": _needle_task(prose),
        "niah_single_3": _needle_task(prose, value=_uuid, kind="uuid"),
        "niah_multikey_1": _needle_task(prose, keys=4),
        "niah_multikey_2": _needle_task(prose, among_needles=True),
        "niah_multikey_3": _needle_task(
            prose, different=_uuids, value=_uuid, kind="uuid", among_needles=True
        ),
        "niah_multivalue": _needle_task(prose, values=4),
        "niah_multiquery": _needle_task(prose, keys=4, queries=4),
        "vt": _variables,
        "cwe": _common_words,
        "fwe": _frequent_words,
        "qa_1": _questions(hops=1),
        "qa_2": _questions(hops=2),
    }


def score(task: str, answer: str, answers: Sequence[str]) -> float:
    """As RULER: the share of the answers found; for questions, whether one is."""
    return (metrics.strings_any if task.startswith("qa") else metrics.strings_all)(answer, answers)


def _sized(make: Make, seed: str, units: int, count: Callable[[Prompt], int]) -> tuple[Sample, int]:
    """A sample of so many units, and the tokens of its prompt and answer."""
    made = make(random.Random(f"{seed} {units}"), units)
    return made, count(made.prompt) + made.max_tokens


def fit(make: Make, seed: str, length: int, count: Callable[[Prompt], int]) -> Sample:
    """The longest sample whose prompt and answer have at most `length` tokens. Raises if none is so short."""
    units = 1
    best, size = _sized(make, seed, units, count)
    if size > length:
        raise InvalidArgumentError(
            f"The shortest sample of this task has {size} tokens with its answer, more than the {length} "
            "asked for."
        )
    too_many = None
    while too_many is None or too_many - units > max(1, units // 50):
        # In proportion, then by halves between what fits and what does not.
        guess = max(units + 1, int(units * length / size)) if too_many is None else (units + too_many) // 2
        made, tokens = _sized(make, seed, guess, count)
        if tokens > length:
            too_many = guess
        else:
            best, size, units = made, tokens, guess
    return best


def measure(
    answerer: Answerer,
    make: Make,
    task: str,
    length: int,
    samples: int,
    seed: int,
    journal: Journal,
    *,
    prefix: str = "",
    step: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """The mean score of a task's samples. prefix: of their keys in the journal. step: called after each.

    Where even the shortest form of a sample is longer than `length`, nothing is measured: no samples, and
    None for the score and its error.
    """
    cell = {"task": task, "length": length}
    keys = {f"{prefix}{task} {length} {i}": f"{task} {seed} {i}" for i in range(samples)}

    def count(prompt: Prompt) -> int:
        return len(answerer.ids(prompt))

    if any(_sized(make, of, 1, count)[1] > length for key, of in keys.items() if key not in journal):
        return cell | {"samples": 0, "score": None, "standard_error": None}
    scores = []
    for key, of in keys.items():
        if key not in journal:
            sample = fit(make, of, length, count)
            answer = answerer.answer(answerer.ids(sample.prompt), sample.max_tokens, step=lambda: None)
            found = score(task, answer, sample.answers)
            journal.put(key, {"answers": sample.answers, "answer": answer, "score": found})
        scores.append(journal[key]["score"])
        step()
    mean, error = metrics.mean_and_error(scores)
    return cell | {"samples": samples, "score": mean, "standard_error": error}
