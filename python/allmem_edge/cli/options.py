"""Options that several commands share."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

model_argument = click.argument("model", required=False)
threads_option = click.option(
    "--threads", type=click.IntRange(0, 256), default=0, help="How many cores to use; 0 means all fast ones."
)
exact_option = click.option(
    "--exact", is_flag=True, help="Compute in float32, as the model's function bodies define it."
)
out_option = click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep each result in FILE as it comes; started again, a run that was killed goes on from there.",
)
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "chat", "plain"]),
    default="auto",
    show_default=True,
    help="Ask in the model's chat format, or with a plain text; auto: chat, if it has one.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")


def _variables(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE: true, 3 or a list as JSON has them, anything else as text."""
    variables: dict[str, Any] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name.isidentifier():
            raise click.BadParameter(f"{value!r} is not NAME=VALUE.")
        try:
            variables[name] = json.loads(text)
        except (ValueError, RecursionError):
            variables[name] = text
    return variables


template_option = click.option(
    "--template-var",
    "template_variables",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_variables,
    help="Tell the model's chat template, enable_thinking=false for example.",
)


def choice_options(*, with_frozen: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--window, --sinks, --chunk, --no-memory and, if wanted, --frozen, as one argument `choices` for
    Model.load()."""
    options = [
        click.option(
            "--window", type=int, metavar="N", help="Attend to the last N tokens, not the model's own."
        ),
        click.option("--sinks", type=int, metavar="N", help="And to the first N."),
        click.option(
            "--chunk", type=int, metavar="N", help="Write the memory every N tokens, at most a window."
        ),
        click.option("--no-memory", is_flag=True, help="Leave the memory out: attention alone."),
    ]
    if with_frozen:
        options.append(
            click.option(
                "--frozen", is_flag=True, help="Read the memory as training left it; never write it."
            )
        )

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_choices(
            *args: Any,
            window: int | None,
            sinks: int | None,
            chunk: int | None,
            no_memory: bool,
            **others: Any,
        ) -> Any:
            frozen = with_frozen and others.pop("frozen")
            memory = "off" if no_memory else "frozen" if frozen else "on"
            choices = {"window": window, "sinks": sinks, "chunk": chunk, "memory": memory}
            return function(*args, choices=choices, **others)

        decorated: Callable[..., Any] = with_choices
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return apply


def sampling_options(temperature: float | None) -> Callable[[Function], Function]:
    """--temp, --top-k, --top-p, --min-p, --repetition-penalty, --seed; the runtime checks their ranges."""
    unset = temperature is None
    described = "as the model's generation_config.json says" if unset else f"{temperature:g}"
    options = [
        click.option(
            "--temp",
            type=float,
            default=temperature,
            help=f"0 takes the likeliest token. [default: {described}]",
        ),
        click.option(
            "--top-k", type=int, default=None if unset else 0, help="Keep the k likeliest tokens; 0: all."
        ),
        click.option(
            "--top-p", type=float, default=None if unset else 1.0, help="Keep the likeliest of this mass."
        ),
        click.option(
            "--min-p",
            type=float,
            default=None if unset else 0.0,
            help="Drop tokens below this share of the best.",
        ),
        click.option(
            "--repetition-penalty", type=float, default=None if unset else 1.0, help="Above 1: repeat less."
        ),
        click.option("--seed", type=int, default=None, help="The same seed gives the same text."),
    ]

    def apply(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return apply
