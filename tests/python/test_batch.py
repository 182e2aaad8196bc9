"""Batch: sessions that read and generate together, each as alone."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import VOCAB

import allmem_edge as ae
from allmem_edge import _core
from allmem_edge.session import TokenFilter

BUNDLED = Path(ae.__file__).parent / "models" / "small"  # with 8-bit weights: the same to the last bit
PROMPTS = ["Hi, I'm Tobias.", "The code of the door is 4711. Remember it.", "What is", "Hello! " * 60]


@pytest.fixture(scope="module")
def bundled() -> ae.Model:
    return ae.Model.load(BUNDLED)


def going_on(model: ae.Model) -> dict[int, float]:
    """A logit bias with which no text ends before its max_tokens."""
    return dict.fromkeys(model.stop_ids, -math.inf)


def logits_of(result: NDArray[np.float32] | ae.AllMemError) -> NDArray[np.float32]:
    assert isinstance(result, np.ndarray)
    return result


def test_sessions_read_together_what_each_reads_alone(bundled: ae.Model) -> None:
    ids = [bundled.tokenizer.encode(prompt) for prompt in PROMPTS]
    together, alone = ([bundled.session(1) for _ in ids] for _ in range(2))
    together[1].freeze()
    alone[1].freeze()
    batch = bundled.batch(threads=2)
    assert batch.threads == 2
    for step in range(30):
        who = [i for i in range(len(ids)) if (i + step) % 4]  # they come and go
        results = batch.step([(together[i], ids[i]) for i in who])
        for i, result in zip(who, results, strict=True):
            expected = alone[i].forward(ids[i], last_only=True)[0]
            assert np.array_equal(logits_of(result), expected)
            ids[i] = [int(expected.argmax())]
    assert [s.snapshot() for s in together] == [s.snapshot() for s in alone]
    assert batch.total_bytes > 0
    batch.wipe()


def test_texts_that_are_generated_together_are_what_each_is_alone(bundled: ae.Model) -> None:
    def begin(session: ae.Session, number: int) -> _core.Generator:
        return session.generate(
            PROMPTS[number],
            seed=number,
            temperature=1.0,
            max_tokens=10 + 9 * number,
            logprobs=2,
            logit_bias=going_on(bundled) if number else {},
        )

    sessions = [bundled.session(1) for _ in PROMPTS]
    texts = [begin(session, i) for i, session in enumerate(sessions)]
    pieces: dict[int, list[str]] = {i: [] for i in range(len(texts))}
    for step in bundled.batch(2).generate(texts):
        for number, piece in step.items():
            pieces[number].append(piece)
    for i, text in enumerate(texts):
        alone = bundled.session(1)
        same = begin(alone, i)
        assert pieces[i] == list(same)
        assert text.finish_reason == same.finish_reason
        assert text.generated_tokens == same.generated_tokens
        drawn, expected = text.take_tokens(), same.take_tokens()
        assert [(t.id, t.logprob, t.best) for t in drawn] == [(t.id, t.logprob, t.best) for t in expected]
        assert np.array_equal(sessions[i].forward([5]), alone.forward([5]))


def test_what_is_wrong_with_one_session_is_its_own_error(tiny: ae.Model, tiny_dir: Path) -> None:
    other = ae.Model.load(tiny_dir)
    good, bad = tiny.session(1), tiny.session(1)
    batch = tiny.batch(1)
    results = batch.step([(good, [1, 2]), (bad, [VOCAB]), (other.session(1), [1]), (good, [3])])
    assert logits_of(results[0]).shape == (VOCAB,)
    assert isinstance(results[1], ae.InvalidArgumentError)
    assert "another model" in str(results[2])
    assert isinstance(results[3], ae.SessionInUseError)
    assert (good.position, bad.position) == (2, 0)
    assert batch.step([]) == []


@pytest.mark.parametrize("tokens", [[], [[1, 2]], "abc", [1.5], None])
def test_what_are_no_tokens_is_refused_before_anything_is_read(tiny: ae.Model, tokens: object) -> None:
    good, bad = tiny.session(1), tiny.session(1)
    with pytest.raises(ae.InvalidArgumentError):
        tiny.batch(1).step([(good, [1]), (bad, tokens)])  # type: ignore[list-item]
    with pytest.raises(ae.InvalidArgumentError):
        tiny.batch(1).step([("good", [1])])  # type: ignore[list-item]
    assert good.position == 0


def test_a_token_filter_that_raises_ends_its_own_text(bundled: ae.Model) -> None:
    def give_up(last: int, allowed: NDArray[np.uint32]) -> None:
        if last >= 0:
            raise RuntimeError("no grammar")

    def begin(number: int, token_filter: TokenFilter | None = None) -> _core.Generator:
        return bundled.session(1).generate(
            PROMPTS[number],
            temperature=0,
            max_tokens=12,
            logit_bias=going_on(bundled),
            token_filter=token_filter,
        )

    texts = [begin(0), begin(1, give_up)]
    pieces = []
    with pytest.raises(RuntimeError, match="no grammar"):
        for step in bundled.batch(1).generate(texts):
            pieces.append(step.get(0, ""))
    assert pieces and "".join(pieces) == "".join(begin(0))
    assert texts[1].generated_tokens == 1


def test_a_cancelled_text_ends_and_the_others_go_on(bundled: ae.Model) -> None:
    def begin(number: int) -> _core.Generator:
        return bundled.session(1).generate(
            PROMPTS[number], temperature=0, max_tokens=9, logit_bias=going_on(bundled)
        )

    texts = [begin(0), begin(1)]
    pieces = ""
    for number, step in enumerate(bundled.batch(1).generate(texts)):
        pieces += step.get(0, "")
        if number == 2:
            texts[1].cancel()
    assert pieces and pieces == "".join(begin(0))
    assert texts[1].finish_reason == "cancelled"
    assert 0 < texts[1].generated_tokens < texts[0].generated_tokens


def test_a_session_in_a_batch_is_in_use(tiny: ae.Model) -> None:
    session, batch = tiny.session(1), tiny.batch(1)
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.extend(batch.step([(session, [1] * 300_000)])))
    thread.start()
    refused = 0
    while thread.is_alive():
        try:
            session.freeze(False)
        except ae.SessionInUseError:
            refused += 1
            session.cancel()
    thread.join()
    assert refused
    assert isinstance(results[0], ae.CancelledError)


def test_only_the_native_runtime_has_batches() -> None:
    class Elsewhere:
        engine = object()

    with pytest.raises(ae.UnsupportedModelError):
        ae.Batch(Elsewhere())  # type: ignore[arg-type]
