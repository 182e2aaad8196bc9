"""Types of the native module; allmem_edge.model, .session and .chat are the classes for users."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from _typeshed import ReadableBuffer
from numpy.typing import ArrayLike, NDArray

from allmem_edge.errors import AllMemError
from allmem_edge.sampling import Sampling

def isa_name() -> str: ...
def measure_machine(threads: int, bytes: int, exact: bool) -> tuple[float, float, float]:
    """Per second: bytes read from a block of that size, the kernels' 8-bit and float32 operations at best.

    Those on float32 are of what is computed in it: all of a model if `exact`, else what the memory learns.
    """

class StateInfo:
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> list[int]: ...
    @property
    def bytes(self) -> int: ...

class Model:
    def __init__(
        self,
        path: str | bytes,
        exact: bool = False,
        log: Callable[[str], object] | None = None,
        window: int | None = None,
        sinks: int | None = None,
        chunk: int | None = None,
        memory: str = "on",
        check: bool | None = None,
    ) -> None: ...
    @staticmethod
    def from_memory(
        files: Sequence[tuple[str, ReadableBuffer]],
        exact: bool = False,
        log: Callable[[str], object] | None = None,
        window: int | None = None,
        sinks: int | None = None,
        chunk: int | None = None,
        memory: str = "on",
        check: bool | None = None,
    ) -> Model:
        """From (name, content). The contents stay borrowed for as long as the model and its sessions live."""
    @staticmethod
    def from_fds(
        files: Sequence[tuple[str, int, int, int]],
        exact: bool = False,
        log: Callable[[str], object] | None = None,
        window: int | None = None,
        sinks: int | None = None,
        chunk: int | None = None,
        memory: str = "on",
        check: bool | None = None,
    ) -> Model:
        """From (name, file descriptor, offset, size), mapped."""
    @property
    def vocab_size(self) -> int: ...
    @property
    def window(self) -> int: ...
    @property
    def sinks(self) -> int: ...
    @property
    def chunk(self) -> int: ...
    @property
    def memory(self) -> str: ...
    @property
    def chosen(self) -> str:
        """ "window 32, sinks 4, chunk 16, memory on"; "" when all is as the file says."""
    @property
    def layers(self) -> int: ...
    @property
    def quantization(self) -> str: ...
    @property
    def fingerprint(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def state_bytes(self) -> int: ...
    @property
    def states(self) -> list[StateInfo]: ...

class LayerMemory:
    @property
    def layer(self) -> int: ...
    @property
    def drift(self) -> float: ...
    @property
    def weight(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def gradient(self) -> float: ...

class SnapshotInfo:
    @property
    def format(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def frozen(self) -> bool: ...
    @property
    def exact(self) -> bool: ...
    @property
    def unfinished(self) -> bool: ...
    @property
    def fingerprint(self) -> int: ...
    @property
    def state_bytes(self) -> int: ...
    @property
    def states(self) -> list[StateInfo]: ...
    @property
    def chosen(self) -> str: ...
    @property
    def note(self) -> bytes: ...

def inspect_snapshot(snapshot: bytes) -> SnapshotInfo: ...
def inspect_snapshot_file(path: str | bytes) -> SnapshotInfo: ...
def delete_snapshot_file(path: str | bytes) -> bool: ...

class Session:
    def __init__(self, model: Model, threads: int = 0) -> None: ...
    def forward(self, ids: NDArray[np.int64], last_only: bool = False) -> NDArray[np.float32]: ...
    def set_sampling(self, sampling: Mapping[str, object]) -> None: ...
    def sample(self, tokenizer: Tokenizer | None) -> int: ...
    def reset(self) -> None: ...
    def wipe(self) -> None: ...
    def freeze(self, frozen: bool = True) -> None: ...
    def clone(self) -> Session: ...
    def state(self, index: int) -> NDArray[np.float32]: ...
    def place(self, position: int) -> None:
        """The state stays what it is, but counts as that after `position` tokens: for measuring far ahead."""
    def mark(self, max_bytes: int) -> None: ...
    def undo(self) -> bool: ...
    def layer_memories(self) -> list[LayerMemory]: ...
    def snapshot(self, note: bytes) -> bytes: ...
    def restore(self, snapshot: bytes, tokenizer: Tokenizer | None = None) -> bytes: ...
    def save(self, path: str | bytes, note: bytes) -> None: ...
    def load(
        self,
        path: str | bytes,
        tokenizer: Tokenizer | None = None,
        accept: Callable[[bytes], object] | None = None,
    ) -> bytes:
        """accept: is called with the note before anything changes, and refuses the memory by raising."""
    def save_to(self, write: Callable[[memoryview], object], note: bytes) -> None:
        """The memoryviews are valid during the call, also the writable ones of load_from()."""
    def load_from(
        self,
        size: int,
        read: Callable[[int, memoryview], object],
        tokenizer: Tokenizer | None = None,
        accept: Callable[[bytes], object] | None = None,
    ) -> bytes:
        """read(offset, into) fills all of `into`."""
    def cancel(self) -> None: ...
    @property
    def unfinished(self) -> bool: ...
    @property
    def marks(self) -> int: ...
    @property
    def mark_bytes(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def frozen(self) -> bool: ...
    @property
    def state_bytes(self) -> int: ...
    @property
    def total_bytes(self) -> int: ...
    @property
    def threads(self) -> int: ...

class Drawn:
    """A token that was drawn, with the model's own log-probability."""

    @property
    def id(self) -> int: ...
    @property
    def logprob(self) -> float: ...
    @property
    def best(self) -> list[tuple[int, float]]:
        """The most likely tokens with theirs, most likely first."""

class Generator:
    """Pieces of text as they are generated. The session has read exactly the tokens counted here."""

    def __init__(
        self,
        model: Session | Callable[[NDArray[np.int64], bool], NDArray[np.float32] | None],
        vocab_size: int,
        text: ModelText,
        prompt: NDArray[np.int64],
        sampling: Mapping[str, object],
        logprobs: int | None = None,
        token_filter: Callable[[int, NDArray[np.uint32]], object] | None = None,
    ) -> None: ...
    @staticmethod
    def resume(
        session: Session,
        logprobs: int | None = None,
        token_filter: Callable[[int, NDArray[np.uint32]], object] | None = None,
    ) -> Generator:
        """Goes on with the text that the session has begun and not finished."""
    def take_tokens(self) -> list[Drawn]:
        """The tokens drawn since the last call; none unless `logprobs` was given."""
    def __iter__(self) -> Generator: ...
    def __next__(self) -> str: ...
    def prefill(self) -> None:
        """Read the whole prompt now instead of at the first piece."""
    def cancel(self) -> None:
        """Stop before the next token; may come from another thread."""
    @property
    def finish_reason(self) -> str:
        """'stop_token', 'stop_string', 'max_tokens', 'no_token', 'cancelled', or 'unfinished'."""
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def generated_tokens(self) -> int: ...
    @property
    def drafted_tokens(self) -> int:
        """Tokens that were read before they were drawn."""
    @property
    def accepted_tokens(self) -> int:
        """Those of them that were drawn then."""
    @property
    def prefill_seconds(self) -> float: ...
    @property
    def decode_seconds(self) -> float: ...

class Batch:
    """Sessions that read at once, and texts that are generated at once."""

    def __init__(self, model: Model, threads: int = 0) -> None: ...
    def forward(
        self, pairs: Sequence[tuple[Session, NDArray[np.int64]]]
    ) -> list[NDArray[np.float32] | AllMemError]:
        """The logits after the last token of each, or what reading alone would have raised."""
    def next(self, texts: Sequence[Generator]) -> list[str | BaseException | None]:
        """One more piece of each text, which may be empty; None of one that is over; what it raised."""
    def wipe(self) -> None: ...
    @property
    def total_bytes(self) -> int: ...
    @property
    def threads(self) -> int: ...

class ModelText:
    """What a model's small files say: csrc/runtime/model_text.h."""

    def __init__(self, files: dict[str, tuple[bytes, bytes]], vocab_size: int) -> None:
        """files: by name, (the place that errors name, the content)."""
    @property
    def tokenizer(self) -> Tokenizer | None: ...
    @property
    def stop_ids(self) -> list[int]: ...
    @property
    def prefix(self) -> list[int]: ...
    @property
    def special_tokens(self) -> dict[str, str]: ...
    @property
    def sampling(self) -> Sampling: ...

class Tokenizer:
    """Raises InvalidArgumentError for arguments of another type."""

    @staticmethod
    def from_file(path: str | bytes | os.PathLike[str]) -> Tokenizer: ...
    @staticmethod
    def from_json(json: ReadableBuffer, name: str | bytes) -> Tokenizer: ...
    def encode(self, text: str | ReadableBuffer, special: bool = True) -> list[int]: ...
    def encode_parts(self, parts: Sequence[tuple[str, bool]]) -> list[int]:
        """Ids of (text, plain) parts as of one text; in plain ones special tokens are text."""
    @property
    def special_tokens(self) -> list[str]: ...
    def decode(self, ids: Iterable[int] | ArrayLike, skip_special: bool = True) -> str: ...
    def token_bytes(self, id: int) -> bytes: ...
    def token_id(self, token: str) -> int | None: ...
    def is_special(self, id: int) -> bool: ...
    @property
    def vocab_size(self) -> int: ...

class ChatFormat:
    """What chat_format.json says, as the C API uses it."""

    def __init__(self, json: bytes, name: str, tokenizer: Tokenizer) -> None: ...
    def encode(self, messages: Sequence[tuple[str, str]], continues: bool = False) -> list[int]:
        """Ids of (role, content) messages and of the opening of the answer."""

class StreamDecoder:
    def __init__(self, tokenizer: Tokenizer, skip_special: bool = True) -> None: ...
    def push(self, id: int) -> str: ...
    def flush(self) -> str: ...
