"""The command line and Python in odd places: names, homes, terminals and encodings that few people have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import COMMAND, Terminal, run

import allmem_edge as ae
from allmem_edge.cli.console import printable

NO_UTF8 = os.fsdecode(b"name\xff")


@pytest.fixture(params=["a[b]c", "[red]x", "[/b] :smile:", NO_UTF8, "\x1b[31mred", "zwei Wörter\u202e"])
def named(request: pytest.FixtureRequest, tiny_dir: Path, tmp_path: Path) -> Path:
    """A model directory with a name that is not what one expects."""
    try:
        return Path(shutil.copytree(tiny_dir, tmp_path / request.param / request.param))
    except OSError:
        pytest.skip("the file system does not have such names")


def test_a_model_may_have_any_name(named: Path) -> None:
    assert ae.Model.load(named).name == named.name
    assert ae.Model.load(os.fsencode(named)).tokenizer.vocab_size > 0
    generated = run(["generate", named, "--prompt", "Hi", "--max-tokens", "2"])
    assert (generated.returncode, generated.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", [["inspect"], ["bench", "--prompt", "4", "--gen", "2", "--depth", "0"]])
def test_tables_show_names_as_they_are(named: Path, arguments: list[str]) -> None:
    shown = run([*arguments, named], environment={"PYTHONIOENCODING": "utf-8"})
    assert (shown.returncode, shown.stderr) == (0, b"")
    name = printable(named.name).encode(errors="replace")
    assert name in shown.stdout
    assert b"\x1b" not in shown.stdout


@pytest.mark.slow
def test_a_memory_may_have_any_name(named: Path) -> None:
    memory = named.parent / f"{named.name}.allmem"
    told = run(["chat", named, "--memory", memory, "--max-tokens", "2"], stdin=b"Hi\n")
    assert (told.returncode, told.stderr) == (0, b"")
    assert memory.is_file()
    assert run(["inspect", memory, "--model", named]).returncode == 0
    missing = run(["inspect", named.parent / NO_UTF8 / "missing"])
    assert missing.returncode == 1 and b"Traceback" not in missing.stderr


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_an_output_in_any_encoding_is_text(tiny_dir: Path, tmp_path: Path, encoding: str) -> None:
    model = Path(shutil.copytree(tiny_dir, tmp_path / "Größe 大"))
    commands: list[list[str | Path]] = [
        ["inspect", model],
        ["bench", model, "--prompt", "4", "--gen", "2", "--depth", "0"],
        ["eval", "recall", model, "--distance", "40", "--questions", "2"],
        ["chat", model, "--max-tokens", "4"],
        ["generate", model, "--prompt", "é字", "--max-tokens", "8", "--temp", "2"],
        ["inspect", model / "missing"],
        ["--help"],
    ]
    for arguments in commands:
        done = run(arguments, stdin="Grüße 字\n".encode(), environment={"PYTHONIOENCODING": encoding})
        assert b"Traceback" not in done.stderr, done.stderr
        done.stdout.decode(encoding)


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_error(tiny_dir: Path, closed: str) -> None:
    for command, code in (
        ("chat --max-tokens 2", 0),
        ("generate --max-tokens 2 --prompt Hi", 0),
        ("inspect", 0),
    ):
        script = f'"{sys.executable}" -m allmem_edge {command} "$1" {closed}'
        done = subprocess.run(
            ["bash", "-c", script, "-", str(tiny_dir)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (code, b"")


def test_a_dumb_terminal_gets_no_escape_sequences(tiny_dir: Path, tmp_path: Path) -> None:
    terminal = Terminal(["chat", tiny_dir, "--max-tokens", "5"], tmp_path, {"TERM": "dumb"})
    terminal.wait_for(b"> ")
    terminal.type(b"hello\n")
    terminal.wait_for(b"tokens seen")
    seen = terminal.output
    terminal.wait_for(b"> ")
    terminal.type(b"/bye\n")
    assert b"\x1b" not in seen + terminal.output
    assert terminal.end() == 0


def test_an_error_cannot_steer_the_terminal(tiny_copy: Path) -> None:
    chat: list[str | Path] = ["chat", tiny_copy, "--max-tokens", "2"]
    (tiny_copy / "chat_template.jinja").write_text(
        r"{{ raise_exception('no\x1b[2J\x1b]0;title\x07\x9b1m') }}"
    )
    refused = run(chat, stdin=b"Hi\n", environment={"PYTHONIOENCODING": "utf-8"})
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert refused.stderr.decode().endswith("failed: no[2J]0;title1m.\n")
    tokenizer = json.loads((tiny_copy / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["\x1b[2J\x07"] = -1
    (tiny_copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    refused = run(chat, stdin=b"Hi\n")
    assert refused.returncode == 1 and b"[2J" in refused.stderr
    assert not any(code in refused.stderr for code in (b"\x1b", b"\x07"))


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can be somebody else")
def test_a_user_without_home_and_passwd_entry_can_chat(tiny_dir: Path, tmp_path: Path) -> None:
    readable = Path(shutil.copytree(tiny_dir, tmp_path / "model"))
    code = "import os; os.environ.pop('HOME'); os.environ.pop('XDG_STATE_HOME'); os.setresuid(54321, 0, 0);"
    code += f"from allmem_edge.cli import run; raise SystemExit(run(['chat', {str(readable)!r}]))"
    command = COMMAND[:]
    COMMAND[:] = [sys.executable, "-c", code]
    try:
        terminal = Terminal([], tmp_path)
    finally:
        COMMAND[:] = command
    terminal.wait_for(b"\x1b[?2004h")
    terminal.type(b"/bye\r")
    assert terminal.end() == 0
    assert b"Traceback" not in terminal.output


class Array(list[int]):
    """Like a tensor: no sequence that a native module knows, but it has tolist() and __array__."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        return np.array(list(self))

    def tolist(self) -> list[int]:
        return list(self)


def test_arguments_of_unusual_types_are_taken(tiny: ae.Model) -> None:
    session = tiny.session(1)
    session.forward(Array([1, 2, 3]))
    snapshot = session.snapshot(bytearray(b"note"))
    for form in (bytes, bytearray, memoryview):
        assert session.restore(form(snapshot)) == b"note"
    tokenizer = tiny.tokenizer
    expected = tokenizer.decode([72, 105])
    forms: list[Any] = [(72, 105), np.array([72, 105], np.int16), Array([72, 105]), iter([72, 105])]
    assert [tokenizer.decode(ids) for ids in forms] == [expected] * 4
    assert tokenizer.encode(bytearray(b"Hi")) == tokenizer.encode("Hi") == tokenizer.encode(memoryview(b"Hi"))
    torch = pytest.importorskip("torch")
    assert tokenizer.decode(torch.tensor([72, 105])) == expected
    session.forward(torch.tensor([1, 2]))


load: Any = ae.Model.load
WRONG: dict[str, Any] = {
    "load a number": lambda _: load(5),
    "load a list": lambda _: load(["x"]),
    "forward text": lambda m: m.session(1).forward("abc"),
    "forward floats": lambda m: m.session(1).forward([1.5]),
    "forward bytes": lambda m: m.session(1).forward(b"abc"),
    "restore text": lambda m: m.session(1).restore("abc"),
    "restore a number": lambda m: m.session(1).restore(5),
    "note text": lambda m: m.session(1).snapshot("note"),
    "save to a number": lambda m: m.session(1).save(5.5),
    "load from a list": lambda m: m.session(1).load([]),
    "mark -1": lambda m: m.session(1).mark(-1),
    "mark text": lambda m: m.session(1).mark("1"),
    "mark 2^70": lambda m: m.session(1).mark(1 << 70),
    "threads text": lambda m: m.session("2"),
    "send a number": lambda m: m.chat().send(5),
    "send None": lambda m: m.chat().send(None),
    "send bytes": lambda m: m.chat().send(b"Hi"),
    "read numbers": lambda m: m.chat().read([(1, 2)]),
    "read single messages": lambda m: m.chat().read(["abc"]),
    "read a number": lambda m: m.chat().read(7),
    "system a number": lambda m: m.chat(system=5),
    "variables a set": lambda m: m.chat(template_variables={"x": {1, 2}}),
    "save a chat to a number": lambda m: m.chat().save(5),
    "decode 2^40": lambda m: m.tokenizer.decode([1 << 40]),
    "decode 2^80": lambda m: m.tokenizer.decode([1 << 80]),
    "decode -1": lambda m: m.tokenizer.decode([-1]),
    "decode floats": lambda m: m.tokenizer.decode([1.0]),
    "decode text": lambda m: m.tokenizer.decode("abc"),
    "decode True": lambda m: m.tokenizer.decode([True]),
    "decode a number": lambda m: m.tokenizer.decode(5),
    "decode a matrix": lambda m: m.tokenizer.decode(np.zeros((2, 2), np.int64)),
    "encode a number": lambda m: m.tokenizer.encode(5),
    "encode parts of text": lambda m: m.tokenizer.encode_parts("abc"),
    "encode a part of text": lambda m: m.tokenizer.encode_parts(["abc"]),
    "encode a part of numbers": lambda m: m.tokenizer.encode_parts([(1, True)]),
    "bytes of text": lambda m: m.tokenizer.token_bytes("x"),
    "special text": lambda m: m.tokenizer.is_special("x"),
    "id of a number": lambda m: m.tokenizer.token_id(5),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG.keys())
def test_arguments_of_wrong_types_are_refused_with_a_sentence(tiny: ae.Model, call: Any) -> None:
    with pytest.raises(ae.AllMemError) as caught:
        call(tiny)
    assert str(caught.value)[-1] == "." and len(str(caught.value)) > 20
