"""`allmem-edge chat`: a conversation, at a terminal or through a pipe."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from allmem_edge import __version__, _core
from allmem_edge.chat import Chat
from allmem_edge.cli import console
from allmem_edge.cli.input import open_input
from allmem_edge.cli.options import (
    choice_options,
    model_argument,
    sampling_options,
    template_option,
    threads_option,
)
from allmem_edge.errors import AllMemError, PoisonedSessionError, StorageError
from allmem_edge.hub import find_model
from allmem_edge.memory_lock import MemoryLock
from allmem_edge.model import Model
from allmem_edge.sampling import Sampling


@click.command("chat")
@model_argument
@click.option(
    "--memory",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Remember across runs: load FILE if it exists, and save to it after every answer.",
)
@click.option("--frozen", is_flag=True, help="Read the memory, but never write it.")
@click.option("--system", help="System message.")
@click.option("--or-bundled", is_flag=True, help="Fall back to the bundled model if MODEL is not available.")
@template_option
@sampling_options
@choice_options(with_frozen=False)
@threads_option
def command(
    model: str | None,
    memory: Path | None,
    frozen: bool,
    system: str | None,
    or_bundled: bool,
    template_variables: dict[str, Any],
    sampling: Sampling,
    threads: int,
    choices: dict[str, Any],
) -> None:
    """Talk to a model; it remembers what it reads.

    MODEL is a directory, a hub id or an adapter's name (smollm2), which is downloaded and assembled on first
    use; default: the bundled model. Ctrl-C stops an answer; press it twice, or Ctrl-D, to leave. From a pipe,
    each line is a message, and each answer a line of stdout.
    """
    loaded = Model.load(_at_hand(model, or_bundled), **choices)
    chat = loaded.chat(system=system, threads=threads, template_variables=template_variables, **sampling)
    with contextlib.ExitStack() as held:
        if memory is not None:
            memory = memory.expanduser()
            held.enter_context(MemoryLock(memory))
            if memory.exists() and memory.stat().st_size > 0:  # a file for a container to mount begins empty
                chat.load(memory)
        if frozen:
            chat.session.freeze()
        _Conversation(loaded, chat, memory, interactive=console.stdin_is_terminal()).run()


def _at_hand(model: str | None, or_bundled: bool) -> str | Path | None:
    """The model, put together first if it is an adapter's; None for the bundled one."""
    if model is None:
        return None
    from allmem_edge.assembly.assemble import must_be_pulled
    from allmem_edge.cli.pull import ask, pull_with_progress

    stderr = console.stderr()
    try:
        if not os.path.exists(model) and must_be_pulled(model):
            if console.stdin_is_terminal() and stderr.is_terminal and not or_bundled:
                ask(model)
            pull_with_progress(model, stderr)
        return find_model(model)
    except AllMemError as error:
        if not or_bundled:
            raise
        why = console.printable(f"Using the bundled model, as {model} is not available: {error}")
        stderr.print(Text(why), soft_wrap=True)
        return None


class _Conversation:
    """The loop of messages, answers and /commands."""

    def __init__(self, model: Model, chat: Chat, memory: Path | None, *, interactive: bool) -> None:
        self._model, self._chat = model, chat
        self._file = memory
        self._interactive = interactive
        self._stderr = console.stderr()
        self._left = False
        self._commands: dict[str, tuple[Callable[[], None], str]] = {
            "/help": (self._help, "this list"),
            "/memory": (self._memory, "how far the memory of each layer has moved"),
            "/save FILE": (
                self._help,
                "save the conversation; allmem-edge chat --memory FILE goes on with it",
            ),
            "/load FILE": (self._help, "go on with a saved conversation"),
            "/read FILE": (self._help, "let it read a text without forgetting what you told it before"),
            "/reset": (self._reset, "forget everything"),
            "/freeze": (self._freeze, "stop writing the memory, or go on writing it"),
            "/undo": (self._undo, "forget the last message and its answer; again for the one before"),
            "/regen": (self._regenerate, "another answer to the last message"),
            "/continue": (self._continue, "go on with an answer that was stopped"),
            "/stats": (self._stats, "speed and bytes of state"),
            "/bye": (self._bye, "leave"),
        }

    def run(self) -> None:
        """Until /bye, Ctrl-D or the end of the input; KeyboardInterrupt for a second Ctrl-C."""
        source = open_input(self._interactive)
        self._banner()
        self._tell_unfinished()
        interrupted = False  # the last thing that happened was a Ctrl-C
        while not self._left:
            try:
                message = source.read_message()
                if message is None:
                    return
                interrupted = False
                self._handle(message)
                self._remember()
            except KeyboardInterrupt:
                if not self._interactive or interrupted:
                    raise
                interrupted = True
                self._remember()
                self._note("\nStopped. /continue goes on. Ctrl-C again leaves, as does Ctrl-D.")
            except AllMemError as error:
                # At a terminal a bad message is no reason to lose the conversation.
                if not self._interactive or isinstance(error, PoisonedSessionError):
                    raise
                self._note(str(error))

    def _handle(self, message: str) -> None:
        word = message.strip().lower()
        command, _, argument = message.strip().partition(" ")
        if command.lower() in ("/save", "/load"):
            self._save_or_load(command.lower(), argument.strip())
        elif command.lower() == "/read":
            self._read(argument.strip())
        elif word in self._commands:
            self._commands[word][0]()
        elif word.startswith("/") and len(word.split()) == 1 and word[1:].isalpha():
            self._note(f"There is no command {word}; /help lists them.")
        elif word:
            self._show(self._chat.send(message))

    def _show(self, pieces: Iterator[str]) -> None:
        """Streams an answer. Through a pipe it is one line, whatever the model writes."""
        try:
            for piece in pieces:
                console.write_text(piece if self._interactive else piece.replace("\n", " "))
        finally:
            console.write_text("\n")
        if self._interactive:
            self._figures()

    def _note(self, text: str) -> None:
        """A remark of the program, to whoever is looking."""
        if self._interactive or self._stderr.is_terminal:
            self._stderr.print(Text(console.printable(text), style="dim"))

    def _figures(self) -> None:
        session, last = self._chat.session, self._chat.last
        speed = f"{last.generated_tokens / max(last.decode_seconds, 1e-9):,.0f} tokens/s · " if last else ""
        frozen = " · frozen" if session.frozen else ""
        memory = f"state {console.size(session.state_bytes)} (constant)"
        self._note(f"{speed}{memory} · {session.position:,} tokens seen{frozen}\n")

    def _banner(self) -> None:
        if not (self._interactive and self._stderr.is_terminal):
            return
        model, session = self._model, self._chat.session
        facts = model.engine
        _print_banner(
            self._stderr,
            f"{model.name} · {console.size(facts.weight_bytes)} · {facts.layers} layers",
            f"window {facts.window} tokens · state {console.size(session.state_bytes)}, constant",
            f"{session.threads} threads, {_core.isa_name()}",
            model.about,
        )

    def _help(self) -> None:
        for line in self._model.about:
            self._note(console.printable(line))
        for name, (_, meaning) in self._commands.items():
            self._note(f"{name:12}{meaning}")
        self._note('"""         opens and closes a message of several lines')

    def _memory(self) -> None:
        report = self._chat.session.inspect()
        self._note(f"{report.tokens_seen:,} tokens seen, {console.size(report.state_bytes)} (constant)")
        for layer in report.layers:
            self._note(
                f"layer {layer.layer:2}   drift {layer.drift:8.4f}"
                f"   last update {layer.last_update:8.4f}   next so far {layer.next_update:8.4f}"
            )

    def _save_or_load(self, command: str, file: str) -> None:
        file = os.path.expanduser(file)  # no shell does it here
        if not file:
            self._note(f"Name a file: {command} FILE.")
        elif command == "/save":
            self._chat.save(file)
            self._note(f"Saved to {file}.")
        else:
            self._chat.load(file)
            self._note(f"Going on from {file}, {self._chat.session.position:,} tokens seen.")
            self._tell_unfinished()

    def _read(self, file: str) -> None:
        if not file:
            self._note("Name a file: /read FILE.")
            return
        path = Path(file).expanduser()
        try:
            text = path.read_bytes().decode("utf-8", errors="replace")
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror or error}.") from error
        self._show(self._chat.send(text, frozen=True))

    def _remember(self) -> None:
        if self._file is not None:
            self._chat.save(self._file)

    def _reset(self) -> None:
        self._chat.reset()
        self._note("Everything is forgotten.")

    def _freeze(self) -> None:
        session = self._chat.session
        session.freeze(not session.frozen)
        self._note(
            "The memory is frozen: read, never written." if session.frozen else "The memory is written again."
        )

    def _undo(self) -> None:
        if self._chat.undo():
            left = self._chat.undo_turns
            self._note(f"The last turn is forgotten; {left or 'no'} more can be.")
        else:
            self._note("There is no turn to forget.")

    def _regenerate(self) -> None:
        self._show(self._chat.regenerate())

    def _continue(self) -> None:
        self._show(self._chat.resume())

    def _tell_unfinished(self) -> None:
        if self._chat.unfinished:
            said = self._chat.answer[-60:].replace("\n", " ")
            self._note(
                f"The last answer was stopped at “{console.printable(said)}”; /continue goes on with it."
            )

    def _stats(self) -> None:
        last = self._chat.last
        if last:
            self._note(
                f"read {last.prompt_tokens} tokens in {last.prefill_seconds:.2f} s, "
                f"wrote {last.generated_tokens} in {last.decode_seconds:.2f} s ({last.finish_reason}), "
                f"{last.accepted_tokens} of {last.drafted_tokens} drafted"
            )
        self._figures()

    def _bye(self) -> None:
        self._left = True


def _print_banner(out: Console, model: str, memory: str, machine: str, about: list[str]) -> None:
    out.print(
        Text.assemble(
            ("allmem-edge ", "bold"), (f"{__version__}  ", "dim"), (console.printable(model), "cyan")
        )
    )
    out.print(Text(memory))
    out.print(Text(machine, style="dim"))
    for line in about:
        out.print(Text(console.printable(line)))
    out.print(
        Text(
            "Tell it something, talk of other things, then ask. /help lists commands, Ctrl-D leaves.\n",
            style="dim",
        )
    )
