"""Facts as people tell them: about themselves and about others, in sentences of many shapes.

The generator of allmem_edge.dialogues asks for an attribute by its noun; a model that knows only that learns
the nouns. The sentences of sayings.json differ in where the value stands and in what the question has in
common with the telling. `{v}` is the value, `{p}` a person, `{P}` the same with a capital. Training only:
evaluation has sentences of its own (allmem_edge/evaluation/told.json), written apart from these.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from allmem_edge.dialogues.values import Values, is_held_out


@dataclass(frozen=True)
class Relation:
    """One thing that can be said of somebody, with the kind of its values (dialogues/values.py)."""

    kind: str
    tells: tuple[str, ...]
    asks: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Saying:
    """A value for a relation of a person; "" is the user."""

    relation: Relation
    person: str
    value: str

    @property
    def key(self) -> str:
        return f"free {self.person} {self.relation.asks[0]}"

    def tell(self, rng: random.Random) -> tuple[str, str]:
        """What the user says, and a reply, which may say it again."""
        reply = self._theirs(rng) if rng.random() < 0.4 else ""
        return self._ours(rng.choice(self.relation.tells)), f"{rng.choice(RECEIPTS)} {reply}".strip()

    def ask(self, rng: random.Random) -> tuple[str, str]:
        """A question and its answer."""
        return self._ours(rng.choice(self.relation.asks)), self._theirs(rng)

    def corrected(self, values: Values) -> Saying:
        """The same of the same person with another value."""
        return replace(self, value=_value(self.relation, values, {self.person, self.value}))

    def _ours(self, template: str) -> str:
        return _say(template, self.value, self.person)

    def _theirs(self, rng: random.Random) -> str:
        # the model speaks of "my uncle" as "your uncle"
        person = re.sub("^(my|our) ", "your ", self.person)
        return _say(rng.choice(self.relation.answers), self.value, person)


def _say(template: str, value: str, person: str) -> str:
    text = template.format(v=value, p=person, P=person[:1].upper() + person[1:])
    return text if template.startswith("{v}") else text[0].upper() + text[1:]


def _relations(entries: list[dict[str, Any]]) -> tuple[Relation, ...]:
    return tuple(
        Relation(entry["kind"], tuple(entry["tells"]), tuple(entry["asks"]), tuple(entry["answers"]))
        for entry in entries
    )


_SAYINGS = json.loads(files(__package__).joinpath("sayings.json").read_text(encoding="utf-8"))
MINE = _relations(_SAYINGS["mine"])  # of the user
THEIRS = _relations(_SAYINGS["theirs"])  # of somebody else
# Without those who have a name that the evaluation asks for.
PERSONS: tuple[str, ...] = tuple(
    person
    for person in _SAYINGS["persons"]
    if not any(word[0].isupper() and is_held_out(word) for word in person.split())
)
RECEIPTS: tuple[str, ...] = tuple(_SAYINGS["receipts"])


def saying(rng: random.Random, values: Values) -> Saying:
    """A random fact about the user or about somebody else."""
    mine = rng.random() < 0.6
    relation = rng.choice(MINE if mine else THEIRS)
    person = "" if mine else rng.choice(PERSONS)
    return Saying(relation, person, _value(relation, values, {person}))


def _value(relation: Relation, values: Values, taken: set[str]) -> str:
    """A value that is in none of the texts `taken`."""
    value = values.draw(relation.kind)
    while any(value in text for text in taken):  # nobody is the boss of themselves
        value = values.draw(relation.kind)
    return value
