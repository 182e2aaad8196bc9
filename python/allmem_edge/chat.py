"""Chat: a conversation of turns over one session. Nothing is read twice: a turn costs only its own tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from allmem_edge import _core
from allmem_edge.errors import InvalidArgumentError, SnapshotError
from allmem_edge.sampling import Sampling, check_text
from allmem_edge.session import Session
from allmem_edge.template import ChatTemplate, Message, Segment


@dataclass(frozen=True)
class _Before:
    """What undo() goes back to."""

    session: Session
    text: str  # the message that was sent then
    turns: int


class Chat:
    """A conversation with a model. One caller at a time, like its session.

    The chat keeps no history: what was said lives in the session's window and memory. It keeps one copy of
    the session from before the last turn, for undo() and regenerate().
    """

    def __init__(
        self, session: Session, template: ChatTemplate, *, system: str | None, sampling: Sampling
    ) -> None:
        """Use Model.chat()."""
        self._template = template
        self._system = None if system is None else check_text("The system message", system)
        self.session = session
        self.sampling = sampling
        self.turns = 0  # messages answered, wholly or in part
        self.last: _core.Generator | None = None  # figures of the last answer
        self._before: _Before | None = None
        # A broken template or a bad option shows now rather than at the first message.
        ids = [self._encode(self._render_turn("", after=turns)) for turns in (0, 1)]
        session.start_generator(ids[0], sampling)

    def send(self, text: str) -> Iterator[str]:
        """Reads `text` as the user's next message and yields the pieces of the answer.

        Interrupted while the message is read, the chat is as before; interrupted while it answers, what was
        said so far counts as the answer. Raises InvalidArgumentError for an empty message.
        """
        if not check_text("The message", text).strip():
            raise InvalidArgumentError("The message is empty; say something.")
        ids = self._encode(self._render_turn(text, after=self.turns))
        return self._answer(text, ids)

    def read(self, turns: Iterable[tuple[str, str]]) -> None:
        """Reads exchanges (what the user said, what the assistant answered) as if they had been held here."""
        ids: list[int] = []
        held = self.turns
        for user, assistant in turns:
            segments = [*self._render_turn(user, after=held), Segment(assistant, True)]
            ids += self._encode(segments)
            held += 1
        if ids:
            self.session.forward(ids, last_only=True)
            self.turns, self.last, self._before = held, None, None

    def fork(self) -> Chat:
        """An independent chat that goes on from here."""
        other = Chat(self.session.clone(), self._template, system=self._system, sampling=self.sampling)
        other.turns = self.turns
        return other

    def undo(self) -> bool:
        """Forgets the last turn, wholly. Only one turn back is kept; False when there is none."""
        before = self._before
        if before is None:
            return False
        before.session.freeze(self.session.frozen)
        self._restore(before)
        return True

    def regenerate(self) -> Iterator[str]:
        """Takes the last answer back and yields another one to the same message."""
        before = self._before
        if before is None or not self.undo():
            raise InvalidArgumentError("There is no answer to take back.")
        if self.sampling.seed is not None:  # the same seed would give the same answer
            self.sampling = replace(self.sampling, seed=(self.sampling.seed + 1) % (1 << 64))
        return self.send(before.text)

    def reset(self) -> None:
        """Starts over: an empty window, an empty memory, the system message again."""
        self.session.reset()
        self.turns, self.last, self._before = 0, None, None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the conversation to a file (Session.save)."""
        self.session.save(path, json.dumps({"turns": self.turns}).encode())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Goes on with a saved conversation. Raises what Session.load() does; the chat is then as before."""
        session = self.session.clone()
        try:
            turns = json.loads(session.load(path))["turns"]
            if type(turns) is not int or turns < 0:
                raise ValueError(turns)
        except (ValueError, KeyError, TypeError) as error:
            raise SnapshotError(
                f"'{os.fspath(path)}' is the memory of a session, but not of a chat."
            ) from error
        self.session, self.turns, self.last, self._before = session, turns, None, None

    def _answer(self, text: str, ids: list[int]) -> Iterator[str]:
        before = _Before(self.session.clone(), text, self.turns)
        generator = self.session.start_generator(ids, self.sampling)
        try:
            generator.prefill()
        except BaseException:
            self._restore(before)
            raise
        self._before, self.turns, self.last = before, self.turns + 1, generator
        if self.sampling.seed is not None:  # each turn draws anew, and a whole chat still repeats
            self.sampling = replace(self.sampling, seed=(self.sampling.seed + 1) % (1 << 64))
        yield from generator

    def _restore(self, before: _Before) -> None:
        self.session = before.session
        self.turns = before.turns
        self._before, self.last = None, None

    def _render_turn(self, text: str, *, after: int) -> list[Segment]:
        """What a message of the user adds to a conversation of `after` turns.

        After the first turn that is everything behind the last answer: its end mark, the new message, the
        opening of the next answer. All turns have the same frame, so one earlier turn stands for all of them.
        """
        system = [] if self._system is None else [Message("system", self._system)]
        if after == 0:
            return self._template.render([*system, Message("user", text)])
        earlier = [*system, Message("user", "x"), Message("assistant", "x")]
        return self._template.render([*earlier, Message("user", text)])[2 * len(earlier) :]

    def _encode(self, segments: list[Segment]) -> list[int]:
        tokenizer = self.session.model.tokenizer
        ids: list[int] = []
        for segment in segments:
            ids += tokenizer.encode(segment.text, special=not segment.is_content)
        return ids
