"""The Python example runs from top to bottom, and what it shows is so."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np

TOUR = Path(__file__).parents[2] / "examples" / "python" / "tour.py"


def test_the_tour_shows_what_it_says() -> None:
    seen = runpy.run_path(str(TOUR))
    assert "Tobias" in seen["name"] and "Tobias" in seen["recalled"]
    assert "4711" in seen["code"] and "4711" not in seen["frozen_code"]
    assert seen["chat"].session.position > 20 * seen["window"]
    assert seen["logits"].shape == (len(seen["ids"]), seen["model"].engine.vocab_size)
    for one, other in (("pieces", "logits"), ("native", "expected")):  # rounding apart, the same predictions
        np.testing.assert_array_equal(seen[one].argmax(axis=1), seen[other].argmax(axis=1))


def test_the_page_on_python_runs_from_top_to_bottom() -> None:
    page = (TOUR.parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    exec("\n".join(blocks), {})
