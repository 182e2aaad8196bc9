"""Chat: a conversation of turns over one session. A turn costs only its own tokens.

Only where the template shows an earlier answer in another form than it was written in (without its reasoning,
say) is the last turn read again, from the state before it: the model then sees what it saw in training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from allmem_edge import _core
from allmem_edge.errors import InvalidArgumentError, SnapshotError
from allmem_edge.sampling import Sampling, check_text, next_seed
from allmem_edge.session import Session
from allmem_edge.turns import Exchange, Turns
from allmem_edge.words import Segment

_KEPT_ANSWER = 1 << 16  # characters of an unfinished answer that a file holds, at most 12 bytes each


@dataclass(frozen=True)
class _Turn:
    """What undo() goes back to, beside the session's mark."""

    text: str  # the message that was sent then
    turns: int
    message: str | None
    answer: str
    frozen: bool  # whether it was read so
    answered_frozen: bool  # the answer before it, which may be unfinished


class Chat:
    """A conversation with a model. One caller at a time, like its session.

    The chat keeps no history but its last turn: what was said lives in the session's window and memory. For
    undo() and regenerate() it marks the session's state before every turn, as many turns back as `undo_bytes`
    allow. Without a mark (after load() and fork(), or with undo_bytes=0) an answer stays as it was written,
    also where the template would show it in another form from then on.
    """

    def __init__(
        self,
        session: Session,
        turns: Turns,
        *,
        sampling: Sampling,
        undo_bytes: int,
    ) -> None:
        """Use Model.chat()."""
        self._format = turns
        self.session = session
        self.sampling = sampling
        self.turns = 0  # messages answered, wholly or in part
        self.answer = ""  # the last answer so far
        self._message: str | None = None  # what it answers; None if that is not known
        self.last: _core.Generator | None = None  # figures of the last answer
        self._answered_frozen = False  # the last answer, by send(frozen=True)
        self._frozen_before: bool | None = None  # the session, while a turn keeps it frozen
        self._frozen_by = object()  # that turn
        self._undo_bytes = undo_bytes
        self._past: list[_Turn] = []  # one for each of the session's marks
        # A broken template or a bad option shows now rather than at the first message.
        session.check_generator(self._encode(self._render_turn("Hello", after=0)), sampling)

    def send(self, text: str, *, frozen: bool = False) -> Iterator[str]:
        """Reads `text` as the user's next message and yields the pieces of the answer.

        frozen: read and answered without writing the memory, so that a long text that was pasted does not
        overwrite what was told before. Later answers know it from the attention window, while it is there.
        The session is as before when the answer ends or is left, and when another turn begins.
        Interrupted while the message is read, the chat is as before; but with undo_bytes=0, which keeps no
        copy to go back to, the session has read a part of it: load() or reset() then. Interrupted while it
        answers, what was said so far counts as the answer. Raises InvalidArgumentError for an empty message.
        """
        if not check_text("The message", text).strip():
            raise InvalidArgumentError("The message is empty; say something.")
        return self._answer(text, frozen)

    def read(self, turns: Iterable[tuple[str, str]]) -> None:
        """Reads exchanges (what the user said, what the assistant answered) as if they had been held here.

        Interrupted, the chat is as before, as with send().
        """
        exchanges = _exchanges(turns)
        if not exchanges:
            return
        self._thaw()
        self._settle()
        ids = self._encode(self._format.exchanges(exchanges, after=self.turns, last=self._last))
        self._mark("")
        try:
            self.session.forward(ids, last_only=True)
        except BaseException:
            self.undo()
            raise
        self._become(self.session, self.turns + len(exchanges), exchanges[-1].answer)
        self._message = exchanges[-1].message

    def fork(self) -> Chat:
        """An independent chat that goes on from here. It cannot undo what was before."""
        other = Chat(
            self.session.clone(),
            self._format,
            sampling=self.sampling,
            undo_bytes=self._undo_bytes,
        )
        other.turns, other.answer, other._message = self.turns, self.answer, self._message
        other._answered_frozen, other._frozen_before = self._answered_frozen, self._frozen_before
        other._thaw()
        return other

    def __copy__(self) -> Chat:
        return self.fork()

    def __deepcopy__(self, memo: object) -> Chat:
        return self.fork()

    def __reduce__(self) -> NoReturn:
        raise InvalidArgumentError(
            "A chat cannot be pickled: save() it, and load() it into a chat of the model."
        )

    @property
    def unfinished(self) -> bool:
        """Whether the last answer was stopped before its end, so that resume() can go on with it."""
        return self.session.unfinished

    def resume(self) -> Iterator[str]:
        """Goes on with the answer that was stopped, as if it had not been: frozen, if it was so.

        `answer` is what was said so far.
        Raises InvalidArgumentError when there is none.
        """
        self._thaw()
        self.last = self.session.resume()
        return self._resumed(self.last)

    @property
    def undo_turns(self) -> int:
        """How many turns undo() can take back."""
        return len(self._past)

    def undo(self) -> bool:
        """Forgets the last turn, wholly; False when none is left that can be undone."""
        if not self._past or not self.session.undo():
            return False
        self._thaw()
        before = self._past.pop()
        self.turns, self.answer, self.last = before.turns, before.answer, None
        self._message, self._answered_frozen = before.message, before.answered_frozen
        return True

    def regenerate(self) -> Iterator[str]:
        """Takes the last answer back and yields another one to the same message."""
        text = self._past[-1].text if self._past else ""
        if not self.undo():
            raise InvalidArgumentError("There is no answer to take back.")
        self.sampling = next_seed(self.sampling)  # the same seed would give the same answer
        return self.send(text)

    def reset(self) -> None:
        """Starts over: an empty window, an empty memory, the system message again."""
        self.session.reset()
        self._thaw()
        self._become(self.session, 0, "")

    def wipe(self) -> None:
        """reset(), and every byte that the session held is overwritten (Session.wipe)."""
        self.session.wipe()
        self._thaw()
        self._become(self.session, 0, "")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the conversation to a file (Session.save), in the middle of an answer too.

        Of its text the file holds an unfinished answer so far, and nothing else; marks are not saved.
        """
        note: dict[str, object] = {"turns": self.turns}
        if self.unfinished:
            note["answer"] = self.answer[-_KEPT_ANSWER:]
            note["frozen"] = self._answered_frozen
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
                    f"'{os.fsdecode(path)}' is the memory of a session, but not of a chat."
                ) from error

        self.session.load(path, accept=accept)
        turns = said["turns"] if said["turns"] >= 0 else min(self.session.position, 1)
        self._become(self.session, turns, said.get("answer", ""))
        self._answered_frozen = said.get("frozen") is True

    def _become(self, session: Session, turns: int, answer: str) -> None:
        """Another past: nothing of it can be undone."""
        self.session, self.turns, self.answer = session, turns, answer
        self.last, self._past, self._message = None, [], None
        self._answered_frozen, self._frozen_before = False, None

    @property
    def _last(self) -> Exchange | None:
        return None if self._message is None else Exchange(self._message, self.answer)

    def _settle(self) -> None:
        """Reads the last turn again as the template shows it from now on, if that is in another form."""
        last = self._last
        settled = self._format.settled(last, after=self.turns) if self._past and last else None
        if settled is None:
            return
        kept, frozen = self.session.clone(), self.session.frozen
        try:
            self.session.undo()
            self.session.freeze(self._past[-1].frozen)
            self.session.mark(self._undo_bytes)
            self._past = self._past[-self.session.marks :]
            self.session.forward(self._encode(settled), last_only=True)
            self.session.freeze(frozen)
        except BaseException:
            self.session, self._past = kept, []
            raise

    def _answer(self, text: str, frozen: bool) -> Iterator[str]:
        with self._reading(frozen):
            self._settle()
            ids = self._encode(self._render_turn(text, after=self.turns))
            self._mark(text)
            try:
                generator = self.session.start_generator(ids, self.sampling)
                generator.prefill()
            except BaseException:
                self.undo()
                raise
            self.turns, self.answer, self.last = self.turns + 1, "", generator
            self._message, self._answered_frozen = text, frozen
            self.sampling = next_seed(self.sampling)  # each turn draws anew, and a whole chat still repeats
            yield from self._speak(generator)

    def _resumed(self, generator: _core.Generator) -> Iterator[str]:
        with self._reading(self._answered_frozen):
            yield from self._speak(generator)

    def _mark(self, text: str) -> None:
        """Keeps what undo() goes back to, before `text` is read."""
        if self._undo_bytes > 0:
            state = self.turns, self._message, self.answer, self.session.frozen, self._answered_frozen
            before = _Turn(text, *state)
            self.session.mark(self._undo_bytes)
            self._past = [*self._past, before][-self.session.marks :]

    @contextmanager
    def _reading(self, frozen: bool) -> Iterator[None]:
        """A turn, during which the session is frozen or as it is.

        What went before is learned when the session freezes: before the mark that undo() goes back to.
        """
        self._thaw()
        if not frozen:
            yield
            return
        turn = self._frozen_by = object()
        self._frozen_before = self.session.frozen
        self.session.freeze()
        try:
            yield
        finally:
            if self._frozen_by is turn:
                self._thaw()

    def _thaw(self) -> None:
        """The session as before the frozen turn that is going on, or that was abandoned."""
        if self._frozen_before is not None:
            self.session.freeze(self._frozen_before)
            self._frozen_before = None

    def _speak(self, generator: _core.Generator) -> Iterator[str]:
        for piece in generator:
            self.answer += piece
            yield piece

    def _render_turn(self, text: str, *, after: int) -> list[Segment]:
        """What a message of the user adds to a conversation of `after` turns."""
        return self._format.turn(text, after=after, last=self._last if after == self.turns else None)

    def _encode(self, segments: list[Segment]) -> list[int]:
        return self.session.model.tokenizer.encode_parts(segments)


def _exchanges(turns: Iterable[tuple[str, str]]) -> list[Exchange]:
    """Of what a caller hands over. Raises InvalidArgumentError."""
    try:
        pairs = [(message, answer) for message, answer in turns]
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"The turns are not pairs of a message and its answer: {error}."
        ) from error
    return [Exchange(check_text("A message", m), check_text("An answer", a)) for m, a in pairs]
