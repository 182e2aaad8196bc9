"""The command `allmem-edge`. Each command is a module of its own, imported when it is called for.

The contract of all of them: stdout carries the result and nothing else; everything else goes to stderr, and
banners, progress and figures only to a terminal. Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from allmem_edge import __version__
from allmem_edge.errors import AllMemError, InvalidArgumentError

_COMMANDS = {
    "chat": "Talk to a model; it remembers what it reads.",
    "pull": "Assemble a model from a base model and a memory adapter.",
    "generate": "Continue a text.",
    "bench": "Measure speed and memory.",
    "eval": "Measure what a model can do (recall, perplexity, needle, divergence, bench-files).",
    "compare": "Compare models and settings, by quality and by cost.",
    "inspect": "Show a model's shapes, window, chunk and bytes.",
    "convert": "Turn a base model into an AllMem checkpoint.",
    "train": "Train as a config file says.",
    "export": "Export a checkpoint as a model directory (ONNX).",
    "verify": "Compare PyTorch, onnxruntime and the native runtime.",
    "adapter": "Export or show a memory adapter.",
}
_MODULES = {name: f"allmem_edge.cli.{name}" for name in _COMMANDS}


class _LazyGroup(click.Group):
    """Knows its commands by name and imports one when it is used: `--help` is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(_MODULES[cmd_name]).command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None  # before click writes a line break to stderr

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="allmem-edge")
def cli() -> None:
    """Language models that learn while they read, in a fixed amount of memory."""


def main() -> None:
    """The entry point of the installed command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit code; every failure is one sentence on stderr."""
    if sys.stdout is None:  # started with a closed stdout
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what its encoding lacks is shown as ?, and is no error
    try:
        code = cli.main(args=list(arguments), prog_name="allmem-edge", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        place = error.ctx.command_path if error.ctx else "allmem-edge"
        return _fail(f"{error.format_message()} (see `{place} --help`)", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), 1)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except InvalidArgumentError as error:
        return _fail(str(error), 2)
    except AllMemError as error:
        return _fail(str(error), 1)
    except BrokenPipeError:
        # Whoever read our output has gone. Nothing to say; keep the interpreter from flushing into the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        return _fail("There is not enough memory for this.", 1)
    except OSError as error:
        return _fail(f"{error.filename or 'The system'}: {error.strerror or error}.", 1)


def _fail(sentence: str, code: int) -> int:
    from allmem_edge.cli.console import printable  # not needed for what is done at once, as --help

    click.echo(click.style("error: ", fg="red") + printable(sentence), err=True, color=_colour())
    return code


def _colour() -> bool | None:
    """None lets click look at the terminal."""
    return False if os.environ.get("NO_COLOR") else None
