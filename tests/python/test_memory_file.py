"""A saved memory: a session and a chat go on from it in a new process, and a bad file changes nothing."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

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


def in_a_new_process(model: Path, code: str) -> str:
    """Runs code with `model`; what it prints."""
    begin = f"import allmem_edge as ae\nmodel = ae.Model.load({str(model)!r})\n"
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", begin + code], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


BEGIN = """
session = model.session(threads=1)
session.forward(list(range(21)))
options = {"temperature": 1.5, "repetition_penalty": 1.2, "seed": 5, "stop": ["never there"]}
text = session.generate("Hello", max_tokens=60, **options)
"""
END = """
print(repr("".join(text)))
print(session.forward(list(range(30)), last_only=True).tobytes().hex(), session.sample())
"""


def test_another_process_goes_on_in_the_middle_of_a_text_bit_for_bit(tiny_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "memory"
    whole = in_a_new_process(
        tiny_dir, BEGIN + "said = [next(text) for _ in range(7)]\nprint(repr(''.join(said)))\n" + END
    )
    begun = in_a_new_process(
        tiny_dir,
        BEGIN
        + "said = [next(text) for _ in range(7)]\nprint(repr(''.join(said)))\n"
        + f"session.save({str(path)!r})",
    )
    ended = in_a_new_process(
        tiny_dir,
        f"session = model.session(threads=1)\nsession.load({str(path)!r})\ntext = session.resume()\n" + END,
    )
    assert len(whole.splitlines()) == 3
    assert begun + ended == whole


def test_another_process_goes_on_in_the_middle_of_a_prompt(tiny_dir: Path, tmp_path: Path) -> None:
    """The first one is cancelled before the prompt is read to its end."""
    path = tmp_path / "memory"
    begin = (
        "session = model.session(threads=1)\n"
        "text = session.generate(list(range(200)) * 80, max_tokens=20, temperature=1.5, seed=1)\n"
    )
    whole = in_a_new_process(tiny_dir, begin + END)
    begun = in_a_new_process(
        tiny_dir,
        begin
        + "import threading\n"
        + "def stop():\n"
        + "    while session.position == 0:\n        pass\n"
        + "    session.cancel()\n"
        + "threading.Thread(target=stop).start()\n"
        + "assert list(text) == [] and text.finish_reason == 'cancelled'\n"
        + f"session.save({str(path)!r})\nprint(session.position)",
    )
    assert 0 < int(begun) < 16_000
    ended = in_a_new_process(
        tiny_dir,
        f"session = model.session(threads=1)\nsession.load({str(path)!r})\ntext = session.resume()\n" + END,
    )
    assert ended == whole


def test_another_process_goes_on_in_the_middle_of_an_answer(
    tiny: ae.Model, tiny_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "memory"
    chat = tiny.chat(max_tokens=40, temperature=1.5, seed=2)
    pieces = chat.send("one")
    said = next(pieces) + next(pieces)
    chat.save(path)
    expected = "".join(pieces)
    rest = in_a_new_process(
        tiny_dir,
        f"chat = model.chat()\nchat.load({str(path)!r})\n"
        "print(repr((chat.answer, ''.join(chat.resume()), chat.turns)))",
    )
    assert rest.strip() == repr((said, expected, 1))


def test_the_command_goes_on_with_an_answer_that_was_stopped(tmp_path: Path) -> None:
    file = tmp_path / "me.allmem"
    talk = ae.Model.load().chat(temperature=0.0)
    pieces = talk.send("Hi, my name is Tobias.")
    said = next(pieces)
    talk.save(file)
    expected = said + "".join(pieces)
    done = chat("--memory", file, say="/continue\n")
    assert done.returncode == 0, done.stderr
    assert said + done.stdout.removesuffix("\n") == expected


def test_a_text_is_not_loaded_without_the_tokenizer_that_it_needs(
    tiny: ae.Model, tiny_copy: Path, tmp_path: Path
) -> None:
    session = tiny.session()
    next(session.generate("Hello", max_tokens=40, temperature=1.5, seed=5))
    (tiny_copy / "tokenizer.json").unlink()
    bare = ae.Model.load(tiny_copy).session()
    before = bare.snapshot()
    with pytest.raises(ae.UnsupportedModelError, match=r"tokenizer\.json"):
        bare.restore(session.snapshot())
    assert bare.snapshot() == before
    session.forward(IDS)
    bare.restore(session.snapshot())
    assert bare.position == session.position


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
    assert other.turns == 1 and not other.undo()  # states to go back to are not saved
    assert "".join(other.send("two")) == "".join(chat.send("two"))
    assert other.session.position == chat.session.position


def test_a_memory_without_a_note_goes_on_as_a_chat(tiny: ae.Model, tmp_path: Path) -> None:
    chat = tiny.chat(max_tokens=6, temperature=0.0)
    "".join(chat.send("one"))
    chat.session.save(tmp_path / "memory")  # as the C API's chats do
    other = tiny.chat(max_tokens=6, temperature=0.0)
    other.load(tmp_path / "memory")
    assert other.turns == 1
    assert "".join(other.send("two")) == "".join(chat.send("two"))


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


# --- several processes, links, streams


def test_two_sessions_on_one_file_nothing_is_lost(tiny: ae.Model, tmp_path: Path) -> None:
    one, other = tiny.session(), tiny.session()
    one.forward(IDS)
    one.save(tmp_path / "memory")
    other.load(tmp_path / "memory")
    other.forward(IDS[:3])
    other.save(tmp_path / "memory")
    with pytest.raises(ae.ConflictError, match="somebody else has changed"):
        one.save(tmp_path / "memory")
    one.save(tmp_path / "another")
    with pytest.raises(ae.ConflictError):
        one.save(tmp_path / "memory")
    one.load(tmp_path / "memory")
    assert one.snapshot() == other.snapshot()
    one.save(tmp_path / "memory")


def test_a_second_chat_on_one_memory_is_told(tmp_path: Path) -> None:
    file = tmp_path / "me.allmem"
    command = [sys.executable, "-m", "allmem_edge", "chat", "--temp", "0", "--memory", str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdin and one.stdout
        one.stdin.write("Hi, my name is Tobias.\n")
        one.stdin.flush()
        one.stdout.readline()
        (tmp_path / "link").symlink_to(file)
        for path in (file, tmp_path / "link"):
            second = chat("--memory", path, say="My door code is 4711.\n")
            assert second.returncode == 1 and second.stdout == ""
            assert f"Another process ({one.pid}) is using the memory" in second.stderr
        one.stdin.close()
    assert one.returncode == 0
    assert chat("--memory", file, say="What is my name?\n").returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"me.allmem", "link"}


def test_a_killed_chat_lets_go_of_its_memory(tmp_path: Path) -> None:
    file = tmp_path / "me.allmem"
    command = [sys.executable, "-m", "allmem_edge", "chat", "--memory", str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdin and killed.stdout
        killed.stdin.write("Hi.\n")
        killed.stdin.flush()
        killed.stdout.readline()
        killed.kill()
    assert chat("--memory", file, say="Hello.\n").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["me.allmem"]


def test_a_memory_behind_a_link_stays_there(tmp_path: Path) -> None:
    (tmp_path / "sync").mkdir()
    (tmp_path / "me.allmem").symlink_to("sync/me.allmem")
    assert chat("--memory", tmp_path / "me.allmem", say="Hi, my name is Tobias.\n").returncode == 0
    assert (tmp_path / "me.allmem").is_symlink() and (tmp_path / "sync" / "me.allmem").is_file()
    assert "Tobias" in chat("--memory", tmp_path / "me.allmem", say="What is my name?\n").stdout


def test_an_empty_file_is_a_memory_to_begin_with(tmp_path: Path) -> None:
    (tmp_path / "me.allmem").touch()
    assert chat("--memory", tmp_path / "me.allmem", say="Hi.\n").returncode == 0
    assert (tmp_path / "me.allmem").stat().st_size > 0


def test_a_home_directory_is_found_where_no_shell_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    done = chat("--memory", "~/me.allmem", say="Hi.\n/save ~/saved.allmem\n/load ~/saved.allmem\n")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"me.allmem", "saved.allmem"}


class Raw(io.RawIOBase):
    """Takes and gives a part at a time, as raw files may."""

    def __init__(self) -> None:
        self.content = b""
        self.place = 0

    def write(self, piece: Any) -> int:
        assert len(piece) <= 1 << 20
        self.content += bytes(piece[:1000])
        return min(len(piece), 1000)

    def read(self, size: int = -1) -> bytes:
        piece = self.content[self.place : self.place + min(size, 777)]
        self.place += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = offset + (len(self.content) if whence == 2 else 0)
        return self.place

    def tell(self) -> int:
        return self.place


@pytest.mark.parametrize("kind", [io.BytesIO, Raw])
def test_a_file_object_is_written_and_read(tiny: ae.Model, kind: Callable[[], BinaryIO]) -> None:
    session = tiny.session()
    session.forward(IDS)
    file = kind()
    session.save(file, b"n")
    file.seek(0)
    other = tiny.session()
    assert other.load(file) == b"n"
    assert other.snapshot() == session.snapshot()
    file.seek(5)
    with pytest.raises(ae.SnapshotError):
        other.load(file)
    assert other.snapshot() == session.snapshot()


def test_what_a_file_object_raises_is_raised_and_changes_nothing(tiny: ae.Model) -> None:
    session = tiny.session()
    session.forward(IDS)
    before = session.snapshot()

    class Full(io.BytesIO):
        def write(self, piece: Any) -> int:
            raise OSError("full")

        def read(self, size: int | None = -1) -> bytes:
            raise OSError("gone")

    with pytest.raises(OSError, match="full"):
        session.save(Full())
    with pytest.raises(OSError, match="gone"):
        session.load(Full(before))
    assert session.snapshot() == before


def test_a_deleted_memory_is_gone_behind_links_too(tiny: ae.Model, tmp_path: Path) -> None:
    tiny.session().save(tmp_path / "memory")
    (tmp_path / "link").symlink_to("memory")
    ae.delete_memory(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
    with pytest.raises(ae.ModelNotFoundError, match="no memory file"):
        ae.delete_memory(tmp_path / "memory")


def test_a_file_is_read_by_command_without_forgetting(tmp_path: Path) -> None:
    licence = tmp_path / "LICENCE"
    licence.write_text("The software is provided as it is, without warranty of any kind. " * 120)
    facts = "Hi, my name is Tobias.\nMy door code is 4711.\n"
    ask = "What is my name?\nWhat is my door code?\n"
    done = chat(say=f"{facts}/read {licence}\n{ask}/read\n/read {tmp_path}/none\n")
    assert "Tobias" in done.stdout.splitlines()[-2] and "4711" in done.stdout.splitlines()[-1]
    assert done.returncode == 1 and "none cannot be read" in done.stderr
