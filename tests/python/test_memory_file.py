"""A saved memory: a session and a chat go on from it in a new process, and a bad file changes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import VOCAB

import allmem_edge as ae

IDS = [int(i) for i in np.random.default_rng(3).integers(0, VOCAB, 90)]


def test_a_loaded_session_goes_on_bit_for_bit(tiny: ae.Model, tmp_path: Path) -> None:
    session = tiny.session(threads=1)
    session.forward(IDS[:50])
    session.save(tmp_path / "memory", b"mine")
    expected = session.forward(IDS[50:])
    other = tiny.session(threads=1)
    assert other.load(tmp_path / "memory") == b"mine"
    assert other.position == 50
    np.testing.assert_array_equal(other.forward(IDS[50:]), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["memory"]


def test_bytes_and_files_are_the_same(tiny: ae.Model, tmp_path: Path) -> None:
    session = tiny.session()
    session.forward(IDS)
    session.save(tmp_path / "memory", b"n")
    assert (tmp_path / "memory").read_bytes() == session.snapshot(b"n")
    other = tiny.session()
    assert other.restore(session.snapshot(b"n")) == b"n"
    assert other.snapshot(b"n") == session.snapshot(b"n")


@pytest.mark.parametrize("damage", ["empty", "short", "flipped", "text"])
def test_a_damaged_file_is_refused_and_the_chat_is_as_before(
    tiny: ae.Model, tmp_path: Path, damage: str
) -> None:
    chat = tiny.chat(max_tokens=4, seed=1)
    "".join(chat.send("one"))
    path = tmp_path / "memory"
    chat.save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    files = {"empty": b"", "short": bytes(content[:-9]), "flipped": bytes(content), "text": b"hello " * 50}
    path.write_bytes(files[damage])
    before, turns = chat.session.snapshot(), chat.turns
    with pytest.raises(ae.SnapshotError, match="memory"):
        chat.load(path)
    assert (chat.session.snapshot(), chat.turns) == (before, turns)


def test_a_chat_goes_on_where_it_stood(tiny: ae.Model, tmp_path: Path) -> None:
    chat = tiny.chat(max_tokens=6, temperature=0.0)
    "".join(chat.send("one"))
    chat.save(tmp_path / "memory")
    other = tiny.chat(max_tokens=6, temperature=0.0)
    other.load(tmp_path / "memory")
    assert other.turns == 1 and not other.undo()
    assert "".join(other.send("two")) == "".join(chat.send("two"))
    assert other.session.position == chat.session.position


def test_the_memory_of_a_bare_session_is_no_chat(tiny: ae.Model, tmp_path: Path) -> None:
    session = tiny.session()
    session.forward(IDS)
    session.save(tmp_path / "memory", b"[]")
    with pytest.raises(ae.SnapshotError, match="not of a chat"):
        tiny.chat().load(tmp_path / "memory")


def chat(*options: str | Path, say: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "allmem_edge", "chat", "--temp", "0", *map(str, options)]
    return subprocess.run(command, input=say, capture_output=True, text=True)


def test_the_command_remembers_across_runs(tmp_path: Path) -> None:
    file = tmp_path / "me.allmem"
    assert chat("--memory", file, say="Hi, my name is Tobias.\n").returncode == 0
    again = chat("--memory", file, say="What is my name?\n")
    assert again.returncode == 0, again.stderr
    assert "Tobias" in again.stdout


def test_a_foreign_memory_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "me.allmem"
    file.write_bytes(b"my diary" * 100)
    done = chat("--memory", file, say="Hi.\n")
    assert done.returncode == 1 and done.stdout == ""
    assert "is not a snapshot of allmem-edge" in done.stderr and "Traceback" not in done.stderr
    assert file.read_bytes() == b"my diary" * 100


def test_a_memory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    done = chat("--memory", tmp_path / "none" / "me.allmem", say="Hi.\n")
    assert done.returncode == 1
    assert "was not saved" in done.stderr and "Traceback" not in done.stderr


def test_save_and_load_by_command(tmp_path: Path) -> None:
    file = tmp_path / "me.allmem"
    done = chat(say=f"My name is Tobias.\n/save {file}\n/reset\n/load {file}\nWhat is my name?\n")
    assert done.returncode == 0, done.stderr
    assert "Tobias" in done.stdout.splitlines()[-1]
