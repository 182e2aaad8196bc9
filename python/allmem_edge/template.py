"""Renders conversations by the model's Jinja template, as transformers does, keeping people's words apart.

The template comes from the model's files and the messages from people; neither is trusted. The template runs
in Jinja's immutable sandbox, and sees messages whose special tokens are none (allmem_edge.words).
"""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser

from allmem_edge.errors import ChatTemplateError, InvalidArgumentError
from allmem_edge.files import TOOL_TEMPLATE, ModelFiles
from allmem_edge.sandbox import Sandbox, account, spend
from allmem_edge.words import Guard, Segment, guard_of, shown, text_of

_MAX_SOURCE = 1 << 18  # bytes of a template; compiling takes some two thousand bytes of memory for each
_MAX_FRAME = 1 << 20  # characters that a template may write beside the messages; mostly it is some dozens
# Characters that it may make or go through on the way, and how often the conversation's own, if that is more.
_MAX_TEXT, _MAX_TIMES = 1 << 26, 64
# Filters that look at single characters, and so must see people's words as they are.
_LOOK_AT_CHARACTERS = (
    *("title", "escape", "e", "forceescape", "striptags", "urlize", "urlencode", "wordwrap", "wordcount"),
    "xmlattr",
)


class Message(NamedTuple):
    """role: "system", "user" or "assistant"."""

    role: str
    content: str


class _Generation(Extension):
    """{% generation %}: marks for training what the assistant says; here it is only shown."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja has it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_show"), [], [], body).set_lineno(line)

    def _show(self, caller: Callable[[], str]) -> str:
        return caller()


class ChatTemplate:
    """A model's chat template, compiled."""

    def __init__(
        self,
        source: str,
        name: str,
        *,
        special_tokens: Mapping[str, str] | None = None,
        tool_use: str | None = None,
    ) -> None:
        """source: Jinja; name: the file, for errors; special_tokens: the model's bos_token, eos_token, ...;
        tool_use: another template for conversations with tools, if the model has one.
        Raises ChatTemplateError for what is longer than 256 KiB or cannot be compiled."""
        self._name = name
        self._special_tokens = dict(special_tokens or {})
        self._sources = [source, tool_use or ""]
        self._checked: set[tuple[str | None, ...]] = (
            set()
        )  # roles of conversations whose last message is shown
        self._template = self._compile(source)
        self._tool_use = self._compile(tool_use) if tool_use is not None else self._template

    @classmethod
    def of_model(cls, files: ModelFiles) -> ChatTemplate:
        """From chat_template.jinja, or `chat_template` of tokenizer_config.json. Raises ChatTemplateError."""
        config = files.read_json("tokenizer_config.json")
        tokens = files.special_tokens()
        source = files.read_text("chat_template.jinja")
        if source is not None:
            tool_use = files.read_text(TOOL_TEMPLATE)
            return cls(source, files.place("chat_template.jinja"), special_tokens=tokens, tool_use=tool_use)
        name = f"in {files.place('tokenizer_config.json')}"
        named = _named_templates(config.get("chat_template"), name)
        if "default" in named:
            return cls(named["default"], name, special_tokens=tokens, tool_use=named.get("tool_use"))
        if named:
            raise ChatTemplateError(
                f"The chat templates {name} are named {', '.join(sorted(named))}, and none of them default: "
                "save the one to use as chat_template.jinja."
            )
        raise ChatTemplateError(
            f"The model has no {files.place('chat_template.jinja')}, so it cannot chat; "
            "use `generate` with a raw prompt."
        )

    def render(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        control: Iterable[str] | None = None,
        now: datetime | None = None,
    ) -> list[Segment]:
        """The conversation as `transformers` renders it, cut into segments.

        messages: with a role and a content each, or as dicts with whatever else the template looks for.
        tools, documents: as JSON; variables: what else the template is told, enable_thinking for example.
        control: the tokenizer's special tokens, which are plain text in all of these; without it, nothing is.
        now: what a template that asks for the date is told.
        Raises ChatTemplateError.
        """
        told = {**(variables or {}), "tools": tools, "documents": documents}
        told["add_generation_prompt"] = add_generation_prompt
        roles = tuple(message.role if isinstance(message, Message) else None for message in messages)
        if roles and roles[-1] is not None and roles not in self._checked:
            word = f"Qz{secrets.token_hex(8)}Zq"
            shown = text_of(self._render([*messages[:-1], Message(roles[-1], word)], told, control, now))
            if shown.count(word) != 1:
                raise self.error("does not show the last message once and unchanged")
            self._checked.add(roles)
        return self._render(messages, told, control, now)

    def _render(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        told: Mapping[str, Any],
        control: Iterable[str] | None,
        now: datetime | None,
    ) -> list[Segment]:
        said = [_with_reasoning(m._asdict() if isinstance(m, Message) else m) for m in messages]
        texts = _strings([said, told])
        guard = Guard(control or (), [*self._sources, *self._special_tokens.values(), *texts])
        seen: dict[str, Any] = {**self._special_tokens, **guard.all_words(told)}
        seen["messages"] = [
            {key: item if key == "role" else guard.all_words(item) for key, item in message.items()}
            for message in said
        ]
        seen["strftime_now"] = lambda form: _time(form, now or datetime.now())
        template = self._template if told["tools"] is None else self._tool_use
        size = sum(map(len, texts))
        with account(max(_MAX_TEXT, _MAX_TIMES * size)):
            return guard.segments(self._run(template, _MAX_FRAME + 4 * size, seen))

    def error(self, problem: str) -> ChatTemplateError:
        """What the template does not do, as an error that names it."""
        return ChatTemplateError(f"The chat template {self._name} {problem}.")

    def _compile(self, source: str) -> jinja2.Template:
        if len(source.encode(errors="replace")) > _MAX_SOURCE:
            raise self.error(f"is longer than {_MAX_SOURCE >> 10} KiB, which no model's is; restore the file")
        filters = {name: _looking(FILTERS[name]) for name in _LOOK_AT_CHARACTERS} | {"tojson": _to_json}
        environment = Sandbox(
            filters, trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.globals["raise_exception"] = _raise_exception
        try:
            with account(_MAX_FRAME):
                return environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise self.error(f"is not valid Jinja (line {error.lineno}): {error.message}") from error
        except (ValueError, TypeError, RecursionError, MemoryError, SyntaxError) as error:
            raise self.error(f"cannot be compiled: {error}") from error

    def _run(self, template: jinja2.Template, limit: int, seen: Mapping[str, Any]) -> str:
        rendered, size = [], 0
        try:
            for piece in template.generate(seen):
                rendered.append(piece)
                size += len(piece)
                if size > limit:
                    raise self.error(f"writes more than {_MAX_FRAME} characters beside the messages")
        except ChatTemplateError:
            raise
        # The template is a program by a stranger: whatever it raises is its fault, not ours.
        except Exception as error:
            reason = str(error).strip().rstrip(".") or type(error).__name__
            raise self.error(f"failed: {' '.join(reason.split())}") from error
        return "".join(rendered)


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is None, and with the reasoning under each of the names that templates know it by."""
    given = {key: item for key, item in message.items() if item is not None}
    names = ("reasoning_content", "thinking", "reasoning")
    reasoning = next((given[name] for name in names if name in given), None)
    return given if reasoning is None else {"thinking": reasoning, **given, "reasoning_content": reasoning}


def _named_templates(value: Any, name: str) -> dict[str, str]:
    """`chat_template` of tokenizer_config.json: one template, or a list of named ones."""
    if value is None or isinstance(value, str):
        return {} if value is None else {"default": value}
    pairs: list[tuple[Any, Any]] = [(None, None)]
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        pairs = [(item.get("name"), item.get("template")) for item in value]
    elif isinstance(value, dict):
        pairs = list(value.items())
    if not all(isinstance(item, str) for pair in pairs for item in pair):
        raise ChatTemplateError(
            f"The chat template {name} is neither a text nor a list of named ones; restore the file."
        )
    return dict(pairs)


def _strings(value: Any) -> list[str]:
    """All strings in a JSON value. Raises InvalidArgumentError for what is none."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for pair in value.items() for item in pair for text in _strings(item)]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _strings(item)]
    if value is None or isinstance(value, (bool, int, float)):
        return []
    raise InvalidArgumentError(
        f"A chat template takes text, numbers, lists and dicts, not a {type(value).__name__}."
    )


def _raise_exception(message: object) -> NoReturn:
    raise jinja2.TemplateRuntimeError(str(message))


def _time(form: str, now: datetime) -> str:
    spend(256 * len(form))  # as long as the C library lets a time get
    return now.strftime(form)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without HTML escapes, as chat templates expect."""
    guard = guard_of(value)
    text = json.dumps(
        shown(value),
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
    return text if guard is None else guard.words(text)


def _looking(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that sees what people really said, and whose result is their words."""

    @functools.wraps(function)
    def looking(*args: Any, **kwargs: Any) -> Any:
        guard = guard_of([*args, *kwargs.values()])
        if guard is None:
            return function(*args, **kwargs)
        result = function(*map(shown, args), **{name: shown(value) for name, value in kwargs.items()})
        return guard.words(str(result)) if isinstance(result, str) else result

    return looking
