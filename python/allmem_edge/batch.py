"""Batch: sessions of one model that read and generate at once, and fetch the weights once for all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allmem_edge import _core
from allmem_edge.errors import AllMemError, InvalidArgumentError, UnsupportedModelError
from allmem_edge.session import Session, token_array

if TYPE_CHECKING:
    from allmem_edge.session import SessionModel


class Batch:
    """Room for sessions of one model to compute together; each gets what it would get alone.

    In fast mode that is the same to the last bit, with float32 weights or exact=True up to rounding. Sessions
    are named in each call: they come and go as they like, and are used alone between two calls. Calls
    release the GIL, and are for one thread at a time, as those of sessions are.
    """

    def __init__(self, model: SessionModel, threads: int = 0) -> None:
        """Use Model.batch(). threads: 0 uses every fast core; those of the sessions themselves rest."""
        if not isinstance(model.engine, _core.Model):
            raise UnsupportedModelError(
                "Only the native runtime has batches of sessions, not the onnxruntime backend."
            )
        self.model = model
        self._native = _core.Batch(model.engine, threads)

    def step(self, tokens: Iterable[tuple[Session, ArrayLike]]) -> list[NDArray[np.float32] | AllMemError]:
        """Each session reads its tokens, one or a prompt: the logits after its last one, float32 [vocab].

        What Session.forward() would have raised for one session stands in the place of its logits, and the
        others do not mind: InvalidArgumentError for ids out of range or a session of another model,
        SessionInUseError for one that another thread uses or that came before in the list, CancelledError
        after its cancel(), PoisonedSessionError. Raises InvalidArgumentError for what are no tokens, and
        SessionInUseError when another thread uses the batch, with nothing changed.
        """
        pairs = [(_native_session(session), token_array(ids)) for session, ids in tokens]
        return self._native.forward(pairs)

    def generate(self, texts: Iterable[_core.Generator]) -> Iterator[dict[int, str]]:
        """Generates texts at once, begun by Session.generate() of as many sessions.

        Yields after each step the pieces that it gave, by the number of the text; each text is what it is
        alone, with its own sampling, token filter and finish_reason. A text that is cancelled ends, and so
        does one that raises something, which is raised when the others are through.
        """
        left = dict(enumerate(texts))
        raised: BaseException | None = None
        while left:
            pieces: dict[int, str] = {}
            for number, piece in zip(list(left), self._native.next(list(left.values())), strict=True):
                if isinstance(piece, str):
                    if piece:
                        pieces[number] = piece
                    continue
                del left[number]
                raised = raised or piece
            if pieces:
                yield pieces
        if raised is not None:
            raise raised

    def wipe(self) -> None:
        """Overwrites what was computed here: activations and logits of all sessions that took part."""
        self._native.wipe()

    @property
    def total_bytes(self) -> int:
        """Bytes that it has allocated."""
        return self._native.total_bytes

    @property
    def threads(self) -> int:
        return self._native.threads


def _native_session(session: Session) -> _core.Session:
    if not isinstance(session, Session):
        raise InvalidArgumentError(f"{session!r} is no session; a batch takes pairs of a session and tokens.")
    return session.native()
