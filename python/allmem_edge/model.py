"""Model: weights, tokenizer and facts of one model directory, shared by any number of sessions."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from allmem_edge import _core
from allmem_edge.arguments import native_path
from allmem_edge.batch import Batch
from allmem_edge.chat import Chat
from allmem_edge.checksums import check_files
from allmem_edge.engine import EngineModel, EngineSession
from allmem_edge.errors import InvalidArgumentError, StorageError, TokenizerError
from allmem_edge.files import SMALL_FILES, ModelFiles, checked_path
from allmem_edge.hub import find_model
from allmem_edge.sampling import Sampling, check_text, chosen
from allmem_edge.session import Session
from allmem_edge.template import ChatTemplate
from allmem_edge.turns import Turns

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from typing_extensions import Unpack

Backend = Literal["native", "onnxruntime"]
MemoryUse = Literal["on", "frozen", "off"]
Log = Callable[[str], object]


class Model:
    """A loaded model. Immutable and safe to share between threads; all mutable state is in its sessions."""

    def __init__(
        self, path: Path | None, files: ModelFiles, engine: EngineModel, backend: Backend = "native"
    ) -> None:
        """Use Model.load(), .load_memory() or .load_fds()."""
        self.path = path  # None for a model in pieces
        self.backend: Backend = backend
        self.engine = engine
        self.files = files
        self.text = files.model_text(engine.vocab_size)  # what it needs of files is in memory from here on

    @classmethod
    def load(
        cls,
        path: str | bytes | os.PathLike[str] | None = None,
        *,
        backend: Backend = "native",
        exact: bool = False,
        check: bool | None = None,
        window: int | None = None,
        sinks: int | None = None,
        chunk: int | None = None,
        memory: MemoryUse = "on",
        log: Log | None = None,
    ) -> Model:
        """Loads a model.

        path: a model directory (or its .onnx file), the name of an adapter ("smollm2"; the first time it
        fetches its base and assembles it), a hub id "org/name", or None for the bundled model.
        backend: "native", or "onnxruntime" to run the same file in stock onnxruntime (slower).
        exact: float32 everywhere, as the file's function bodies define the operators. Otherwise activations
        that meet quantised weights are rounded to 8 bits, several times faster. onnxruntime is always exact.
        check: compare all files with SHA256SUMS first, which costs a reading of them (docs/format.md);
        ModelNotFoundError if the model has none. None compares weights of up to 16 MiB, 64 MiB in all, if
        there is one.
        window, sinks, chunk: tokens, instead of the file's own. The state's size follows. A window as long
        as the text is full attention. The chunk is at most the window. A saved memory belongs to these.
        memory: "on"; "frozen", read as training left it and never written; or "off", neither computed nor
        allocated.
        log: is called with a line on what the native runtime does with this model: loading it, saving and
        loading memories. It may be called on any thread that uses the model.

        Raises ModelNotFoundError, ModelFormatError, TokenizerError, UnsupportedModelError, StorageError,
        OutOfMemoryError, MissingDependencyError, or InvalidArgumentError for a choice that the model does not
        allow.
        """
        found = find_model(None if path is None else checked_path(path))
        if check:
            check_files(found if found.is_dir() else found.parent)
        files = ModelFiles(found if found.is_dir() else found.parent)
        if backend == "native":
            chosen = _choices(window, sinks, chunk, memory)
            opened = _core.Model(native_path(found), exact, log, **chosen, check=False if check else check)
            return cls(found, files, opened)
        if backend == "onnxruntime":
            from allmem_edge.ort_backend import OrtModel

            if (window, sinks, chunk, memory) != (None, None, None, "on"):
                raise InvalidArgumentError(
                    "The onnxruntime backend runs the file as it is; only the native runtime lets window, "
                    "sinks, chunk and memory be chosen."
                )
            if log is not None:
                raise InvalidArgumentError("Only the native runtime has a log, not the onnxruntime backend.")
            return cls(found, files, OrtModel(found), backend)
        raise InvalidArgumentError(f"The backend is {backend!r}; it must be 'native' or 'onnxruntime'.")

    @classmethod
    def load_memory(
        cls,
        files: Mapping[str, ReadableBuffer],
        *,
        exact: bool = False,
        check: bool | None = None,
        window: int | None = None,
        sinks: int | None = None,
        chunk: int | None = None,
        memory: MemoryUse = "on",
        log: Log | None = None,
    ) -> Model:
        """Loads a model from the content of its files, by name.

        files: "model.onnx", the data file that it names ("model.onnx.data"), and for text "tokenizer.json",
        "chat_template.jinja" and the configs: as bytes, memoryviews, an mmap. Weights are not copied: leave
        what holds them as it is while the model or a session of it lives. To be checked they need
        "SHA256SUMS" among them; what else it names may be left out. Options, and what it raises, as in
        load().
        """
        chosen = _choices(window, sinks, chunk, memory)
        engine = _core.Model.from_memory(list(files.items()), exact, log, **chosen, check=check)
        return cls(
            None, ModelFiles({name: bytes(files[name]) for name in SMALL_FILES if name in files}), engine
        )

    @classmethod
    def load_fds(
        cls,
        files: Mapping[str, tuple[int, int, int]],
        *,
        exact: bool = False,
        check: bool | None = None,
        window: int | None = None,
        sinks: int | None = None,
        chunk: int | None = None,
        memory: MemoryUse = "on",
        log: Log | None = None,
    ) -> Model:
        """Loads a model from parts of open files, by name: each (file descriptor, offset, size).

        The names are those of load_memory(). The parts are mapped; the files may be closed after the call,
        and must not change. Options as in load(). Raises what load() does, and InvalidArgumentError for a
        part outside its file. On Windows it raises UnsupportedModelError: a descriptor belongs to one C
        runtime there.
        """
        chosen = _choices(window, sinks, chunk, memory)
        parts = [(name, *part) for name, part in files.items()]
        engine = _core.Model.from_fds(parts, exact, log, **chosen, check=check)
        content = {}
        for name in SMALL_FILES:
            if name in files:
                fd, offset, size = files[name]
                try:
                    content[name] = os.pread(fd, size, offset)
                except OSError as error:
                    raise StorageError(f"{name} cannot be read: {error.strerror}.") from error
        return cls(None, ModelFiles(content), engine)

    def __copy__(self) -> Model:
        return self  # immutable

    def __deepcopy__(self, memo: object) -> Model:
        return self

    def __reduce__(self) -> NoReturn:
        raise InvalidArgumentError("A model cannot be pickled: send its path, and load it there.")

    def session(self, threads: int = 0) -> Session:
        """A new conversation with its own state, of its final size. threads: 0 uses every fast core."""
        return Session(self, self.new_engine_session(threads))

    def batch(self, threads: int = 0) -> Batch:
        """Room for sessions of this model to read and generate at once. threads: 0 uses every fast core."""
        return Batch(self, threads)

    def chat(
        self,
        *,
        system: str | None = None,
        threads: int = 0,
        undo_bytes: int = 64 << 20,
        template_variables: Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Chat:
        """A new chat in the model's own chat format.

        template_variables: what else the chat template is told, {"enable_thinking": False} for example.
        tools, documents: for a template that shows them: JSON schemas; dicts with a title and a text.

        undo_bytes: how much memory the states of earlier turns may take, for Chat.undo(). The last turn's is
        always kept, however large, unless this is 0.

        Options as in Session.generate(). Raises ChatTemplateError, TokenizerError, InvalidArgumentError.
        """
        options = chosen(self.sampling, sampling)
        if isinstance(undo_bytes, bool) or not isinstance(undo_bytes, int) or not 0 <= undo_bytes < 1 << 63:
            raise InvalidArgumentError(f"undo_bytes is {undo_bytes!r}; it must be a number of bytes.")
        turns = Turns(
            self.chat_template,
            self.tokenizer.special_tokens,
            system=None if system is None else check_text("The system message", system),
            tools=tools,
            documents=documents,
            variables=template_variables,
        )
        return Chat(self.session(threads), turns, sampling=options, undo_bytes=undo_bytes)

    def new_engine_session(self, threads: int) -> EngineSession:
        """The backend's own session object, in its initial state."""
        if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= 256:
            raise InvalidArgumentError(
                f"threads is {threads!r}; it must be between 0 (all fast cores) and 256."
            )
        if isinstance(self.engine, _core.Model):
            session = _core.Session(self.engine, threads)
            session.set_sampling(self.text.sampling)
            return session
        from allmem_edge.ort_backend import OrtModel, OrtSession

        assert isinstance(self.engine, OrtModel)
        return OrtSession(self.engine, threads)

    @property
    def name(self) -> str:
        """The directory's name; of a hub snapshot, the repository's; "in memory" for a model in pieces."""
        if self.path is None:
            return "in memory"
        resolved = (self.path if self.path.is_dir() else self.path.parent).resolve()
        if resolved.parent.name == "snapshots":
            return resolved.parent.parent.name.removeprefix("models--").replace("--", "/")
        return resolved.name

    @property
    def about(self) -> list[str]:
        """What people should know of the model, in sentences, if its makers say so (adapter.json)."""
        lines = self.files.read_json("adapter.json").get("about")
        return [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer.json; without it the model takes and gives token ids alone."""
        return self.text.tokenizer is not None

    @property
    def tokenizer(self) -> _core.Tokenizer:
        """The model's tokenizer. Raises TokenizerError if there is none."""
        tokenizer = self.text.tokenizer
        if tokenizer is None:
            place = self.files.place("tokenizer.json")
            raise TokenizerError(
                f"The model has no tokenizer: {place} is missing. Pass token ids, or add the file."
            )
        return tokenizer

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The model's chat template. Raises ChatTemplateError."""
        return ChatTemplate.of_model(self.files)

    @property
    def sampling(self) -> Sampling:
        """How the model is drawn from: every option, as generation_config.json says or by default."""
        return self.text.sampling

    @property
    def stop_ids(self) -> list[int]:
        """The tokens that end a text: docs/format.md says which."""
        return self.text.stop_ids


def _choices(window: int | None, sinks: int | None, chunk: int | None, memory: MemoryUse) -> dict[str, Any]:
    """Arguments of the native model, their types checked; it checks the rest."""
    for name, value in {"window": window, "sinks": sinks, "chunk": chunk}.items():
        wrong = isinstance(value, bool) or not isinstance(value, int) or not -(1 << 63) <= value < 1 << 63
        if value is not None and wrong:
            raise InvalidArgumentError(f"{name} is {value!r}; it must be a number of tokens.")
    if not isinstance(memory, str):
        raise InvalidArgumentError(f"memory is {memory!r}; it must be 'on', 'frozen' or 'off'.")
    return {"window": window, "sinks": sinks, "chunk": chunk, "memory": memory}


def fingerprint(model: Model) -> str:
    """What tells this model from another, in hexadecimal; "" for what only the native runtime computes."""
    return f"{model.engine.fingerprint:016x}" if isinstance(model.engine, _core.Model) else ""
