"""One side of a comparison in a process of its own: it measures when told to, and is idle else.

The driver (against_llama_cpp.py) writes one JSON object a line to the worker's stdin, {"do": "decode", ...},
and reads one back, so that never two sides run at the same time. Only the standard library is used: the
rival's Python has little else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class Side(Protocol):
    """What either side can do. Every time is in seconds."""

    def load(self) -> dict[str, Any]:
        """Loads the model; says what it found, and how long that took."""

    def go_to(self, depth: int) -> dict[str, Any]:
        """Makes `depth` tokens of context; says how."""

    def read(self, tokens: int) -> dict[str, Any]:
        """Reads that many tokens, with the logits of the last."""

    def write(self, tokens: int) -> dict[str, Any]:
        """Reads that many tokens one at a time, with the logits of each."""

    def losses(self, ids: list[int]) -> dict[str, Any]:
        """-log p in nats of each token but the first, from an empty context."""

    def facts(self) -> dict[str, Any]:
        """Bytes of state and memory."""


def memory_use() -> dict[str, int]:
    """This process's memory now and at its highest, in bytes; pages of mapped files count once touched."""
    names = {"VmHWM": "peak", "VmRSS": "now", "RssAnon": "anonymous", "RssFile": "file"}
    use = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in names:
            use[names[key]] = int(value.split()[0]) * 1024
    return use


def read_file(path: Path) -> None:
    """Puts a file into the page cache."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every side takes."""
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cores", required=True, help="the cores to run on: 0,1")


def serve(make_side: Callable[[argparse.Namespace], Side], args: argparse.Namespace) -> None:
    """Answers until stdin ends."""
    os.sched_setaffinity(0, {int(core) for core in args.cores.split(",")})
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a library prints gets between the answers
    side = make_side(args)
    for line in sys.stdin:
        request = json.loads(line)
        method = getattr(side, request.pop("do"))
        answers.write(json.dumps(method(**request)) + "\n")
        answers.flush()


def quiet_environment() -> dict[str, str]:
    """This process's, without what would set up OpenMP or the rival behind the benchmark's back."""
    settings = ("OMP_", "GOMP_", "KMP_", "GGML_", "LLAMA_")
    return {name: value for name, value in os.environ.items() if not name.startswith(settings)}


class Worker:
    """The driver's end of the pipes."""

    def __init__(self, name: str, command: list[str], env: dict[str, str] | None = None) -> None:
        self.name = name
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=quiet_environment() | (env or {}),
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Has the worker do something and waits for its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            raise SystemExit(f"{self.name} ended with status {status} while it was asked to {do}.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the worker."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
