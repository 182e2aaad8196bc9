"""A conversation read turn by turn: what each message adds to what was read before, by the chat template.

The template only ever renders whole conversations. What a turn adds is the rendering with it, without what
was already there. Of that only the last exchange is known; stand-ins take the place of those before it, one
for all unless the template counts them.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from allmem_edge.template import ChatTemplate, Message
from allmem_edge.words import Segment, first, skip, text_of

_MAX_STAND_INS = 10_000  # turns that a template which counts them is shown


class Exchange(NamedTuple):
    """What the user said and the assistant answered."""

    message: str
    answer: str


class Turns:
    """One chat's way of asking its template."""

    def __init__(
        self,
        template: ChatTemplate,
        control: Iterable[str],
        *,
        system: str | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        """control: the tokenizer's special tokens. Raises ChatTemplateError for what cannot be streamed."""
        self._template = template
        self._system = [] if system is None else [Message("system", system)]
        self._rest: dict[str, Any] = {
            "tools": tools,
            "documents": documents,
            "variables": variables,
            "control": list(control),
        }
        # Words that nobody says: two for an earlier exchange, one for a message to come, one to mark a place.
        words = [f"Qz{secrets.token_hex(8)}Zq" for _ in range(4)]
        self._stand_in, self._next, self._end = Exchange(*words[:2]), Message("user", words[2]), words[3]
        self._counts = True
        self._check_streams()
        self._counts = self.turn("x", after=2, last=None) != self.turn("x", after=3, last=None)

    def turn(self, text: str, *, after: int, last: Exchange | None) -> list[Segment]:
        """What the user's message `text` adds after `after` turns, of which `last` was the last.

        That is everything behind the last answer: its end mark, the message, the opening of the next answer.
        """
        past, new = self._past(after, last), [Message("user", text)]
        return skip(self._render([*past, *new]), self._end_of(past, new))

    def settled(self, last: Exchange, *, after: int) -> list[Segment] | None:
        """The last turn as the template shows it once there is a next one; None if it was read like that."""
        past = self._past(after, last)
        if text_of(self._render([*past, self._next])).startswith(self._read(past)):
            return None
        return self._settled(past[:-2], [last])

    def exchanges(self, new: Sequence[Exchange], *, after: int, last: Exchange | None) -> list[Segment]:
        """What whole exchanges add, up to the end of the last answer."""
        return self._settled(self._past(after, last), new)

    def _settled(self, past: list[Message], new: Sequence[Exchange]) -> list[Segment]:
        """What `new` adds to `past` in the form that it keeps."""
        whole = [*past, *messages_of(new)]
        begin, end = self._end_of(past, [*messages_of(new), self._next]), self._end_of(whole, [self._next])
        return skip(first(self._render([*whole, self._next]), end), begin)

    def _end_of(self, past: list[Message], following: Sequence[Message]) -> int:
        """Where `past`, which is the system message or ends with an answer, ends in a rendering of both."""
        if len(past) == len(self._system):
            return 0
        text, read = text_of(self._render([*past, *following])), self._read(past)
        if text.startswith(read):
            return len(read)
        marked = Message("assistant", past[-1].content + self._end)
        kept, found, _ = text_of(self._render([*past[:-1], marked, *following])).rpartition(self._end)
        if not text.startswith(kept):  # white space at the answer's end is gone
            kept = kept.rstrip()
        if not found or not text.startswith(kept):
            raise self._template.error("changes what was said before: such a conversation cannot be streamed")
        return len(kept)

    def _past(self, after: int, last: Exchange | None) -> list[Message]:
        """A conversation of `after` turns, with stand-ins for all of them but the last."""
        if after == 0:
            return [*self._system]
        earlier = after - 1 if self._counts else min(after - 1, 1)
        if earlier > _MAX_STAND_INS:
            raise self._template.error(f"counts the turns, and there are more than {_MAX_STAND_INS} of them")
        return [*self._system, *messages_of([*[self._stand_in] * earlier, last or self._stand_in])]

    def _read(self, past: Sequence[Message]) -> str:
        """What was read when the last answer of `past` had just been written."""
        return text_of(self._render(past[:-1])) + past[-1].content

    def _render(self, messages: Sequence[Message]) -> list[Segment]:
        return self._template.render(messages, **self._rest)

    def _check_streams(self) -> None:
        """Every message once, in order, and nothing changed by what comes after the next message."""
        roles = [*(message.role for message in self._system), *("user", "assistant") * 2, "user"]
        messages = [Message(role, f"Qy{i}Yq") for i, role in enumerate(roles)]
        text = text_of(self._render(messages))
        shown = [text.find(message.content) for message in messages]
        if -1 in shown or shown != sorted(shown) or any(text.count(m.content) > 1 for m in messages):
            raise self._template.error(
                "does not show every message once, unchanged and in order: "
                "such a conversation cannot be streamed"
            )
        past, following = messages[:-3], messages[-3:]
        before = text_of(self._render([*past, following[0]]))[: self._end_of(past, following[:1])]
        if not text.startswith(before):
            raise self._template.error("changes what was said before: such a conversation cannot be streamed")


def messages_of(exchanges: Iterable[Exchange]) -> list[Message]:
    """The exchanges as the template sees them."""
    roles = ("user", "assistant")
    return [Message(role, said) for exchange in exchanges for role, said in zip(roles, exchange, strict=True)]
