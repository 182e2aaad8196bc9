"""The figures of bench/accuracy.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accuracy import LONGEST_CALL, compared, measure, random_calls, relative


def test_a_relative_error_is_the_length_of_the_difference_to_that_of_the_reference() -> None:
    reference = np.array([[3.0, 4.0]], np.float32)
    assert relative(reference, reference) == 0
    assert relative(np.array([[3.0, 3.0]], np.float32), reference) == pytest.approx(1 / 5)


def test_the_worst_token_and_the_same_first_tokens_are_found() -> None:
    reference = np.array([[3.0, 4.0], [4.0, 3.0], [0.0, 5.0], [5.0, 0.0]], np.float32)
    logits = reference.copy()
    logits[2] = [3.0, 1.0]  # off by 5, and another token is first
    found = compared(logits, reference)
    assert found["worst"] == pytest.approx(1)
    assert found["error"] == pytest.approx(1 / 2)  # 5 of a length of 10
    assert found["same first"] == pytest.approx(3 / 4)


def test_random_calls_are_the_tokens_in_order() -> None:
    ids = np.arange(500)
    calls = random_calls(ids, np.random.default_rng(0))
    np.testing.assert_array_equal(np.concatenate(calls), ids)
    assert len(calls) >= 500 / LONGEST_CALL and max(map(len, calls)) <= LONGEST_CALL


def test_a_float_model_has_one_row_without_error(tiny_dir: Path) -> None:
    lines = measure(tiny_dir, [], read=20, tokens=12, seed=0, threads=1).splitlines()
    assert len(lines) == 3  # names, rule, the model
    assert [cell.strip() for cell in lines[2].split("|")][1:6] == [
        "tiny",
        "exact",
        "0.00%",
        "0.00%",
        "100.0%",
    ]
