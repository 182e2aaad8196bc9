"""Session: all mutable state of one conversation, of constant size however much it reads."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, Protocol, TypeAlias, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allmem_edge import _core
from allmem_edge.arguments import content, count, native_path
from allmem_edge.engine import EngineModel, EngineSession
from allmem_edge.errors import (
    InvalidArgumentError,
    ModelNotFoundError,
    SnapshotError,
    UnsupportedModelError,
)
from allmem_edge.sampling import Sampling, check_text, chosen, native

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from typing_extensions import Unpack

TokenFilter: TypeAlias = Callable[[int, NDArray[np.uint32]], object]


@dataclass(frozen=True)
class LayerMemory:
    """How far one layer's memory has moved: Frobenius norms over its matrices and heads."""

    layer: int
    drift: float  # ||W - W_0|| / ||W_0|| over the layer's fast weights
    weight: float  # ||W_0||
    momentum: float  # ||S||: the size of the last update, made at the end of the last chunk
    gradient: float  # ||G||: of the next update, as much as is there in blocks of 32 tokens

    @property
    def last_update(self) -> float:
        """||S|| / ||W_0||, in the unit of the drift; ||S|| where W_0 is 0."""
        return self.momentum / (self.weight or 1.0)

    @property
    def next_update(self) -> float:
        """||G|| / ||W_0||, likewise."""
        return self.gradient / (self.weight or 1.0)


@dataclass(frozen=True)
class SessionReport:
    """What Session.inspect() tells."""

    tokens_seen: int
    frozen: bool
    state_bytes: int
    layers: list[LayerMemory]


class SessionModel(Protocol):
    """What a session and a chat ask of their allmem_edge.model.Model."""

    @property
    def engine(self) -> EngineModel: ...
    @property
    def text(self) -> _core.ModelText: ...
    @property
    def has_tokenizer(self) -> bool: ...
    @property
    def tokenizer(self) -> _core.Tokenizer: ...
    @property
    def sampling(self) -> Sampling: ...


class Session:
    """One conversation.

    For one thread at a time; a call while another thread is inside one raises SessionInUseError. Only
    cancel() may come from any thread. Long calls release the GIL and heed Ctrl-C between blocks of tokens.
    An error of the runtime itself poisons the session: what reads, writes, marks or saves raises
    PoisonedSessionError until reset(), wipe(), undo() or load().
    """

    def __init__(self, model: SessionModel, engine: EngineSession) -> None:
        """Use Model.session()."""
        self.model = model
        self._engine = engine

    def forward(self, ids: ArrayLike, *, last_only: bool = False) -> NDArray[np.float32]:
        """Reads tokens and returns their logits: float32 [T, vocab], or [1, vocab] of the last token alone.

        Raises InvalidArgumentError for no tokens or ids out of range (nothing is read then), CancelledError.
        Interrupted, the session has read whole blocks of tokens: `position` says how many.
        """
        return self._engine.forward(token_array(ids), last_only)

    def generate(
        self,
        prompt: str | ArrayLike,
        *,
        logprobs: int | None = None,
        token_filter: TokenFilter | None = None,
        **sampling: Unpack[Sampling],
    ) -> _core.Generator:
        """Reads `prompt` (text, or token ids) and yields the pieces of what the model writes after it.

        A piece is of one token or several. The iterator also has finish_reason, prompt_tokens,
        generated_tokens, prefill_seconds, decode_seconds, and drafted_tokens and accepted_tokens: how many
        were read before they were drawn, and drawn then. The session has read every token whose text was
        yielded, so a second call goes on from there. A text that is left in the middle belongs to the
        session: save() keeps it, and resume() goes on with it.

        logprobs: record the tokens that are drawn, each with the model's own log-probability and this many of
        the most likely tokens; take_tokens() of the iterator gives them.
        token_filter: is called before each draw with the token drawn before (-1: none) and a uint32 array in
        which bit i % 32 of word i / 32 is 1; it clears the bits of tokens that must not follow.
        Options: allmem_edge.sampling.Sampling; what is left out is as the model's files say. A first text
        begins with what the model's makers put there (BOS). Raises InvalidArgumentError before anything is
        read.
        """
        if isinstance(prompt, str):
            prefix = self.model.text.prefix if self.position == 0 else []
            prompt = [*prefix, *self.model.tokenizer.encode(check_text("The prompt", prompt))]
        options = chosen(self.model.sampling, sampling)
        return self.start_generator(prompt, options, logprobs=logprobs, token_filter=token_filter)

    def start_generator(
        self,
        prompt: ArrayLike,
        sampling: Sampling,
        *,
        logprobs: int | None = None,
        token_filter: TokenFilter | None = None,
    ) -> _core.Generator:
        """generate() with the options in one object, which has them all."""
        engine = self._engine
        if isinstance(engine, _core.Session):
            return self._generator(engine, prompt, sampling, logprobs, token_filter)
        return self._generator(
            lambda ids, last: engine.forward(ids, last_only=True), prompt, sampling, logprobs, token_filter
        )

    def check_generator(self, prompt: ArrayLike, sampling: Sampling) -> None:
        """Raises what start_generator() would, and starts nothing."""
        self._generator(lambda ids, last: None, prompt, sampling)

    def _generator(
        self,
        runner: _core.Session | Callable[[NDArray[np.int64], bool], NDArray[np.float32] | None],
        prompt: ArrayLike,
        sampling: Sampling,
        logprobs: int | None = None,
        token_filter: TokenFilter | None = None,
    ) -> _core.Generator:
        self.model.tokenizer  # noqa: B018 - raises when there is none
        vocab_size, text = self.model.engine.vocab_size, self.model.text
        hooks = _hooks(logprobs, token_filter)
        return _core.Generator(runner, vocab_size, text, token_array(prompt), native(sampling), **hooks)

    def resume(
        self, *, logprobs: int | None = None, token_filter: TokenFilter | None = None
    ) -> _core.Generator:
        """Goes on with the unfinished text as if it had never been stopped, with the options it began with.

        Also after load() in another process. Pieces that were yielded do not come again. Raises
        InvalidArgumentError when nothing is unfinished: see `unfinished`. logprobs, token_filter: as for
        generate(); they are no part of the text.
        """
        return _core.Generator.resume(self.native(), **_hooks(logprobs, token_filter))

    def set_sampling(self, **sampling: Unpack[Sampling]) -> None:
        """Starts a new sequence of draws for sample(), with an empty repetition window.

        Until then they are as the model's files say, with seed 0. Options as in generate().
        """
        self.native().set_sampling(native(chosen(self.model.sampling, sampling)))

    def sample(self) -> int:
        """Draws a token from the logits of the last one read; pass it to forward() to go on.

        Raises InvalidArgumentError where there are none: nothing was read yet.
        """
        return self.native().sample(self._tokenizer())

    def reset(self) -> None:
        """As new: nothing read, the memory at its initial weights, no marks. Also ends a poisoning."""
        self._engine.reset()

    def wipe(self) -> None:
        """reset(), and every byte that the session held is overwritten, its marks included.

        Not what Python itself holds: prompts, pieces of text, snapshots as bytes, arrays of logits.
        """
        self.native().wipe()

    def freeze(self, frozen: bool = True) -> None:
        """Frozen, the memory is read but no longer written; the attention window moves on.

        What was read before is learned first, what an unfinished chunk has too: it would have left the window
        before that chunk ends. So pasted text is read without forgetting: freeze, read it, freeze(False).
        Raises InvalidArgumentError for False where the model was loaded with memory="frozen".
        """
        self._engine.freeze(bool(frozen))

    @property
    def frozen(self) -> bool:
        return self._engine.frozen

    def clone(self) -> Session:
        """An independent session in the same state, without marks. copy.copy() does the same."""
        return Session(self.model, self._engine.clone())

    def __copy__(self) -> Session:
        return self.clone()

    def __deepcopy__(self, memo: object) -> Session:
        return self.clone()

    def __reduce__(self) -> NoReturn:
        raise InvalidArgumentError(
            "A session cannot be pickled: send its snapshot(), and restore() it in a session of the model."
        )

    def mark(self, max_bytes: int) -> None:
        """Keeps the present state for undo(); call it before a turn.

        Of the states kept, the oldest are dropped so that all take at most max_bytes; the newest stays.
        """
        self._engine.mark(count("max_bytes", max_bytes))

    def undo(self) -> bool:
        """Back to the newest mark, which is used up; False when there is none. Frozen stays frozen."""
        return self._engine.undo()

    def save(self, file: str | os.PathLike[str] | BinaryIO, note: bytes = b"") -> None:
        """Saves everything this session holds but its marks, with up to 1 MiB of the caller's own.

        file: a path, or a binary file object, which is given pieces of at most 1 MiB: to encrypt them, say.
        A crash at any moment leaves the old file or the new one; links are followed, and mode and extended
        attributes of the old file stay. Raises StorageError when it cannot write, ConflictError when
        somebody else has changed the file since this session was loaded from it or saved to it, and when it
        could not be loaded into this session. A file that this session has never met is overwritten.
        """
        note = content("The note", note)
        if isinstance(file, (str, bytes, os.PathLike)) or not hasattr(file, "write"):
            self.native().save(native_path(file), note)
        else:
            self.native().save_to(partial(_write_all, file), note)

    def load(
        self, file: str | os.PathLike[str] | BinaryIO, *, accept: Callable[[bytes], object] | None = None
    ) -> bytes:
        """Goes on where a saved session of the same model stood, bit for bit; returns its note.

        Also in the middle of a text: see resume(). No second copy of the state is made: it is read twice, to
        check it and to take it. file: a path, or a binary file object that can seek, from where it stands to
        its end. accept: is called with the note before anything changes; what it raises refuses the memory.
        Raises ModelNotFoundError for no such file, SnapshotError for one that is damaged or of another model,
        UnsupportedModelError for an unfinished text when this model has no tokenizer; the session is then
        unchanged. Raises StorageError for one that cannot be read, and leaves the session poisoned if that
        happens, or the file changes, while its state is taken.
        """
        native, tokenizer = self.native(), self._tokenizer()
        if isinstance(file, (str, bytes, os.PathLike)) or not hasattr(file, "seek"):
            return native.load(native_path(file), tokenizer, accept)
        begin = file.tell()
        size = file.seek(0, os.SEEK_END) - begin
        return native.load_from(size, partial(_read_all, file, begin), tokenizer, accept)

    def snapshot(self, note: ReadableBuffer = b"") -> bytes:
        """What save() would write, as bytes."""
        return self.native().snapshot(content("The note", note))

    def restore(self, snapshot: ReadableBuffer) -> bytes:
        """load() from bytes."""
        return self.native().restore(content("The snapshot", snapshot), self._tokenizer())

    def cancel(self) -> None:
        """From any thread: at the next block, forward() raises CancelledError and generate() ends."""
        self._engine.cancel()

    @property
    def unfinished(self) -> bool:
        """Whether a text was begun and left in the middle, so that resume() can go on with it."""
        return isinstance(self._engine, _core.Session) and self._engine.unfinished

    @property
    def marks(self) -> int:
        """How many times undo() can go back."""
        return self._engine.marks

    @property
    def mark_bytes(self) -> int:
        """Memory of all marks."""
        return self._engine.mark_bytes

    @property
    def position(self) -> int:
        """Tokens read so far."""
        return self._engine.position

    @property
    def state_bytes(self) -> int:
        """Bytes of the attention window and the memory; constant."""
        return self._engine.state_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes of everything the session allocated, scratch included; constant."""
        return self._engine.total_bytes

    @property
    def threads(self) -> int:
        return self._engine.threads

    def inspect(self) -> SessionReport:
        """How much was read, how far each layer's memory has moved, and what is about to move it."""
        layers = [
            LayerMemory(found.layer, found.drift, found.weight, found.momentum, found.gradient)
            for found in self._engine.layer_memories()
        ]
        return SessionReport(self.position, self.frozen, self.state_bytes, layers)

    def native(self) -> _core.Session:
        """The native session, for what onnxruntime's cannot do. Raises UnsupportedModelError."""
        if isinstance(self._engine, _core.Session):
            return self._engine
        raise UnsupportedModelError(
            "Only the native runtime saves, resumes, samples and wipes sessions, not the onnxruntime backend."
        )

    def _tokenizer(self) -> _core.Tokenizer | None:
        return self.model.tokenizer if self.model.has_tokenizer else None


class _Hooks(TypedDict):
    logprobs: int | None
    token_filter: TokenFilter | None


def _hooks(logprobs: Any, token_filter: TokenFilter | None) -> _Hooks:
    if logprobs is not None and (type(logprobs) is not int or not 0 <= logprobs < 1 << 31):
        raise InvalidArgumentError(f"logprobs is {logprobs!r}; it must be None or a number of tokens.")
    if token_filter is not None and not callable(token_filter):
        raise InvalidArgumentError(f"token_filter is {token_filter!r}; it must be None or a function.")
    return {"logprobs": logprobs, "token_filter": token_filter}


def token_array(ids: Any) -> NDArray[np.int64]:
    """ids as int64 [T]; anything that is not a flat list of integers is refused."""
    try:
        array = np.asarray(ids)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidArgumentError(f"The tokens are not a flat list of integers: {error}.") from error
    if array.size == 0:
        raise InvalidArgumentError("The prompt is empty; give the model at least one token to read.")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidArgumentError(
            f"The tokens must be a flat list of integers, not a {array.dtype} array of shape {array.shape}."
        )
    if array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max:
        raise InvalidArgumentError(f"Token {array.max()} is outside every vocabulary.")
    return array.astype(np.int64)


def delete_memory(path: str | os.PathLike[str]) -> None:
    """Removes a saved memory, following links, and all that a killed save left of it: for "forget me".

    Raises ModelNotFoundError when there is none, StorageError.
    """
    if not _core.delete_snapshot_file(os.fspath(path)):
        raise ModelNotFoundError(f"There is no memory file '{os.fspath(path)}'.")


def _write_all(file: BinaryIO, piece: memoryview) -> None:
    """To a raw file too, which may take a part at a time."""
    while len(piece):
        written = file.write(piece)
        piece = piece[len(piece) if written is None else written :]


def _read_all(file: BinaryIO, begin: int, offset: int, into: memoryview) -> None:
    file.seek(begin + offset)
    while len(into):
        block = file.read(min(len(into), 1 << 18))
        if not block:
            raise SnapshotError("This memory cannot be loaded: it was cut short while it was read.")
        into[: len(block)] = block
        into = into[len(block) :]
