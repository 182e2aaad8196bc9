"""Where the messages of a chat come from: a line editor at a terminal, or plain lines through a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

_QUOTES = '"""'


class MessageInput:
    """Messages out of lines: one a line, or all lines between two \"\"\"."""

    def __init__(self, read_line: Callable[[str], str | None]) -> None:
        """read_line: the next line for a prompt, or None at the end."""
        self._read_line = read_line

    def read_message(self) -> str | None:
        """The next message, or None at the end of the input."""
        line = self._read_line("> ")
        if line is None or not line.lstrip().startswith(_QUOTES):
            return line
        lines = [line.lstrip().removeprefix(_QUOTES)]
        while not lines[-1].rstrip().endswith(_QUOTES):
            more = self._read_line(". ")
            if more is None:
                return "\n".join(lines).strip("\n")
            lines.append(more)
        lines[-1] = lines[-1].rstrip().removesuffix(_QUOTES)
        return "\n".join(lines).strip("\n")


def open_input(interactive: bool) -> MessageInput:
    """The input of a chat; a line editor with history if it is interactive."""
    return MessageInput(_terminal_lines() if interactive else _piped_line)


def _piped_line(prompt: str) -> str | None:
    line = sys.stdin.buffer.readline() if sys.stdin is not None else b""
    return line.decode("utf-8", errors="replace").rstrip("\r\n") if line else None


def _plain_line(prompt: str) -> str | None:
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return _piped_line(prompt)


def _terminal_lines() -> Callable[[str], str | None]:
    """Prompts go to stderr: stdout belongs to the model."""
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown"):  # it moves no cursor: Emacs' shell, expect
        return _plain_line
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.output import ColorDepth, create_output

    history: History = InMemoryHistory()
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    path = Path(state) / "allmem-edge" / "history"
    try:
        if not path.is_absolute():  # there is no home
            raise FileNotFoundError(state)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        history = FileHistory(str(path))
    except OSError:
        pass  # a home that cannot be written is no reason not to chat
    session: PromptSession[str] = PromptSession(
        history=history,
        output=create_output(stdout=sys.stderr),
        color_depth=ColorDepth.DEPTH_1_BIT if os.environ.get("NO_COLOR") else None,
    )

    def read_line(prompt: str) -> str | None:
        try:
            return session.prompt(prompt)
        except EOFError:
            return None

    return read_line
