"""Renders chat messages by the model's Jinja template, keeping people's words apart from the template's own.

The template comes from the model's files and the messages from people; neither is trusted. The template runs
in Jinja's immutable sandbox, and it sees placeholders instead of messages: so it cannot depend on what they
say, and the special tokens of the result are all its own, whatever a message contains.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from allmem_edge.errors import ChatTemplateError
from allmem_edge.files import ModelFiles, token_text

_MAX_RENDERED = 1 << 20  # characters; a turn's frame is some dozens
_MAX_RANGE = 10_000


class Message(NamedTuple):
    """role: "system", "user" or "assistant"."""

    role: str
    content: str


class Segment(NamedTuple):
    """A part of a rendered conversation. In a message's content, special tokens are plain text."""

    text: str
    is_content: bool


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox without the operators that make gigabytes out of a line."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if not all(isinstance(operand, (int, float)) and abs(operand) < 1 << 32 for operand in (left, right)):
            raise jinja2.TemplateRuntimeError(f"the operands of {operator} are not small numbers")
        if operator == "**" and abs(right) > 64:
            raise jinja2.TemplateRuntimeError("an exponent is larger than 64")
        return super().call_binop(context, operator, left, right)


class ChatTemplate:
    """A model's chat template, compiled."""

    def __init__(self, source: str, name: str, *, special_tokens: dict[str, str] | None = None) -> None:
        """source: Jinja; name: the file, for errors; special_tokens: the model's bos_token, eos_token, ..."""
        self._name = name
        self._special_tokens = special_tokens or {}
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals.update(
            raise_exception=_raise_exception, strftime_now=_strftime_now, range=_short_range
        )
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ChatTemplateError(
                f"The chat template {name} is not valid Jinja (line {error.lineno}): {error.message}."
            ) from error
        except (ValueError, TypeError, RecursionError, MemoryError, SyntaxError) as error:
            raise ChatTemplateError(f"The chat template {name} cannot be compiled: {error}.") from error

    @classmethod
    def of_model(cls, files: ModelFiles) -> ChatTemplate:
        """From chat_template.jinja, or `chat_template` of tokenizer_config.json. Raises ChatTemplateError."""
        config = files.read_json("tokenizer_config.json")
        tokens = {
            key: text
            for key in ("bos_token", "eos_token", "unk_token", "pad_token")
            if (text := token_text(config.get(key)))
        }
        source = files.read_text("chat_template.jinja")
        if source is not None:
            return cls(source, files.place("chat_template.jinja"), special_tokens=tokens)
        inline = config.get("chat_template")
        if isinstance(inline, str):
            return cls(inline, f"in {files.place('tokenizer_config.json')}", special_tokens=tokens)
        raise ChatTemplateError(
            f"The model has no {files.place('chat_template.jinja')}, so it cannot chat; "
            "use `generate` with a raw prompt."
        )

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[Segment]:
        """The conversation as segments, in order: frame, content of the first message, frame, ..., frame."""
        mark = secrets.token_hex(8)
        hidden = [{"role": m.role, "content": f"\ue000{mark}.{i}\ue001"} for i, m in enumerate(messages)]
        parts = re.split(f"\ue000{mark}\\.(\\d+)\ue001", self._run(hidden, add_generation_prompt))
        if [int(i) for i in parts[1::2]] != list(range(len(messages))):
            raise ChatTemplateError(
                f"The chat template {self._name} does not show every message once, unchanged and in order: "
                "such a conversation cannot be streamed."
            )
        return [Segment(messages[int(p)].content if i % 2 else p, bool(i % 2)) for i, p in enumerate(parts)]

    def _run(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        rendered, size = [], 0
        try:
            for piece in self._template.generate(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                tools=None,
                **self._special_tokens,
            ):
                rendered.append(piece)
                size += len(piece)
                if size > _MAX_RENDERED:
                    raise ChatTemplateError(
                        f"The chat template {self._name} writes more than {_MAX_RENDERED} characters a turn."
                    )
        except ChatTemplateError:
            raise
        # The template is a program by a stranger: whatever it raises is its fault, not ours.
        except Exception as error:
            raise ChatTemplateError(
                f"The chat template {self._name} failed: {error or type(error).__name__}."
            ) from error
        return "".join(rendered)


def _raise_exception(message: object) -> NoReturn:
    raise jinja2.TemplateRuntimeError(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Without HTML escapes, as chat templates expect."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _short_range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > _MAX_RANGE:
        raise jinja2.TemplateRuntimeError(f"a range has more than {_MAX_RANGE} numbers")
    return numbers
