"""Options that several commands share."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from allmem_edge.sampling import Sampling

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

_SAMPLING = [
    click.option(
        "--max-tokens", type=click.IntRange(min=0), help="Tokens of an answer at most. [default: 512]"
    ),
    click.option(
        "--temp",
        "temperature",
        type=float,
        help="0 takes the likeliest token. [default: as the model's generation_config.json says]",
    ),
    click.option("--top-k", type=int, help="Keep the k likeliest tokens; 0: all."),
    click.option("--top-p", type=float, help="Keep the likeliest of this mass."),
    click.option("--min-p", type=float, help="Drop tokens below this share of the best."),
    click.option("--repetition-penalty", type=float, help="Above 1: repeat less."),
    click.option("--seed", type=int, help="The same seed gives the same text."),
    click.option(
        "--stop", multiple=True, help="End the text before this string; may be given several times."
    ),
]


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


def sampling_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The flags of allmem_edge.sampling.Sampling, as the argument `sampling`; the runtime checks them."""

    @functools.wraps(function)
    def collected(**arguments: Any) -> Any:
        sampling = {name: arguments.pop(name) for name in Sampling.__annotations__ if name in arguments}
        return function(sampling=sampling, **arguments)

    for option in reversed(_SAMPLING):
        collected = option(collected)
    return collected
