"""One prompt, one greedy answer, each from a new state: what the benchmarks ask of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from allmem_edge.errors import ChatTemplateError
from allmem_edge.model import Model
from allmem_edge.session import Session
from allmem_edge.template import Message

Format = Literal["chat", "plain", "auto"]
_READ_TOKENS = 512  # between two steps of the progress bar


@dataclass(frozen=True)
class Prompt:
    """What is asked, and how the answer begins, if that is given ("The special magic number is")."""

    text: str
    answer_begins: str = ""


class Answerer:
    """Asks one prompt after the other."""

    def __init__(self, model: Model, *, threads: int, form: Format = "auto") -> None:
        """form: in the model's chat format, or as a plain text to go on with; auto: chat if it has one."""
        self._model = model
        self._session: Session = model.session(threads)
        if form == "auto":
            try:
                form = "chat" if model.chat_template else "plain"
            except ChatTemplateError:
                form = "plain"
        self.form: Format = form

    def ids(self, prompt: Prompt) -> list[int]:
        """The prompt as tokens."""
        tokenizer = self._model.tokenizer
        if self.form == "plain":
            begins = f" {prompt.answer_begins}" if prompt.answer_begins else ""
            return tokenizer.encode(prompt.text + begins, False)
        template, special = self._model.chat_template, tokenizer.special_tokens
        ids = tokenizer.encode_parts(template.render([Message("user", prompt.text)], control=special))
        return ids + (tokenizer.encode(prompt.answer_begins, False) if prompt.answer_begins else [])

    def answer(
        self, ids: list[int], max_tokens: int, *, stop: tuple[str, ...] = (), step: Callable[[], object]
    ) -> str:
        """The answer to a prompt of tokens, read from a new state. step: called as reading goes on."""
        session = self._session
        session.reset()
        done = max(0, len(ids) - 1) // _READ_TOKENS * _READ_TOKENS
        for begin in range(0, done, _READ_TOKENS):
            session.forward(ids[begin : begin + _READ_TOKENS], last_only=True)
            step()
        return "".join(
            session.generate(
                ids[done:], max_tokens=max_tokens, temperature=0.0, repetition_penalty=1.0, stop=stop
            )
        )


def cut_in_the_middle(ids: list[int], most: int | None) -> list[int]:
    """As LongBench does with what is too long for a model: its first and its last half stay."""
    if most is None or len(ids) <= most:
        return ids
    return ids[: most // 2] + ids[len(ids) - (most - most // 2) :]
