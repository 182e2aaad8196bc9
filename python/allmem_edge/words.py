"""People's words in a rendered conversation: no special token comes out of them, whatever a template does.

A special token has a first and a last character. In people's words a stand-in from Unicode's private planes
takes the place of each character that some special token begins or ends with, one for one. So the words can
be cut, stripped and joined as any text, and whatever comes out still shows which characters were theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from allmem_edge.errors import InvalidArgumentError

_STAND_INS = range(0xF0000, 0xFFFFE)  # private use: no text means anything by them


class Segment(NamedTuple):
    """A part of a rendered conversation."""

    text: str
    plain: bool  # people's: no part of it belongs to a special token


class Guard:
    """The stand-ins for one rendering."""

    def __init__(self, special_tokens: Iterable[str], texts: Iterable[str]) -> None:
        """special_tokens: of the tokenizer; texts: all that will be rendered; its characters are not used."""
        ends = {c for token in special_tokens if (bare := token.strip()) for c in (bare[0], bare[-1])}
        taken = {c for text in texts for c in text if ord(c) in _STAND_INS}
        free = (chr(code) for code in _STAND_INS if chr(code) not in taken)
        pairs = list(zip(sorted(ends), free, strict=False))
        if len(pairs) < len(ends):
            raise InvalidArgumentError("The text has all of Unicode's private characters; leave some out.")
        self._hidden = str.maketrans(dict(pairs))
        self._shown = str.maketrans({stand_in: c for c, stand_in in pairs})
        self._ends = re.compile(f"[{re.escape(''.join(ends))}]") if ends else None
        self._runs = re.compile(f"([{''.join(s for _, s in pairs)}]+)") if pairs else None

    def words(self, text: str) -> str:
        """`text` as people's words."""
        if self._ends is None or not self._ends.search(text):
            return text  # nothing in it can be a part of a special token's ends
        return Words(text.translate(self._hidden), self)

    def all_words(self, value: Any) -> Any:
        """words() of every string in a JSON value."""
        if isinstance(value, str):
            return self.words(value)
        if isinstance(value, Mapping):
            return {self.all_words(key): self.all_words(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.all_words(item) for item in value]
        return value

    def show(self, text: str) -> str:
        """With the characters that the stand-ins stand for."""
        return str.translate(text, self._shown)

    def segments(self, rendered: str) -> list[Segment]:
        """A rendering cut where its characters stop being, or begin to be, people's."""
        if self._runs is None:
            return [Segment(str.__str__(rendered), False)]
        parts = enumerate(self._runs.split(rendered))
        return [Segment(self.show(part), bool(i % 2)) for i, part in parts if part or i == 0]


def text_of(segments: Iterable[Segment]) -> str:
    """What the segments say together."""
    return "".join(segment.text for segment in segments)


def skip(segments: Iterable[Segment], characters: int) -> list[Segment]:
    """The segments without their first characters."""
    rest = []
    for text, plain in segments:
        if characters < len(text):
            rest.append(Segment(text[characters:], plain))
        characters = max(0, characters - len(text))
    return rest


def first(segments: Iterable[Segment], characters: int) -> list[Segment]:
    """The segments' first characters."""
    begin = []
    for text, plain in segments:
        if characters > 0:
            begin.append(Segment(text[:characters], plain))
        characters -= len(text)
    return begin


class Words(str):
    """People's words as a template sees them: what they say with stand-ins, what is asked of them without."""

    _guard: Guard

    def __new__(cls, hidden: str, guard: Guard) -> Words:
        self = super().__new__(cls, hidden)
        self._guard = guard
        return self

    def _show(self) -> str:
        return self._guard.show(self)

    def _piece(self, begin: int, end: int) -> Words:
        return Words(str.__getitem__(self, slice(begin, end)), self._guard)

    def _pieces(self, shown: Iterable[str], gap: int) -> list[Words]:
        """The parts of this text that look like `shown`, with `gap` characters between them."""
        pieces, at = [], 0
        for text in shown:
            pieces.append(self._piece(at, at + len(text)))
            at += len(text) + gap
        return pieces

    def __str__(self) -> str:
        return self

    def __repr__(self) -> str:
        return self._guard.words(repr(self._show()))

    def __hash__(self) -> int:
        return hash(self._show())

    def __getitem__(self, index: Any) -> Words:
        return Words(super().__getitem__(index), self._guard)

    def __iter__(self) -> Iterator[str]:
        return (Words(character, self._guard) for character in super().__iter__())

    def __add__(self, other: Any) -> Any:
        return Words(str.__add__(self, other), self._guard) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: Any) -> Any:
        return Words(str.__add__(other, self), self._guard) if isinstance(other, str) else NotImplemented

    def strip(self, chars: str | None = None) -> Words:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None) -> Words:
        return self._piece(len(self) - len(self._show().lstrip(_shown(chars))), len(self))

    def rstrip(self, chars: str | None = None) -> Words:
        return self._piece(0, len(self._show().rstrip(_shown(chars))))

    def split(self, sep: str | None = None, maxsplit: Any = -1) -> list[Any]:
        if sep is None:  # no stand-in stands for white space
            return [Words(part, self._guard) for part in super().split(None, maxsplit)]
        return self._pieces(self._show().split(_shown(sep), maxsplit), len(sep))

    def rsplit(self, sep: str | None = None, maxsplit: Any = -1) -> list[Any]:
        if sep is None:
            return [Words(part, self._guard) for part in super().rsplit(None, maxsplit)]
        return self._pieces(self._show().rsplit(_shown(sep), maxsplit), len(sep))

    def splitlines(self, keepends: Any = False) -> list[Any]:
        return [Words(line, self._guard) for line in super().splitlines(keepends)]

    def partition(self, sep: str) -> tuple[Any, Any, Any]:
        before, found, after = self._pieces(self._show().partition(_shown(sep)), 0)
        return before, found, after

    def rpartition(self, sep: str) -> tuple[Any, Any, Any]:
        before, found, after = self._pieces(self._show().rpartition(_shown(sep)), 0)
        return before, found, after

    def replace(self, old: str, new: str, count: Any = -1) -> Words:
        if not old:
            return Words(super().replace(old, new, count), self._guard)
        kept = self._pieces(self._show().split(_shown(old), count), len(old))
        return Words(str.join(new, kept), self._guard)

    def removeprefix(self, prefix: str) -> Words:
        return self._piece(len(prefix) if self.startswith(prefix) else 0, len(self))

    def removesuffix(self, suffix: str) -> Words:
        return self._piece(0, len(self) - (len(suffix) if suffix and self.endswith(suffix) else 0))


def _shown(value: Any) -> Any:
    if isinstance(value, Words):
        return value._show()
    return tuple(map(_shown, value)) if isinstance(value, tuple) else value


def _asked(name: str) -> Callable[..., Any]:
    """A method of str that only asks, and so looks at what people really said."""
    method = getattr(str, name)

    def ask(self: Words, *arguments: Any) -> Any:
        return method(self._show(), *map(_shown, arguments))

    return ask


_QUESTIONS = ("contains", "eq", "ne", "lt", "le", "gt", "ge")
for _name in [
    *(f"__{question}__" for question in _QUESTIONS),
    *("startswith", "endswith", "find", "rfind", "index", "rindex", "count", "encode"),
    *(name for name in dir(str) if name.startswith("is")),
]:
    setattr(Words, _name, _asked(_name))


def shown(value: Any) -> Any:
    """A JSON value as people wrote it."""
    if isinstance(value, Mapping):
        return {shown(key): shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    return _shown(value)


def guard_of(value: Any) -> Guard | None:
    """Of the words in a JSON value; None if it has none."""
    if isinstance(value, Words):
        return value._guard
    items: Iterable[Any] = ()
    if isinstance(value, Mapping):
        items = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple)):
        items = value
    return next((guard for item in items if (guard := guard_of(item))), None)
