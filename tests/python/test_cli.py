"""The command line in real processes: what goes to stdout, exit codes, pipes, NO_COLOR, Ctrl-C."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from tiny_model import DIM, HIDDEN, KV_HEADS, SINKS, WINDOW

PROMPT = b"\x1b[?2004h"  # the line editor turns bracketed paste on when it is ready
COMMAND = [sys.executable, "-m", "allmem_edge"]


def run(
    arguments: Sequence[str | Path], *, stdin: bytes | None = b"", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        env={**os.environ, **(environment or {})},
        timeout=120,
        check=False,
    )


def generate(model: Path, *more: str) -> list[str | Path]:
    return ["generate", model, "--max-tokens", "12", "--temp", "1", "--seed", "1", *more]


def test_help_and_version_go_to_stdout() -> None:
    helped, versioned = run(["--help"]), run(["--version"])
    assert helped.returncode == versioned.returncode == 0
    for command in (
        b"chat",
        b"generate",
        b"bench",
        b"eval",
        b"inspect",
        b"convert",
        b"train",
        b"export",
        b"verify",
    ):
        assert command in helped.stdout
    assert versioned.stdout.startswith(b"allmem-edge")
    assert helped.stderr == versioned.stderr == b""


def test_generate_writes_only_the_models_text(tiny_dir: Path) -> None:
    result = run(generate(tiny_dir, "--prompt", "Hello"))
    assert result.returncode == 0, result.stderr
    assert result.stderr == b""
    as_json = run(generate(tiny_dir, "--prompt", "Hello", "--json"))
    report = json.loads(as_json.stdout)
    assert report["text"].encode() == result.stdout
    assert report["prompt_tokens"] == 5
    assert as_json.stderr == b""


@pytest.mark.parametrize("arguments", [[], ["--prompt", "-"]])
def test_a_piped_prompt_is_read(tiny_dir: Path, arguments: list[str]) -> None:
    piped = run(generate(tiny_dir, *arguments), stdin=b"Hello")
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout == run(generate(tiny_dir, "--prompt", "Hello")).stdout


def test_a_prompt_that_is_no_utf8_is_read_all_the_same(tiny_dir: Path) -> None:
    assert run(generate(tiny_dir), stdin=b"\xff\xfe\x80abc").returncode == 0


def test_an_empty_prompt_is_bad_usage(tiny_dir: Path) -> None:
    result = run(generate(tiny_dir), stdin=b"")
    assert result.returncode == 2
    assert result.stderr == b"error: The prompt is empty; give the model a text to continue.\n"
    assert result.stdout == b""


def test_piped_chat_answers_each_line_with_one_line(tiny_dir: Path) -> None:
    result = run(
        ["chat", tiny_dir, "--max-tokens", "5", "--seed", "1"],
        stdin=b"one\n\ntwo\n/memory\nthree\n/bye\nfour\n",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(b"\n") == 3
    assert result.stderr == b""


def test_piped_chat_is_repeatable_and_reset_starts_over(tiny_dir: Path) -> None:
    arguments: list[str | Path] = ["chat", tiny_dir, "--max-tokens", "8", "--temp", "0"]
    lines = run(arguments, stdin=b"one\n/reset\none\n").stdout.splitlines()
    assert len(lines) == 2
    assert lines[0] == lines[1]


def test_a_broken_pipe_ends_quietly(tiny_dir: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "generate", str(tiny_dir), "--prompt", "x", "--max-tokens", "1000000", "--temp", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_ctrl_c_exits_with_130(tiny_dir: Path, command: str) -> None:
    arguments = {"generate": ["--prompt", "x"], "chat": []}[command]
    process = subprocess.Popen(
        [*COMMAND, command, str(tiny_dir), *arguments, "--max-tokens", "100000000", "--temp", "1.5"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(b"tell me everything\n")
    process.stdin.flush()
    process.stdout.read(1)  # it is answering
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert errors == b""


def test_ctrl_c_ends_a_long_prefill(tiny_dir: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "bench", str(tiny_dir), "--depth", "100000000", "--read-all", "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=5)  # reading 10^8 tokens takes far longer
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, b"", b"")


def test_inspect_and_bench_print_their_json(tiny_dir: Path) -> None:
    facts = json.loads(run(["inspect", tiny_dir, "--json"]).stdout)
    assert (facts["window"], facts["chunk"], facts["layers"]) == (8, 4, 1)
    result = run(
        ["bench", tiny_dir, "--prompt", "16", "--gen", "4", "--depth", "0,40", "--repeat", "1", "--json"]
    )
    assert result.stderr == b""
    report = json.loads(result.stdout)
    assert {"model", "threads", "isa", "results", "state_bytes", "rss_bytes"} <= report.keys()
    assert [row["depth"] for row in report["results"]] == [0, 40]
    assert all(
        row["prefill_tokens_per_s"] > 0 and row["decode_tokens_per_s"] > 0 for row in report["results"]
    )
    parts = report["state_bytes"]
    assert parts == facts["state_bytes"]
    ring, matrices = 2 * KV_HEADS * (SINKS + WINDOW) * DIM * 4, 3 * KV_HEADS * HIDDEN * DIM * 4
    assert (parts["window"], parts["fast_weights"], parts["momentum"]) == (ring, matrices, matrices)
    assert parts["gradient"] == matrices
    assert [row["reached"] for row in report["results"]] == [
        "prefilled 0 tokens",
        "prefilled 16 tokens, went on from 36, prefilled 4",
    ]
    assert "machine" not in report, "no bound without the model's shapes"


def test_bench_tells_the_bound_and_the_share_reached() -> None:
    arguments: list[str | Path] = [
        "bench",
        "--prompt",
        "64",
        "--gen",
        "16",
        "--depth",
        "0,512",
        "--repeat",
        "1",
    ]
    report = json.loads(run([*arguments, "--json"]).stdout)
    machine = report["machine"]
    assert all(speed > 0 for speed in machine.values())
    operations = machine["integer_operations_per_s"], machine["floating_operations_per_s"]
    for row in report["results"]:
        for what in ("prefill", "decode"):
            bound = row[f"{what}_bound"]
            assert bound["reached"] > 0
            # What the machine moves and computes in a second is enough for the bound, and not more than that.
            moved = bound["bound_tokens_per_s"] * bound["bytes_per_token"]
            computed = bound["bound_tokens_per_s"] * bound["operations_per_token"]
            if bound["bound_by"] == "bandwidth":
                assert moved == pytest.approx(machine["read_bytes_per_s"])
            else:
                assert moved <= machine["read_bytes_per_s"] and computed >= min(operations)
            assert computed <= max(operations) * (1 + 1e-9)
    assert 0 < report["to_full_attention"]["token_bytes"] < 1


@pytest.mark.parametrize("arguments", [["inspect"], ["bench", "--prompt", "4", "--gen", "2", "--depth", "0"]])
def test_tables_without_json_are_plain_text(tiny_dir: Path, arguments: list[str]) -> None:
    result = run([*arguments, tiny_dir])
    assert result.returncode == 0, result.stderr
    assert b"\x1b" not in result.stdout
    assert result.stderr == b""


def test_eval_recall_pastes_a_text_before_it_asks(tiny_dir: Path) -> None:
    command: list[str | Path] = [
        "eval",
        "recall",
        tiny_dir,
        "--distance",
        "50",
        "--questions",
        "2",
        "--paste",
        "-",
    ]
    told, tables = (run([*command, *more], stdin=b"A licence\xff of no use.") for more in (["--json"], []))
    (result,) = json.loads(told.stdout)["results"]
    assert (result["pasted_characters"], result["total"]) == (21, 2)
    assert b"after a message of 21 characters" in tables.stdout


def test_eval_recall_prints_its_json(tiny_dir: Path) -> None:
    arguments: list[str | Path] = [
        "eval",
        "recall",
        tiny_dir,
        "--distance",
        "40,80",
        "--questions",
        "3",
        "--json",
    ]
    result = run([*arguments, "--frozen"])
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["window"] == 8
    assert [row["distance"] for row in report["results"]] == [40, 80]
    for row in report["results"]:
        assert row["frozen"] is True
        assert row["total"] == 3
        assert row["accuracy"] == row["correct"] / row["total"]


class Terminal:
    """A process whose stdin, stdout and stderr are a pseudo-terminal."""

    def __init__(
        self, arguments: Sequence[str | Path], home: Path, environment: dict[str, str] | None = None
    ) -> None:
        self.master, slave = pty.openpty()
        variables = {**os.environ, "TERM": "xterm", "HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
        variables.pop("NO_COLOR", None)
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**variables, **(environment or {})},
            start_new_session=True,
        )
        os.close(slave)
        self.output = b""

    def wait_for(self, text: bytes, seconds: float = 60) -> None:
        """Reads until `text` has come since the last wait_for."""
        deadline = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < deadline, f"{text!r} did not come; got {self.output[-500:]!r}"
            self.read_more()
        self.output = self.output[self.output.index(text) + len(text) :]

    def read_more(self) -> None:
        """Whatever comes next."""
        ready, _, _ = select.select([self.master], [], [], 60)
        assert ready, f"nothing more came; got {self.output[-500:]!r}"
        try:
            more = os.read(self.master, 65536)
        except OSError:
            more = b""
        assert more, f"it ended; got {self.output[-500:]!r}"
        if b"\x1b[6n" in more:  # the line editor asks where the cursor is
            os.write(self.master, b"\x1b[1;1R")
        self.output += more

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def end(self) -> int:
        code = self.process.wait(timeout=60)
        os.close(self.master)
        return code


def test_a_chat_at_a_terminal(tiny_dir: Path, tmp_path: Path) -> None:
    terminal = Terminal(["chat", tiny_dir, "--max-tokens", "5", "--seed", "1"], tmp_path)
    terminal.wait_for(b"window 8 tokens")
    terminal.wait_for(PROMPT)
    terminal.type(b"hello\r")
    terminal.wait_for(b"(constant)")
    terminal.wait_for(b"tokens seen")
    terminal.wait_for(PROMPT)
    terminal.type(b"/nonsense\r")
    terminal.wait_for(b"no command /nonsense")
    terminal.type(b"/memory\r")
    terminal.wait_for(b"drift")
    terminal.type(b"/bye\r")
    assert terminal.end() == 0
    history = (tmp_path / "state" / "allmem-edge" / "history").read_text()
    assert "+hello" in history


def test_the_first_ctrl_c_stops_the_answer_and_the_second_leaves(tiny_dir: Path, tmp_path: Path) -> None:
    terminal = Terminal(["chat", tiny_dir, "--max-tokens", "100000000", "--temp", "1.5"], tmp_path)
    terminal.wait_for(PROMPT)
    terminal.type(b"tell me everything\r")
    terminal.wait_for(b"\x1b[?2004l")  # the line editor is done
    terminal.read_more()  # it is answering
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.wait_for(b"Stopped.")
    terminal.wait_for(PROMPT)
    terminal.type(b"\x03")
    assert terminal.end() == 130


def test_ctrl_d_leaves_a_chat(tiny_dir: Path, tmp_path: Path) -> None:
    terminal = Terminal(["chat", tiny_dir], tmp_path)
    terminal.wait_for(PROMPT)
    terminal.type(b"\x04")
    assert terminal.end() == 0


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color_is_honoured(
    tiny_dir: Path, tmp_path: Path, environment: dict[str, str], coloured: bool
) -> None:
    terminal = Terminal(["generate", tiny_dir, "--prompt", "x", "--temp", "nan"], tmp_path, environment)
    while b"temperature" not in terminal.output:
        terminal.read_more()
    assert (b"\x1b" in terminal.output) == coloured
    assert terminal.end() == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--random"],
        ["--like", "qwen3-0.6b"],
        ["source", "--random", "--like", "qwen3-0.6b"],
        ["source", "--layers", "2"],
        ["--random", "--like", "gpt-2"],
        ["--random", "--like", "qwen3-0.6b", "--layers", "0"],
    ],
)
def test_convert_takes_a_source_or_a_shape_for_random_weights(tmp_path: Path, arguments: list[str]) -> None:
    result = run(["convert", *arguments, "--out", tmp_path / "out"])
    assert result.returncode == 2, result.stderr
    assert result.stdout == b"" and result.stderr.startswith(b"error: ") and not (tmp_path / "out").exists()
