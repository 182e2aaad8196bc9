"""Session: all mutable state of one conversation, of constant size however much it reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from allmem_edge import _core
from allmem_edge.engine import EngineSession
from allmem_edge.errors import InvalidArgumentError
from allmem_edge.sampling import Sampling, check_text

if TYPE_CHECKING:
    from allmem_edge.model import Model


@dataclass(frozen=True)
class LayerMemory:
    """How far one layer's memory has moved."""

    layer: int
    drift: float  # ||W - W_0|| / ||W_0|| over the layer's fast weights
    momentum: float  # ||S||


@dataclass(frozen=True)
class SessionReport:
    """What Session.inspect() tells."""

    tokens_seen: int
    frozen: bool
    state_bytes: int
    layers: list[LayerMemory]


class Session:
    """One conversation.

    For one thread at a time; a call while another thread is inside one raises InvalidArgumentError. Only
    cancel() may come from any thread. Long calls release the GIL and heed Ctrl-C between blocks of tokens.
    An error of the runtime itself poisons the session: all but reset() then raise PoisonedSessionError.
    """

    def __init__(self, model: Model, engine: EngineSession) -> None:
        """Use Model.session()."""
        self.model = model
        self._engine = engine

    def forward(self, ids: ArrayLike, *, last_only: bool = False) -> NDArray[np.float32]:
        """Reads tokens and returns their logits: float32 [T, vocab], or [1, vocab] of the last token alone.

        Raises InvalidArgumentError for no tokens or ids out of range (nothing is read then), CancelledError.
        Interrupted, the session has read whole blocks of tokens: `position` says how many.
        """
        return self._engine.forward(_token_array(ids), last_only)

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
    ) -> _core.Generator:
        """Reads `prompt` (text, or token ids) and yields the pieces of what the model writes after it.

        The iterator also has finish_reason, prompt_tokens, generated_tokens, prefill_seconds, decode_seconds.
        The session has read every token whose text was yielded, so a second call goes on from there.
        Options: see allmem_edge.sampling.Sampling. Raises InvalidArgumentError before anything is read.
        """
        sampling = Sampling(
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            stop=stop,
        )
        if isinstance(prompt, str):
            prompt = self.model.tokenizer.encode(check_text("The prompt", prompt))
        return self.start_generator(prompt, sampling)

    def start_generator(self, prompt: Sequence[int], sampling: Sampling) -> _core.Generator:
        """generate() with the options in one object."""
        ids: list[int] = _token_array(prompt).tolist()
        engine = self._engine
        return _core.Generator(
            engine
            if isinstance(engine, _core.Session)
            else lambda tokens, last: engine.forward(tokens, last_only=True),
            self.model.engine.vocab_size,
            self.model.tokenizer,
            ids,
            stop_ids=self.model.stop_ids,
            **sampling.native(),
        )

    def reset(self) -> None:
        """As new: nothing read, the memory at its initial weights. Also ends the poisoning by an error."""
        self._engine.reset()

    def freeze(self, frozen: bool = True) -> None:
        """Frozen, the memory is read but no longer written; the attention window moves on."""
        self._engine.freeze(frozen)

    @property
    def frozen(self) -> bool:
        return self._engine.frozen

    def clone(self) -> Session:
        """An independent session in the same state."""
        return Session(self.model, self._engine.clone())

    def save(self, path: str | os.PathLike[str], note: bytes = b"") -> None:
        """Saves everything this session holds to a file, with up to 1 MiB of the caller's own.

        A crash at any moment leaves the old file or the new one. Raises StorageError when it cannot write.
        """
        self._engine.save(os.fspath(path), note)

    def load(self, path: str | os.PathLike[str]) -> bytes:
        """Goes on where a saved session of the same model stood, bit for bit; returns its note.

        Raises ModelNotFoundError for no such file, SnapshotError for one that is damaged or of another model;
        the session is then unchanged.
        """
        return self._engine.load(os.fspath(path))

    def snapshot(self, note: bytes = b"") -> bytes:
        """What save() would write, as bytes."""
        return self._engine.snapshot(note)

    def restore(self, snapshot: bytes) -> bytes:
        """load() from bytes."""
        return self._engine.restore(snapshot)

    def cancel(self) -> None:
        """From any thread: at the next block, forward() raises CancelledError and generate() ends."""
        self._engine.cancel()

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
        """How much was read and how far each layer's memory has moved from its initial weights."""
        initial = self.model.new_engine_session(threads=1)
        weights: dict[int, list[tuple[float, float]]] = {}  # layer -> (||W - W_0||², ||W_0||²) per matrix
        momenta: dict[int, list[float]] = {}
        for index, state in enumerate(self.model.engine.states):
            layer = _layer_of(state.name)
            if ".memory.weight." in state.name:
                start = initial.state(index)
                moved = _square_norm(self._engine.state(index) - start)
                weights.setdefault(layer, []).append((moved, _square_norm(start)))
            elif ".memory.momentum." in state.name:
                momenta.setdefault(layer, []).append(_square_norm(self._engine.state(index)))
        layers = [
            LayerMemory(
                layer,
                _ratio(sum(m for m, _ in parts), sum(s for _, s in parts)),
                sum(momenta.get(layer, [])) ** 0.5,
            )
            for layer, parts in sorted(weights.items())
        ]
        return SessionReport(self.position, self.frozen, self.state_bytes, layers)


def _token_array(ids: Any) -> NDArray[np.int64]:
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


def _layer_of(state_name: str) -> int:
    """ "layers.3.memory..." is of layer 3."""
    part = state_name.split(".")[1] if state_name.startswith("layers.") else ""
    return int(part) if part.isdecimal() else 0


def _square_norm(values: NDArray[np.float32]) -> float:
    return float(np.sum(np.square(values, dtype=np.float64)))


def _ratio(moved: float, start: float) -> float:
    return (moved / start) ** 0.5 if start > 0 else 0.0
