"""Model and Session: logits, generation, state, and what happens when somebody is careless."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_model import CHUNK, DIM, HIDDEN, KV_HEADS, SINKS, VOCAB, WINDOW, rounding

import allmem_edge as ae

IDS = [int(i) for i in np.random.default_rng(1).integers(0, VOCAB, 300)]


def test_the_model_tells_its_shapes(tiny: ae.Model) -> None:
    facts = tiny.engine
    assert (facts.vocab_size, facts.window, facts.sinks, facts.chunk, facts.layers) == (
        VOCAB,
        WINDOW,
        SINKS,
        CHUNK,
        1,
    )
    assert facts.quantization == "none"
    floats = 2 * KV_HEADS * (SINKS + WINDOW) * DIM + 9 * KV_HEADS * HIDDEN * DIM + KV_HEADS
    assert sum(state.bytes for state in facts.states) == 4 * floats
    waiting = KV_HEADS * (
        1 + 32 * (1 + 2 * DIM)
    )  # up to 32 tokens (eta, k, v) that the memory has yet to learn
    parts = len(facts.states) + 1  # each aligned to a cache line
    assert 4 * (floats + waiting) <= facts.state_bytes < 4 * (floats + waiting) + 64 * parts


def test_forward_gives_float32_logits_for_every_token(tiny: ae.Model) -> None:
    logits = tiny.session().forward(IDS)
    assert logits.shape == (len(IDS), VOCAB)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_last_only_is_the_last_row(tiny: ae.Model) -> None:
    every, last = tiny.session().forward(IDS), tiny.session().forward(IDS, last_only=True)
    assert last.shape == (1, VOCAB)
    np.testing.assert_allclose(last[0], every[-1], atol=rounding(every), rtol=0)


@pytest.mark.parametrize("cuts", [[1], [7, 8, 9], [128], [3, 131, 299]])
def test_how_the_stream_is_cut_does_not_matter(tiny: ae.Model, cuts: list[int]) -> None:
    session = tiny.session()
    parts = [session.forward(part) for part in np.split(np.array(IDS), cuts)]
    expected = tiny.session().forward(IDS)
    np.testing.assert_allclose(np.concatenate(parts), expected, atol=rounding(expected), rtol=0)
    assert session.position == len(IDS)


def test_a_clone_goes_on_alone(tiny: ae.Model) -> None:
    session = tiny.session()
    session.forward(IDS[:50])
    clone = session.clone()
    expected = session.forward(IDS[50:])
    np.testing.assert_array_equal(clone.forward(IDS[50:]), expected)
    clone.forward([1, 2, 3])
    assert (session.position, clone.position) == (300, 303)


def test_reset_is_as_new(tiny: ae.Model) -> None:
    session = tiny.session()
    first = session.forward(IDS)
    session.reset()
    assert session.position == 0
    np.testing.assert_array_equal(session.forward(IDS), first)


def test_frozen_memory_does_not_move_and_unfrozen_does(tiny: ae.Model) -> None:
    session = tiny.session()
    session.freeze()
    assert session.frozen
    session.forward(IDS)
    report = session.inspect()
    assert report.frozen
    assert report.layers[0].drift == report.layers[0].momentum == 0
    session.freeze(False)
    session.forward(IDS)
    report = session.inspect()
    assert report.layers[0].drift > 0
    assert report.layers[0].momentum > 0
    assert (report.tokens_seen, report.state_bytes) == (600, session.state_bytes)


def test_a_sessions_bytes_do_not_grow(tiny: ae.Model) -> None:
    session = tiny.session()
    before = (session.state_bytes, session.total_bytes)
    session.forward(IDS * 10, last_only=True)
    assert (session.state_bytes, session.total_bytes) == before


def test_greedy_generation_is_the_argmax_of_forward(tiny: ae.Model) -> None:
    generator = tiny.session().generate(IDS[:20], max_tokens=1, temperature=0)
    text = "".join(generator)
    session = tiny.session()
    token = int(session.forward(IDS[:20])[-1].argmax())
    stopped = token in tiny.stop_ids
    assert generator.finish_reason == ("stop_token" if stopped else "max_tokens")
    assert text == ("" if stopped else tiny.tokenizer.decode([token]))


def test_a_seed_fixes_the_text_and_another_changes_it(tiny: ae.Model) -> None:
    def write(seed: int) -> str:
        return "".join(tiny.session().generate("Hello", max_tokens=60, temperature=1.5, seed=seed))

    assert write(5) == write(5)
    assert write(5) != write(6)


def test_the_session_has_read_exactly_what_was_generated(tiny: ae.Model) -> None:
    session = tiny.session()
    generator = session.generate("Hello", max_tokens=40, temperature=1.5, seed=1)
    for _ in generator:
        assert session.position == generator.prompt_tokens + generator.generated_tokens
    assert generator.prompt_tokens == 5
    assert session.position == 5 + generator.generated_tokens


def test_a_stop_string_ends_the_text_wherever_tokens_break(tiny: ae.Model) -> None:
    full = "".join(tiny.session().generate("Hello", max_tokens=80, temperature=1.5, seed=3))
    stop = full[10:14]
    assert len(stop) == 4
    generator = tiny.session().generate(
        "Hello", max_tokens=80, temperature=1.5, seed=3, stop=[stop, "never there"]
    )
    assert "".join(generator) == full[: full.index(stop)]
    assert generator.finish_reason == "stop_string"


def test_text_held_back_for_a_stop_string_comes_out_at_the_end(tiny: ae.Model) -> None:
    full = "".join(tiny.session().generate("Hello", max_tokens=30, temperature=1.5, seed=3))
    almost = full[-3:] + "\x00 not that"
    assert (
        "".join(tiny.session().generate("Hello", max_tokens=30, temperature=1.5, seed=3, stop=[almost]))
        == full
    )


def test_pieces_are_whole_characters(tiny: ae.Model) -> None:
    for piece in tiny.session().generate("é", max_tokens=200, temperature=2.0, seed=1):
        assert piece
        piece.encode("utf-8")


def test_cancel_ends_a_generation(tiny: ae.Model) -> None:
    session = tiny.session()
    generator = session.generate("Hello", max_tokens=10**6, temperature=1.5, seed=1)
    next(generator)
    session.cancel()
    assert list(generator) == []
    assert generator.finish_reason == "cancelled"
    assert next(session.resume())  # it can go on
    session.forward(IDS)
    assert not session.unfinished


def test_a_session_used_elsewhere_ends_the_generation_with_an_error(tiny: ae.Model) -> None:
    session = tiny.session()
    generator = session.generate("Hello", max_tokens=50, temperature=1.5, seed=1)
    next(generator)
    session.forward([1])
    with pytest.raises(ae.InvalidArgumentError, match="used for something else"):
        list(generator)


def test_two_threads_in_one_session_are_an_error_and_not_a_race(tiny: ae.Model) -> None:
    session = tiny.session(threads=1)
    barrier = threading.Barrier(2)
    done: list[None] = []
    errors: list[str] = []

    def read() -> None:
        barrier.wait()
        for _ in range(20):
            try:
                session.forward(IDS * 10, last_only=True)
                done.append(None)
            except ae.SessionInUseError as error:
                errors.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # How many are refused is luck (test_processes.py has one that always is); what was read is not.
    assert len(done) + len(errors) == 40 and done
    assert all("in use by another thread" in error for error in errors)
    assert session.position == len(done) * len(IDS * 10)


def test_what_a_session_holds_may_be_asked_while_another_thread_uses_it(tiny: ae.Model) -> None:
    session = tiny.session(threads=1)
    session.forward(IDS)
    session.mark(max_bytes=1 << 30)
    one = session.mark_bytes

    def mark_and_go_back() -> None:
        for _ in range(300):
            session.mark(max_bytes=3 * one)
            assert session.undo()

    thread = threading.Thread(target=mark_and_go_back)
    thread.start()
    seen = set()
    while thread.is_alive():
        seen.add((session.marks, session.mark_bytes // one, session.unfinished))
    thread.join()
    assert all(marks in (1, 2) and copies in (1, 2) and not unfinished for marks, copies, unfinished in seen)
    assert (session.marks, session.mark_bytes) == (1, one)


def test_sessions_of_one_model_run_in_parallel(tiny: ae.Model) -> None:
    expected = tiny.session(threads=1).forward(IDS)
    results: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = []
    threads = [
        threading.Thread(target=lambda: results.append(tiny.session(threads=1).forward(IDS)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_a_model_loads_from_its_onnx_file_too(tiny_dir: Path) -> None:
    model = ae.Model.load(tiny_dir / "model.onnx")
    assert model.name == tiny_dir.name
    assert model.session().generate("Hi", max_tokens=3)


def test_sampling_by_hand_is_what_generate_does(tiny: ae.Model) -> None:
    options = {"temperature": 1.5, "top_p": 0.9, "repetition_penalty": 1.2, "seed": 6}
    expected = "".join(tiny.session().generate("Hello", max_tokens=20, **options))  # type: ignore[arg-type]
    session = tiny.session()
    with pytest.raises(ae.InvalidArgumentError, match="no logits"):
        session.sample()
    session.set_sampling(**options)  # type: ignore[arg-type]
    session.forward(tiny.tokenizer.encode("Hello"))
    ids: list[int] = []
    while len(ids) < 20 and (token := session.sample()) not in tiny.stop_ids:
        ids.append(token)
        session.forward([token], last_only=True)
    assert tiny.tokenizer.decode(ids) == expected


def test_a_text_is_resumed_also_after_a_copy(tiny: ae.Model) -> None:
    def begin(session: ae.Session) -> Iterator[str]:
        return session.generate("Hello", max_tokens=40, temperature=1.5, seed=5)

    expected = "".join(begin(tiny.session()))
    session = tiny.session()
    said = next(begin(session))
    assert session.unfinished
    clone = session.clone()
    assert said + "".join(session.resume()) == expected
    assert said + "".join(clone.resume()) == expected
    assert not session.unfinished
    with pytest.raises(ae.InvalidArgumentError, match="no unfinished"):
        session.resume()


def test_marks_lead_back(tiny: ae.Model) -> None:
    session = tiny.session()
    session.forward(IDS[:50])
    before = session.snapshot()
    session.mark(0)
    session.mark(1 << 20)
    assert session.marks == 2
    session.forward(IDS[50:])
    assert session.undo() and session.undo() and not session.undo()
    assert session.snapshot() == before


def test_a_wiped_session_is_as_new(tiny: ae.Model) -> None:
    session = tiny.session()
    untouched = session.snapshot()
    session.forward(IDS)
    session.mark(0)
    session.wipe()
    assert session.snapshot() == untouched
    assert session.marks == 0


def test_a_logit_bias_excludes_a_token_and_forces_another(tiny: ae.Model) -> None:
    def write(bias: dict[int, float]) -> str:
        return "".join(
            tiny.session().generate("Hello", max_tokens=5, temperature=1.0, seed=1, logit_bias=bias)
        )

    x, y = (tiny.tokenizer.encode(letter)[0] for letter in "xy")
    assert write({x: 100.0}) == "xxxxx"
    only = {token: -np.inf for token in range(VOCAB) if token != y}
    assert write(only) == "yyyyy"
    generator = tiny.session().generate("Hello", logit_bias=dict.fromkeys(range(VOCAB), -np.inf))
    assert "".join(generator) == ""
    assert generator.finish_reason == "no_token"


def test_logprobs_are_the_log_softmax_of_forward(tiny: ae.Model) -> None:
    session = tiny.session()
    generator = session.generate(
        IDS[:20], max_tokens=8, temperature=2.0, seed=4, logprobs=3, logit_bias={ord("a"): 5.0}
    )
    text = "".join(generator)
    tokens = generator.take_tokens()
    assert generator.take_tokens() == []
    assert len(tokens) == generator.generated_tokens > 0
    assert tiny.tokenizer.decode([token.id for token in tokens]) == text
    read = tiny.session().forward([*IDS[:20], *(token.id for token in tokens)])[19:-1].astype(np.float64)
    tolerance = 2 * rounding(read)  # of a logit, and of the sum that they are held against
    expected = read - np.log(np.exp(read).sum(axis=1, keepdims=True))
    for token, row in zip(tokens, expected, strict=True):
        assert abs(token.logprob - row[token.id]) < tolerance
        assert [best for best, _ in token.best] == list(np.argsort(-row, kind="stable")[:3])
        assert all(abs(score - row[best]) < tolerance for best, score in token.best)


def test_a_token_filter_decides_what_may_follow(tiny: ae.Model) -> None:
    wanted = "never said by chance"
    seen: list[int] = []

    def only_wanted(last: int, allowed: np.ndarray) -> None:
        seen.append(last)
        allowed[:] = 0
        if len(seen) <= len(wanted):
            token = ord(wanted[len(seen) - 1])
            token = next(t for t in range(256) if tiny.tokenizer.token_bytes(t) == bytes([token]))
            allowed[token // 32] = 1 << (token % 32)

    generator = tiny.session().generate("Hello", token_filter=only_wanted)
    assert "".join(generator) == wanted
    assert generator.finish_reason == "no_token"
    assert seen[0] == -1
    assert tiny.tokenizer.decode(seen[1:]) == wanted


def test_an_error_of_a_token_filter_comes_out_and_the_text_can_go_on(tiny: ae.Model) -> None:
    session = tiny.session()
    generator = session.generate("Hello", max_tokens=9, temperature=0, token_filter=lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(generator)
    assert session.position == 5 and session.unfinished
    text = "".join(session.resume())
    assert text == "".join(tiny.session().generate("Hello", max_tokens=9, temperature=0))
