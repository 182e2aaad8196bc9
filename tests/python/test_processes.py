"""What hosts do with processes and threads: daemon threads, sub-interpreters, many sessions, copies."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import allmem_edge as ae

SUBINTERPRETER = """
import sys
if sys.version_info < (3, 13):
    import _xxsubinterpreters as interpreters
    run = interpreters.run_string
    interpreter = interpreters.create()
else:
    import _interpreters as interpreters
    run = lambda at, code: print(interpreters.exec(at, code))
    interpreter = interpreters.create("legacy")
try:
    run(interpreter, "import allmem_edge._core")
except Exception as error:
    print(error)
print("returned")
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "work",
    [
        "s.forward(list(range(100)), last_only=True)",
        "''.join(s.generate('x', max_tokens=3))",
        "''.join(s.generate('x', max_tokens=9, token_filter=lambda last, allowed: None))",
        "s.restore(s.snapshot()); model.session(1)",
    ],
)
@pytest.mark.slow
def test_a_daemon_thread_inside_the_library_does_not_disturb_the_end(tiny_dir: Path, work: str) -> None:
    code = f"""
import sys, threading, time
import allmem_edge as ae
model = ae.Model.load(sys.argv[1])
def loop():
    s = model.session(1)
    while True:
        {work}
threads = [threading.Thread(target=loop, daemon=True) for _ in range(3)]
for thread in threads: thread.start()
time.sleep(0.2)
"""
    for _ in range(3):
        ended = run(code, tiny_dir)
        assert (ended.returncode, ended.stderr) == (0, "")


def test_a_sub_interpreter_is_refused_and_does_not_wait_for_ever() -> None:
    ended = run(SUBINTERPRETER)
    assert "returned" in ended.stdout, ended.stderr
    assert "main interpreter" in ended.stdout


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux lists the threads of a process")
def test_sessions_share_their_threads_and_compute_the_same(tiny_dir: Path) -> None:
    code = """
import gc, os, sys, threading, time
import allmem_edge as ae
model = ae.Model.load(sys.argv[1])
ids = list(range(200))
expected = model.session(1).forward(ids)
tasks = lambda: len(os.listdir("/proc/self/task"))
before = tasks()
sessions = [model.session(4) for _ in range(30)]
assert tasks() <= before + 3, tasks()
wrong = []
def read(session):
    if not (session.forward(ids) == expected).all():
        wrong.append(session)
callers = [threading.Thread(target=read, args=(session,)) for session in sessions]
for caller in callers: caller.start()
for caller in callers: caller.join()
assert not wrong
assert {session.threads for session in sessions} == {4}
def wait_until(true):  # a thread that was joined takes a moment to be gone
    for _ in range(200):
        if true(): return
        time.sleep(0.05)
    raise AssertionError(tasks())
wait_until(lambda: tasks() <= before + 3)
del sessions, callers
gc.collect()
wait_until(lambda: tasks() == before)
"""
    ended = run(code, tiny_dir)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
def test_freed_sessions_give_their_memory_back() -> None:
    code = """
import gc, os
import allmem_edge as ae
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")
model = ae.Model.load()
model.session(1).forward([1])
start = resident()
sessions = [model.session(1) for _ in range(60)]
for session in sessions: session.forward([1])
most = resident()
del sessions, session
gc.collect()
print(start, most, resident(), model.engine.state_bytes)
"""
    start, most, after, state = map(int, run(code).stdout.split())
    assert most - start > 60 * state / 4  # of a window that is nearly empty not all pages are there
    assert after - start < (most - start) / 4


def test_a_session_in_use_is_an_error_of_its_own(tiny: ae.Model) -> None:
    session = tiny.session(1)
    refused: list[BaseException] = []

    def meddle(last: int, allowed: np.ndarray[Any, Any]) -> None:
        for call in (session.reset, lambda: session.forward([1]), lambda: next(generator)):
            try:
                call()
            except ae.AllMemError as error:
                refused.append(error)

    generator = session.generate("Hello", max_tokens=1, token_filter=meddle)
    "".join(generator)
    assert [type(error) for error in refused] == [ae.SessionInUseError] * 3
    assert not isinstance(refused[0], ValueError)


def test_copies_are_clones_and_pickles_are_refused_with_a_sentence(tiny: ae.Model) -> None:
    session, chat = tiny.session(1), tiny.chat(max_tokens=3, temperature=0, threads=1)
    session.forward([1, 2, 3])
    "".join(chat.send("Hello!"))
    for copied in (copy.copy, copy.deepcopy):
        assert copied(tiny) is tiny
        twin = copied(session)
        assert twin is not session and twin.position == 3
        assert (twin.forward([4]) == session.clone().forward([4])).all()
        assert "".join(copied(chat).send("And?")) == "".join(chat.fork().send("And?"))
    for unpicklable in (tiny, session, chat):
        with pytest.raises(ae.InvalidArgumentError, match="cannot be pickled"):
            pickle.dumps(unpicklable)


class Tensor:
    """As a torch tensor: numpy can read it, and it is no sequence to pybind11."""

    def __init__(self, values: list[int]) -> None:
        self.values = values

    def __array__(self, *arguments: Any, **more: Any) -> np.ndarray[Any, Any]:
        return np.array(self.values)


def test_unusual_types_work_where_they_mean_something(tiny: ae.Model, tiny_dir: Path) -> None:
    session = tiny.session(1)
    expected = session.forward([1, 2, 3])
    for ids in (Tensor([1, 2, 3]), np.array([1, 2, 3], np.uint8), range(1, 4), (1, 2, 3)):
        assert (tiny.session(1).forward(ids) == expected).all()
        assert tiny.tokenizer.decode(ids) == tiny.tokenizer.decode([1, 2, 3])
    snapshot = session.snapshot(bytearray(b"note"))
    held: Any
    for held in (bytearray(snapshot), memoryview(snapshot), np.frombuffer(snapshot, np.uint8)):
        assert tiny.session(1).restore(held) == b"note"
    assert ae.Model.load(os.fsencode(tiny_dir)).path == tiny_dir


def test_wrong_types_are_sentences(tiny: ae.Model) -> None:
    session, chat = tiny.session(1), tiny.chat(threads=1)
    calls: dict[str, Any] = {
        "restore": lambda: session.restore("text"),  # type: ignore[arg-type]
        "restore of a number": lambda: session.restore(5),  # type: ignore[arg-type]
        "snapshot": lambda: session.snapshot("note"),  # type: ignore[arg-type]
        "save": lambda: session.save(5),  # type: ignore[arg-type]
        "load": lambda: session.load(None),  # type: ignore[arg-type]
        "mark": lambda: session.mark(-1),
        "mark with a float": lambda: session.mark(1.5),  # type: ignore[arg-type]
        "send": lambda: chat.send(5),  # type: ignore[arg-type]
        "read": lambda: chat.read([(1, 2)]),  # type: ignore[list-item]
        "model": lambda: ae.Model.load(5),  # type: ignore[arg-type]
        "decode far ids": lambda: tiny.tokenizer.decode([1 << 40]),
        "decode huge ids": lambda: tiny.tokenizer.decode([1 << 80]),
        "decode text": lambda: tiny.tokenizer.decode("abc"),
        "decode nothing": lambda: tiny.tokenizer.decode(None),  # type: ignore[arg-type]
        "encode": lambda: tiny.tokenizer.encode(5),  # type: ignore[arg-type]
        "forward": lambda: session.forward("abc"),
        "generate": lambda: session.generate(None),  # type: ignore[arg-type]
    }
    for name, call in calls.items():
        with pytest.raises(ae.InvalidArgumentError) as caught:
            call()
        assert str(caught.value).endswith("."), name


def test_many_threads_each_with_a_session(tiny: ae.Model) -> None:
    ids = list(range(50))
    expected = tiny.session(1).forward(ids)
    wrong: list[object] = []

    def read() -> None:
        for _ in range(5):
            if not (tiny.session(2).forward(ids) == expected).all():
                wrong.append(1)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
