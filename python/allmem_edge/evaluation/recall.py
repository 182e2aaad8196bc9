"""Conversations for `eval recall`: facts told, a filler, questions; in more than one way of saying it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from allmem_edge.dialogues import Fact, Generator, Turn
from allmem_edge.dialogues.values import Values
from allmem_edge.errors import InvalidArgumentError, ModelNotFoundError, StorageError

Phrasings = Literal["generator", "people", "both"]
CountTokens = Callable[[str], int]

_PASSAGE = 1200  # characters of a text file that are pasted in one message
_PASTES = (
    "Here is a part of a text that I am reading:\n\n{text}",
    "I want to show you this:\n\n{text}",
    "The next part goes like this:\n\n{text}",
    "Have a look at this as well:\n\n{text}",
)
_SEEN = (
    "Thanks, I have read it.",
    "I see. Go on.",
    "Interesting, thank you.",
    "Okay, I have seen that part.",
)
# The generator's keys for what people's phrasings tell by another name, so that no question has two answers.
_SAME = {"city": "town", "gym": "locker_code"}


@cache
def told() -> dict[str, Any]:
    """Phrasings that people wrote, apart from the generator: told.json."""
    text = files("allmem_edge.evaluation").joinpath("told.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def filler_of(paths: Sequence[Path]) -> list[str]:
    """Passages of text files, cut at the ends of lines where possible. Raises for files that have none."""
    passages: list[str] = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError as error:
            raise ModelNotFoundError(f"There is no file {path}.") from error
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
        while text.strip():
            cut = text.rfind("\n", _PASSAGE // 2, _PASSAGE)
            cut = cut + 1 if cut > 0 and len(text) > _PASSAGE else _PASSAGE
            passages.append(text[:cut].strip())
            text = text[cut:]
    passages = [passage for passage in passages if passage]
    if paths and not passages:
        raise InvalidArgumentError(f"There is no text in {', '.join(map(str, paths))}.")
    return passages


class _Told(NamedTuple):
    """A fact of a conversation."""

    tell: Turn
    ask: Turn
    of: Fact | dict[str, Any]  # of the generator, or a kind of told.json


class Cases:
    """A seeded source of conversations. Values are those that training never saw."""

    def __init__(
        self,
        seed: int,
        count_tokens: CountTokens,
        *,
        phrasings: Phrasings = "generator",
        filler: Sequence[str] = (),
    ) -> None:
        """filler: passages that are pasted between; without any, small talk."""
        self._generator = Generator(seed, held_out=True)
        self._rng = random.Random(seed ^ 0x5EED)
        self._values = Values(self._rng, held_out=True)
        self._count = count_tokens
        self._phrasings = phrasings
        self._filler = filler
        self._next = self._rng.randrange(len(filler)) if filler else 0

    def case(
        self, distance: int, facts: int, *, unknown: bool = False, corrected: bool = False
    ) -> tuple[list[Turn], list[Turn]]:
        """Turns that are told (facts, then at least `distance` tokens of filler), and the questions.

        unknown: the questions are about what was not told. corrected: then each fact is told anew with
        another value, which is what is asked for after as much filler again.
        """
        if self._phrasings == "generator" and not self._filler and not corrected:
            turns = self._generator.recall_case(distance, self._count, facts, unknown=unknown)
            return turns[:-facts], turns[-facts:]
        known = self._facts(facts, unknown)
        result = [fact.tell for fact in known] + self._fill(distance)
        questions = [fact.ask for fact in known]
        if corrected:
            pairs = [self._correct(fact) for fact in known]
            result += [turn for turn, _ in pairs] + self._fill(distance)
            questions = [ask for _, ask in pairs]
        self._rng.shuffle(questions)
        return result, questions

    def _fill(self, distance: int) -> list[Turn]:
        result, away = list[Turn](), 0
        while away < distance:
            turn = self._between()
            away += self._count(turn.user) + self._count(turn.assistant)
            result.append(turn)
        return result

    def _facts(self, count: int, unknown: bool) -> list[_Told]:
        half = (count + self._rng.randrange(2)) // 2  # of an odd number, now the smaller part, now the larger
        people = {"people": count, "generator": 0}.get(self._phrasings, half)
        kinds = told()["kinds"]
        if people > len(kinds):
            raise InvalidArgumentError(
                f"{people} facts are to be told in people's phrasings, but there are {len(kinds)} kinds."
            )
        chosen = self._rng.sample(kinds, people + unknown * min(people, len(kinds) - people))
        facts = [_Told(*self._told(kind), kind) for kind in chosen[:people]]
        taken = {_SAME.get(kind["key"], kind["key"]) for kind in chosen} | ({"name"} if people else set())
        if any(key.endswith("_code") for key in taken):
            taken.add("code")  # "the code" could mean the one that people's phrasings tell
        known = []
        while len(facts) < count:
            fact = self._generator.fact()
            if fact.key in taken:
                continue
            taken.add(fact.key)
            known.append(fact)
            facts.append(_Told(self._generator.tell(fact), self._generator.ask(fact), fact))
        if unknown:  # the questions are about what was not told
            others = [self._told(kind)[1] for kind in chosen[people:]]
            others = [Turn(turn.user, turn.assistant, "ask_unknown", key=turn.key) for turn in others]
            asked = range(count - len(others))
            others += [self._generator.ask_unknown(known, also_taken=taken) for _ in asked]
            facts = [fact._replace(ask=ask) for fact, ask in zip(facts, others, strict=True)]
        return facts

    def _correct(self, fact: _Told) -> tuple[Turn, Turn]:
        """The turn in which another value is told, and the question for it, which knows the old one."""
        old = str(fact.ask.answer)
        if isinstance(fact.of, Fact):
            new, turn = self._generator.correct(fact.of)
            return turn, replace(self._generator.ask(new), old=old)
        turn, ask = self._told(fact.of)
        while str(ask.answer).casefold() == old.casefold():
            turn, ask = self._told(fact.of)
        user = f"{self._rng.choice(told()['corrections'])} {turn.user}"
        return replace(turn, user=user, kind="correct"), replace(ask, old=old)

    def _told(self, kind: dict[str, Any]) -> tuple[Turn, Turn]:
        value, pick = self._values.draw(kind["values"]), self._rng.choice
        key = f"people:{kind['key']}"
        tell = pick(kind["tells"]).replace("{v}", value)
        return (
            Turn(tell, pick(told()["acks"]), "fact", key=key),
            Turn(pick(kind["asks"]), value, "ask", value, key),
        )

    def _between(self) -> Turn:
        if not self._filler:
            return self._generator.small_talk()
        passage = self._filler[self._next % len(self._filler)]
        self._next += 1
        return Turn(
            self._rng.choice(_PASTES).replace("{text}", passage), self._rng.choice(_SEEN), "small_talk"
        )
