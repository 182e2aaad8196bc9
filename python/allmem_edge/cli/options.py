"""Options that several commands share."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from allmem_edge.sampling import Sampling

model_argument = click.argument("model", required=False)
threads_option = click.option(
    "--threads", type=click.IntRange(0, 256), default=0, help="Number of threads; 0: one per fast core."
)
exact_option = click.option("--exact", is_flag=True, help="Compute in float32 throughout; slower.")
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "chat", "plain"]),
    default="auto",
    show_default=True,
    help="Prompt in the model's chat format or as plain text; auto: chat if there is one.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")

_SAMPLING = [
    click.option(
        "--max-tokens",
        type=click.IntRange(min=0),
        help="Maximum number of tokens to generate. [default: 512]",
    ),
    click.option(
        "--temp",
        "temperature",
        type=float,
        help="Sampling temperature; 0 is greedy. [default: from the model's generation_config.json]",
    ),
    click.option("--top-k", type=int, metavar="K", help="Sample from the K most likely tokens; 0: all."),
    click.option(
        "--top-p",
        type=float,
        metavar="P",
        help="Sample from the most likely tokens whose probabilities add up to P.",
    ),
    click.option(
        "--min-p", type=float, metavar="P", help="Drop tokens less likely than P times the most likely one."
    ),
    click.option("--repetition-penalty", type=float, help="Above 1, recent tokens become less likely."),
    click.option("--seed", type=int, help="Random seed; the same seed gives the same text."),
    click.option("--stop", multiple=True, help="Stop before this text; may be repeated."),
    click.option(
        "--speculate/--no-speculate",
        default=None,
        help="Read several tokens at once where the text repeats; the text is the same. [default: speculate]",
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
    help="Pass a variable to the chat template, for example enable_thinking=false; may be repeated.",
)


def choice_options(*, with_frozen: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--window, --sinks, --chunk, --no-memory and, if wanted, --frozen, as one argument `choices` for
    Model.load()."""
    options = [
        click.option(
            "--window", type=int, metavar="N", help="Attention window in tokens. [default: the model's]"
        ),
        click.option(
            "--sinks",
            type=int,
            metavar="N",
            help="First tokens that attention always sees. [default: the model's]",
        ),
        click.option(
            "--chunk",
            type=int,
            metavar="N",
            help="Tokens between two writes of the memory, at most a window. [default: the model's]",
        ),
        click.option("--no-memory", is_flag=True, help="Run without the memory: attention only."),
    ]
    if with_frozen:
        options.append(click.option("--frozen", is_flag=True, help="Read the memory, but never write it."))

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


class Run(NamedTuple):
    """How an evaluation is run."""

    choices: dict[str, Any]  # for Model.load()
    exact: bool
    threads: int
    out: Path | None
    as_json: bool


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that all evaluations have, as the argument `run`."""

    @functools.wraps(function)
    def collected(**arguments: Any) -> Any:
        run = Run(**{name: arguments.pop(name) for name in Run._fields})
        return function(run=run, **arguments)

    out_option = click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Save each result to FILE as it comes; run again with the same FILE to resume.",
    )
    return out_option(choice_options()(exact_option(threads_option(json_option(collected)))))
