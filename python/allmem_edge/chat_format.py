"""Writes chat_format.json: what a model's chat template puts around and between messages, for the C API.

C has no Jinja. The template is rendered here, once, in the ways that matter; what it writes between two
messages is noted by their roles, and then held against the template again on conversations of all kinds. A
template that cannot be written down this way (it counts the turns, or asks for the date) is noted as such.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from allmem_edge.errors import ChatTemplateError
from allmem_edge.files import ModelFiles
from allmem_edge.template import ChatTemplate, Message
from allmem_edge.words import text_of

NAME = "chat_format.json"
_ROLES = ("system", "user", "assistant")
_REASONED = "why\n</think>\n\nso"  # an answer with its reasoning, as models with </think> write it

Frames = dict[str, dict[str, str]]


def write_chat_format(directory: Path) -> bool:
    """Writes chat_format.json into a model directory; False if its template cannot be written down.

    Raises ChatTemplateError if the directory has no template, or one that is not valid Jinja.
    """
    content = chat_format(ChatTemplate.of_model(ModelFiles(directory)))
    path, partial = directory / NAME, directory / f".{NAME}.partial"
    partial.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return "unusable" not in content


def chat_format(template: ChatTemplate) -> dict[str, Any]:
    """The content of chat_format.json for `template`: see docs/format.md."""
    try:
        found = _Format(template)
    except _NotWritableError as error:
        return {"format": 1, "unusable": str(error)}
    except ChatTemplateError:
        return {"format": 1, "unusable": "refuses a plain conversation"}
    content: dict[str, Any] = {"format": 1, "frames": found.frames}
    if found.trim:
        content["trim"] = found.trim
    if found.reasoning_end:
        content["reasoning_end"] = found.reasoning_end
    return content


class _NotWritableError(Exception):
    """What the template does that chat_format.json has no words for."""


class _Format:
    """What was found out about a template."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        for roles in (["user", "assistant", "user"], ["system", "user", "assistant", "user"]):
            if self._shows_date(self._conversation(*roles)):
                raise _NotWritableError("writes the date")
        self.reasoning_end = ""
        self.trim = self._trimmed()
        self.frames = self._frames()
        self.reasoning_end = self._reasoning_end()
        self._check()

    def render(self, messages: Sequence[Message]) -> str:
        """What chat_format.json makes of a conversation. Raises KeyError where it has no frame."""
        text, before = "", "start"
        for message in messages:
            text += self.frames[before][message.role] + self._content(message)
            before = message.role
        return text + self.frames[before]["answer"]

    def _content(self, message: Message) -> str:
        content = message.content
        if message.role == "assistant" and self.reasoning_end and self.reasoning_end in content:
            content = content.rsplit(self.reasoning_end, 1)[-1].lstrip("\n")
        return content.strip() if message.role in self.trim else content

    def _conversation(self, *roles: str) -> list[Message]:
        """Of messages that are found again in a rendering."""
        return [Message(role, f"Qz{i}Zq") for i, role in enumerate(roles)]

    def _between(self, *roles: str) -> list[str] | None:
        """What the template writes before, between and after messages of these roles; None if it refuses."""
        messages = self._conversation(*roles)
        try:
            text = _text(self._template, messages)
        except ChatTemplateError:
            return None
        parts = []
        for message in messages:
            part, found, text = text.partition(message.content)
            if not found or message.content in text:
                return None
            parts.append(part)
        return [*parts, text]

    def _frames(self) -> Frames:
        frames: Frames = {}

        def learn(*roles: str) -> None:
            parts = self._between(*roles) or ()
            for before, after, part in zip(("start", *roles), (*roles, "answer"), parts, strict=False):
                frames.setdefault(before, {}).setdefault(after, part)

        learn("user", "assistant", "user", "assistant", "user")
        if "answer" not in frames.get("user", {}):
            raise _NotWritableError("does not show every message once and in order")
        learn("system", "user", "assistant", "user")
        # What no usual conversation has, but a host may: several systems, users that speak twice.
        for before, after in itertools.product(_ROLES, _ROLES):
            learn("user", "assistant", "user", before, after)
        return frames

    def _shows_date(self, messages: Sequence[Message]) -> bool:
        try:
            return _text(self._template, messages, 1999) != _text(self._template, messages, 2038)
        except ChatTemplateError:
            return False

    def _trimmed(self) -> list[str]:
        """The roles whose contents lose their white space."""
        trimmed = []
        for role in _ROLES:
            roles = ("system", "user", "assistant", "user")[role != "system" :]
            messages = self._conversation(*roles)
            messages[roles.index(role)] = Message(role, " \n Qz9Zq \n ")
            try:
                text = _text(self._template, messages)
            except ChatTemplateError:
                continue
            if messages[roles.index(role)].content not in text:
                trimmed.append(role)
        return trimmed

    def _reasoning_end(self) -> str:
        messages = self._conversation("user", "assistant", "user")
        messages[1] = Message("assistant", _REASONED)
        text = _text(self._template, messages)
        return "" if text == self.render(messages) else "</think>"

    def _check(self) -> None:
        """Holds what was found against the template; a transition that does not fit is taken out."""
        contents = ["Hello", " two  words\n", "\n\n\tx", "", "line\nline", "<b>{{ x }}</b>", "é 字 \u00a0"]
        plain = [("user", *("assistant", "user") * n) for n in range(4)]
        with_system = [("system", *roles) for roles in plain]
        for kind, conversations in (("", plain), ("system", with_system)):
            for roles, shift in itertools.product(conversations, range(len(contents))):
                said = itertools.cycle(contents[shift:] + contents[:shift])
                messages = [Message(role, next(said)) for role in roles]
                if self._fits(messages):
                    continue
                if not kind:
                    raise _NotWritableError("looks into messages or counts them")
                self.frames["start"].pop("system", None)  # a system message is refused, in C
                break
        answers = [_REASONED, "<think>\nwhy\n</think>\n\nso", "</think>", "a</think>b</think>\n\n\nc"]
        for answer in answers:
            messages = self._conversation("user", "assistant", "user", "assistant", "user")
            messages[1] = Message("assistant", answer)
            if not self._fits(messages):
                raise _NotWritableError("changes earlier answers")
        for before, after in itertools.product(_ROLES, (*_ROLES, "answer")):
            rest = (after, "user") if after != "answer" else ()
            messages = self._conversation("user", "assistant", "user", before, *rest)
            usual = (before, after) in (
                ("system", "user"),
                ("user", "assistant"),
                ("assistant", "user"),
                ("user", "answer"),
            )
            if not usual and after in self.frames.get(before, {}) and not self._fits(messages):
                del self.frames[before][after]

    def _fits(self, messages: Sequence[Message]) -> bool:
        try:
            return self.render(messages) == _text(self._template, messages)
        except (KeyError, ChatTemplateError):
            return False


def _text(template: ChatTemplate, messages: Sequence[Message], year: int = 2000) -> str:
    """The template's rendering in a year. Raises ChatTemplateError."""
    text = text_of(template.render(messages, now=datetime(year, 11, 12, 13, 14, 15)))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ChatTemplateError(f"The chat template writes what is no character ({error}).") from error
    return text
