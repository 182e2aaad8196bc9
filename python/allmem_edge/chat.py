"""Chat: a conversation of turns over one session. Nothing is read twice: a turn costs only its own tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from allmem_edge import _core
from allmem_edge.errors import InvalidArgumentError, SnapshotError
from allmem_edge.sampling import Sampling, check_text
from allmem_edge.session import Session
from allmem_edge.template import ChatTemplate, Message, Segment

_KEPT_ANSWER = 1 << 16  # characters of an unfinished answer that a file holds, at most 12 bytes each


@dataclass(frozen=True)
class _Turn:
    """What undo() goes back to, beside the session's mark."""

    text: str  # the message that was sent then
    turns: int
    answer: str


class Chat:
    """A conversation with a model. One caller at a time, like its session.

    The chat keeps no history: what was said lives in the session's window and memory. For undo() and
    regenerate() it marks the session's state before every turn, as many turns back as `undo_bytes` allow.
    """

    def __init__(
        self,
        session: Session,
        template: ChatTemplate,
        *,
        system: str | None,
        sampling: Sampling,
        undo_bytes: int,
    ) -> None:
        """Use Model.chat()."""
        self._template = template
        self._system = None if system is None else check_text("The system message", system)
        self.session = session
        self.sampling = sampling
        self.turns = 0  # messages answered, wholly or in part
        self.answer = ""  # the last answer so far
        self.last: _core.Generator | None = None  # figures of the last answer
        self._undo_bytes = undo_bytes
        self._past: list[_Turn] = []  # one for each of the session's marks
        # A broken template or a bad option shows now rather than at the first message.
        ids = [self._encode(self._render_turn("", after=turns)) for turns in (0, 1)]
        session.check_generator(ids[0], sampling)

    def send(self, text: str, *, frozen: bool = False) -> Iterator[str]:
        """Reads `text` as the user's next message and yields the pieces of the answer.

        frozen: read and answered without writing the memory, so that a long text that was pasted does not
        overwrite what was told before. Later answers know it from the attention window, while it is there.
        Interrupted while the message is read, the chat is as before; interrupted while it answers, what was
        said so far counts as the answer. Raises InvalidArgumentError for an empty message.
        """
        if not check_text("The message", text).strip():
            raise InvalidArgumentError("The message is empty; say something.")
        ids = self._encode(self._render_turn(text, after=self.turns))
        return self._frozen_answer(text, ids) if frozen else self._answer(text, ids)

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
            self._become(self.session, held, assistant)

    def fork(self) -> Chat:
        """An independent chat that goes on from here. It cannot undo what was before."""
        other = Chat(
            self.session.clone(),
            self._template,
            system=self._system,
            sampling=self.sampling,
            undo_bytes=self._undo_bytes,
        )
        other.turns, other.answer = self.turns, self.answer
        return other

    @property
    def unfinished(self) -> bool:
        """Whether the last answer was stopped before its end, so that resume() can go on with it."""
        return self.session.unfinished

    def resume(self) -> Iterator[str]:
        """Goes on with the answer that was stopped, as if it had not been. `answer` is what was said so far.

        Raises InvalidArgumentError when there is none.
        """
        self.last = self.session.resume()
        return self._speak(self.last)

    @property
    def undo_turns(self) -> int:
        """How many turns undo() can take back."""
        return len(self._past)

    def undo(self) -> bool:
        """Forgets the last turn, wholly; False when none is left that can be undone."""
        if not self._past or not self.session.undo():
            return False
        before = self._past.pop()
        self.turns, self.answer, self.last = before.turns, before.answer, None
        return True

    def regenerate(self) -> Iterator[str]:
        """Takes the last answer back and yields another one to the same message."""
        text = self._past[-1].text if self._past else ""
        if not self.undo():
            raise InvalidArgumentError("There is no answer to take back.")
        if self.sampling.seed is not None:  # the same seed would give the same answer
            self.sampling = replace(self.sampling, seed=(self.sampling.seed + 1) % (1 << 64))
        return self.send(text)

    def reset(self) -> None:
        """Starts over: an empty window, an empty memory, the system message again."""
        self.session.reset()
        self._become(self.session, 0, "")

    def wipe(self) -> None:
        """reset(), and every byte that the session held is overwritten (Session.wipe)."""
        self.session.wipe()
        self._become(self.session, 0, "")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the conversation to a file (Session.save), in the middle of an answer too.

        Of its text the file holds an unfinished answer so far, and nothing else; marks are not saved.
        """
        note: dict[str, object] = {"turns": self.turns}
        if self.unfinished:
            note["answer"] = self.answer[-_KEPT_ANSWER:]
        self.session.save(path, json.dumps(note).encode())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Goes on with a saved conversation. Raises what Session.load() does; the chat is then as before.

        A memory without a note, as the C API's chats save it, is taken for one of a chat, too.
        """
        said = dict[str, Any]()

        def accept(note: bytes) -> None:
            try:
                said.update(json.loads(note) if note else {"turns": -1})
                turns, answer = said["turns"], said.get("answer", "")
                if type(turns) is not int or (note and turns < 0) or not isinstance(answer, str):
                    raise ValueError(said)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise SnapshotError(
                    f"'{os.fspath(path)}' is the memory of a session, but not of a chat."
                ) from error

        self.session.load(path, accept=accept)
        turns = said["turns"] if said["turns"] >= 0 else min(self.session.position, 1)
        self._become(self.session, turns, said.get("answer", ""))

    def _become(self, session: Session, turns: int, answer: str) -> None:
        """Another past: nothing of it can be undone."""
        self.session, self.turns, self.answer = session, turns, answer
        self.last, self._past = None, []

    def _answer(self, text: str, ids: list[int]) -> Iterator[str]:
        before = _Turn(text, self.turns, self.answer)
        if self._undo_bytes > 0:
            self.session.mark(self._undo_bytes)
            self._past = [*self._past, before][-self.session.marks :]
        generator = self.session.start_generator(ids, self.sampling)
        try:
            generator.prefill()
        except BaseException:
            self.undo()
            raise
        self.turns, self.answer, self.last = self.turns + 1, "", generator
        if self.sampling.seed is not None:  # each turn draws anew, and a whole chat still repeats
            self.sampling = replace(self.sampling, seed=(self.sampling.seed + 1) % (1 << 64))
        yield from self._speak(generator)

    def _frozen_answer(self, text: str, ids: list[int]) -> Iterator[str]:
        """What went before is learned when the session freezes: before the mark that undo() goes back to."""
        was = self.session.frozen
        self.session.freeze()
        try:
            yield from self._answer(text, ids)
        finally:
            self.session.freeze(was)

    def _speak(self, generator: _core.Generator) -> Iterator[str]:
        for piece in generator:
            self.answer += piece
            yield piece

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
