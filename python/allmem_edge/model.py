"""Model: weights, tokenizer and facts of one model directory, shared by any number of sessions."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from allmem_edge import _core, files
from allmem_edge.chat import Chat
from allmem_edge.engine import EngineModel, EngineSession
from allmem_edge.errors import InvalidArgumentError, TokenizerError
from allmem_edge.hub import find_model
from allmem_edge.sampling import Sampling
from allmem_edge.session import Session
from allmem_edge.template import ChatTemplate

Backend = Literal["native", "onnxruntime"]


class Model:
    """A loaded model. Immutable and safe to share between threads; all mutable state is in its sessions."""

    def __init__(self, path: Path, backend: Backend, engine: EngineModel) -> None:
        """Use Model.load()."""
        self.path = path
        self.backend: Backend = backend
        self.engine = engine

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, backend: Backend = "native", exact: bool = False
    ) -> Model:
        """Loads a model.

        path: a model directory (or its .onnx file), a hub id "org/name", or None for the bundled model.
        backend: "native", or "onnxruntime" to run the same file in stock onnxruntime (slower).
        exact: float32 everywhere, as the file's function bodies define the operators. Otherwise activations
        that meet quantised weights are rounded to 8 bits, several times faster. onnxruntime is always exact.
        Raises ModelNotFoundError, ModelFormatError, UnsupportedModelError, StorageError or
        MissingDependencyError.
        """
        found = find_model(path)
        if backend == "native":
            return cls(found, backend, _core.Model(str(found), exact))
        if backend == "onnxruntime":
            from allmem_edge.ort_backend import OrtModel

            return cls(found, backend, OrtModel(found))
        raise InvalidArgumentError(f"The backend is {backend!r}; it must be 'native' or 'onnxruntime'.")

    def session(self, threads: int = 0) -> Session:
        """A new conversation with its own state, allocated at its final size. threads: 0 uses every core."""
        return Session(self, self.new_engine_session(threads))

    def chat(
        self,
        *,
        system: str | None = None,
        threads: int = 0,
        max_tokens: int = 512,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        undo_bytes: int = 64 << 20,
    ) -> Chat:
        """A new chat in the model's own chat format.

        undo_bytes: how much memory the states of earlier turns may take, for Chat.undo(). The last turn's is
        always kept, however large, unless this is 0.

        Options as in Session.generate(); one that is None is what the model's generation_config.json says,
        else temperature 0.7 and no filter. Raises ChatTemplateError, TokenizerError, InvalidArgumentError.
        """
        given = {
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
        }
        chosen: dict[str, Any] = {"temperature": 0.7, **files.sampling_defaults(self.directory)}
        chosen |= {key: value for key, value in given.items() if value is not None}
        sampling = Sampling(max_tokens=max_tokens, seed=seed, **chosen)
        if isinstance(undo_bytes, bool) or not isinstance(undo_bytes, int) or not 0 <= undo_bytes < 1 << 63:
            raise InvalidArgumentError(f"undo_bytes is {undo_bytes!r}; it must be a number of bytes.")
        session, template = self.session(threads), self.chat_template
        return Chat(session, template, system=system, sampling=sampling, undo_bytes=undo_bytes)

    def new_engine_session(self, threads: int) -> EngineSession:
        """The backend's own session object, in its initial state."""
        if isinstance(threads, bool) or not isinstance(threads, int) or not 0 <= threads <= 1024:
            raise InvalidArgumentError(f"threads is {threads!r}; it must be between 0 (all cores) and 1024.")
        if isinstance(self.engine, _core.Model):
            return _core.Session(self.engine, threads)
        from allmem_edge.ort_backend import OrtModel, OrtSession

        assert isinstance(self.engine, OrtModel)
        return OrtSession(self.engine, threads)

    @property
    def directory(self) -> Path:
        """Where the model's files are."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def name(self) -> str:
        """The directory's name; of a hub snapshot, the repository's."""
        resolved = self.directory.resolve()
        if resolved.parent.name == "snapshots":
            return resolved.parent.parent.name.removeprefix("models--").replace("--", "/")
        return resolved.name

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer.json; without it the model takes and gives token ids alone."""
        return (self.directory / "tokenizer.json").is_file()

    @cached_property
    def tokenizer(self) -> _core.Tokenizer:
        """The model's tokenizer. Raises TokenizerError if it is missing, broken or another model's."""
        path = self.directory / "tokenizer.json"
        if not self.has_tokenizer:
            raise TokenizerError(
                f"The model has no tokenizer: {path} is missing. Pass token ids, or add the file."
            )
        tokenizer = _core.Tokenizer.from_file(str(path))
        if tokenizer.vocab_size > self.engine.vocab_size:
            raise TokenizerError(
                f"{path} has {tokenizer.vocab_size} tokens, but the model knows {self.engine.vocab_size}; "
                "the file belongs to another model."
            )
        return tokenizer

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The model's chat template. Raises ChatTemplateError."""
        return ChatTemplate.from_directory(self.directory)

    @cached_property
    def stop_ids(self) -> list[int]:
        """The tokens that end a text, by generation_config.json and tokenizer_config.json."""
        ids = files.eos_ids(self.directory)
        text = files.token_text(files.read_json(self.directory / "tokenizer_config.json").get("eos_token"))
        id_of_text = self.tokenizer.token_id(text) if text else None
        return [*ids, id_of_text] if id_of_text is not None and id_of_text not in ids else ids
