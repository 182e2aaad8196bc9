"""`allmem-edge generate`: continues a text."""

from __future__ import annotations

import sys
from typing import Any

import click

from allmem_edge.cli import console
from allmem_edge.cli.options import (
    choice_options,
    json_option,
    model_argument,
    sampling_options,
    threads_option,
)
from allmem_edge.errors import InvalidArgumentError
from allmem_edge.model import Model
from allmem_edge.sampling import Sampling


@click.command("generate")
@model_argument
@click.option("--prompt", help="The text to continue; -: stdin. [default: stdin, if it is a pipe]")
@sampling_options
@choice_options()
@threads_option
@json_option
def command(
    model: str | None,
    prompt: str | None,
    sampling: Sampling,
    threads: int,
    as_json: bool,
    choices: dict[str, Any],
) -> None:
    """Continue a text.

    MODEL is a directory, a hub id or an adapter's name; default: the bundled model. Only the generated text
    goes to stdout.
    """
    if prompt is None and console.stdin_is_terminal():
        raise click.UsageError("There is no prompt: give --prompt TEXT, or pipe a text in.")
    if prompt is None or prompt == "-":
        prompt = console.read_stdin()
    if not prompt:
        raise InvalidArgumentError("The prompt is empty; give the model a text to continue.")
    loaded = Model.load(model, **choices)
    generator = loaded.session(threads).generate(prompt, **sampling)
    if as_json:
        text = "".join(generator)
        console.write_json(
            {
                "model": loaded.name,
                "text": text,
                "finish_reason": generator.finish_reason,
                "prompt_tokens": generator.prompt_tokens,
                "generated_tokens": generator.generated_tokens,
                "prefill_seconds": generator.prefill_seconds,
                "decode_seconds": generator.decode_seconds,
                "drafted_tokens": generator.drafted_tokens,
                "accepted_tokens": generator.accepted_tokens,
            }
        )
        return
    for piece in generator:
        console.write_text(piece)
    if sys.stdout.isatty():
        console.write_text("\n")
    stderr = console.stderr()
    if stderr.is_terminal:
        speed = generator.generated_tokens / max(generator.decode_seconds, 1e-9)
        stderr.print(
            f"{generator.prompt_tokens} tokens read, {generator.generated_tokens} written · "
            f"{speed:,.0f} tokens/s · {generator.finish_reason}",
            style="dim",
        )
