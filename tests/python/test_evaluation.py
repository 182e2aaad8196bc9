"""`allmem-edge eval` on a tiny model: what is asked, what is kept, what is refused."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_model import rounding

import allmem_edge as ae
from allmem_edge.cli import perplexity
from allmem_edge.cli.eval import Talk, standard_error
from allmem_edge.cli.eval import command as evaluations
from allmem_edge.cli.perplexity import token_losses
from allmem_edge.dialogues import Turn
from allmem_edge.errors import AllMemError, StorageError
from allmem_edge.evaluation import by_position, divergence, plot
from allmem_edge.evaluation.journal import Journal, lines_of
from allmem_edge.evaluation.recall import Cases, filler_of, told
from allmem_edge.hub import BUNDLED


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "allmem_edge", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=300, check=False)


def report_of(*arguments: str | Path) -> Any:
    result = run(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


# --- what is kept


def test_a_journal_goes_on_after_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / "results"
    first = Journal(file, {"seed": 1})
    first.put("a", [1, 2])
    first.put("b", "x")
    first.close()
    whole = file.read_bytes()
    for end in range(len(whole) - 1, len(whole) - 10, -1):
        file.write_bytes(whole[:end])
        again = Journal(file, {"seed": 1})
        assert "a" in again and "b" not in again and again["a"] == [1, 2]
        again.put("b", "x")
        again.close()
        assert file.read_bytes() == whole


def test_a_journal_of_other_settings_or_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "results"
    Journal(file, {"seed": 1}).close()
    with pytest.raises(StorageError, match="seed 1, not 2"):
        Journal(file, {"seed": 2})
    for text in (b"hello\n", b"{}\n", b"[]\n", b'{"settings": {"seed": 1}}\n{"key": 1}\n', b"\xff\xfe\n"):
        file.write_bytes(text)
        with pytest.raises(StorageError, match=r"line [12]"):
            Journal(file, {"seed": 1})
        assert file.read_bytes() == text


def test_a_file_of_one_line_without_an_end_is_no_journal_but_where_the_first_write_was_killed(
    tmp_path: Path,
) -> None:
    file = tmp_path / "results"
    Journal(file, {"seed": 1}).close()
    first = file.read_bytes()
    for text in (b'{"my": "thesis"}', b"x", first[:-2] + b", ", b"\xff", first[:-1] + b" "):
        file.write_bytes(text)
        with pytest.raises(StorageError, match="line 1: not a result"):
            Journal(file, {"seed": 1})
        assert file.read_bytes() == text
    for end in (1, len(first) // 2, len(first) - 1):
        file.write_bytes(first[:end])
        Journal(file, {"seed": 1}).close()
        assert file.read_bytes() == first


def test_a_journal_that_another_run_writes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "results"
    first = Journal(file, {"seed": 1})
    with pytest.raises(StorageError, match="Another run"):
        Journal(file, {"seed": 1})
    first.put("a", 1)
    first.close()
    assert Journal(file, {"seed": 1})["a"] == 1


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"a": 1}\n{"a":\n', 2),
        (b'{"a": 1}\n\n[1]\n', 3),
        (b"\xff\n", 1),
        (b'{"a": ' + b"[" * 100_000 + b"\n", 1),
        (b"x" * 2000 + b"\n", 1),
    ],
)
def test_a_bad_line_is_named(content: bytes, line: int, tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    file.write_bytes(content)
    with pytest.raises(StorageError, match=f"line {line}: "):
        lines_of(file, most=1000 if content.startswith(b"x") else 1 << 20)


def test_an_empty_or_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"\n\n")
    for name in ("empty", "none"):
        with pytest.raises(AllMemError, match=name):
            lines_of(tmp_path / name)


# --- divergence from a base


def test_kl_is_what_its_definition_says() -> None:
    base = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]], np.float32)) + np.float32(3)  # unnormalised
    model = np.log(np.array([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]], np.float32))
    found = divergence.kl_of(base, model)
    assert found == pytest.approx([0.5 * math.log(2) + 0.25 * math.log(0.5), 0], abs=1e-6)


def test_a_model_does_not_diverge_from_itself_but_from_another(tmp_path: Path) -> None:
    arguments: list[str | Path] = ["eval", "divergence", BUNDLED, "--base", BUNDLED, "--limit", "3"]
    same = report_of(*arguments, "--no-memory")
    assert same["results"]["questions"] == 3 and same["results"]["tokens"] > 3
    assert same["results"]["kl"] == 0 and same["results"]["same_most_likely"] == 1
    kept: list[str | Path] = [*arguments, "--out", tmp_path / "results"]
    other = report_of(*kept)  # its memory is in use: another model
    assert other["results"]["kl"] > 0 and other["results"]["standard_error"] > 0
    assert report_of(*kept) == other


# --- perplexity by position


def test_bands_cover_every_position_once() -> None:
    for length in (2, 255, 256, 257, 1000, 4096):
        bands = by_position.bands_of(length)
        assert bands[0][0] == 0 and bands[-1][1] == length
        assert all(a[1] == b[0] and b[0] < b[1] for a, b in itertools.pairwise(bands))


def test_perplexity_by_position_is_that_of_the_logits(tiny: ae.Model, tiny_dir: Path, tmp_path: Path) -> None:
    text = "".join(chr(97 + i * i % 26) for i in range(1500))
    (tmp_path / "text").write_text(text)
    found = report_of("eval", "perplexity", tiny_dir, tmp_path / "text", "--length", "600", "--exact")
    assert found["pieces"] == 3
    logits: list[float] = []
    ids = tiny.tokenizer.encode(text, False)
    expected: dict[int, list[float]] = {}
    for begin in (0, 600, 1200):
        piece = ids[begin : begin + 600]
        logits_of = tiny.session(1).forward(piece).astype(np.float64)
        for t in range(1, len(piece)):
            row = logits_of[t - 1]
            loss = math.log(np.exp(row - row.max()).sum()) + row.max() - row[piece[t]]
            band = next(i for i, (a, b) in enumerate(by_position.bands_of(600)) if a <= t < b)
            expected.setdefault(band, []).append(float(loss))
    assert not logits
    for i, row in enumerate(found["results"]):
        assert row["tokens"] == len(expected[i])
        assert row["perplexity"] == pytest.approx(math.exp(np.mean(expected[i])), rel=1e-6)


def test_a_file_alone_is_read_by_the_bundled_model_and_results_are_kept(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("The weather was nice today. " * 40)
    arguments: list[str | Path] = ["eval", "perplexity", tmp_path / "text", "--out", tmp_path / "results"]
    first = report_of(*arguments, "--plot", tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
    kept = (tmp_path / "results").read_bytes()
    assert report_of(*arguments) == first
    assert (tmp_path / "results").read_bytes() == kept


def test_stretches_of_two_files_of_one_name_are_told_apart(tiny: ae.Model, tmp_path: Path) -> None:
    files = [tmp_path / folder / "text" for folder in ("one", "other")]
    for file in files:
        file.parent.mkdir()
        file.write_text(f"The weather was nice in {file.parent.name} place. " * 20)
    names = [name for name, _ in by_position.pieces_of(tiny, files, 300)]
    assert len(names) == len(set(names)) == 4


def test_a_text_that_cannot_be_measured_is_refused(tiny_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("x")
    for name in ("short", "none"):
        result = run("eval", "perplexity", tiny_dir, tmp_path / name)
        assert result.returncode in (1, 2) and name.encode() in result.stderr


def test_losses_do_not_depend_on_where_reading_is_cut(
    tiny: ae.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [int(i) for i in np.random.default_rng(0).integers(0, 256, 300)]
    whole = token_losses(tiny.session(1), ids)
    assert whole[0] == 0 and (whole[1:] > 0).all() and len(whole) == 300
    monkeypatch.setattr(perplexity, "_READ_TOKENS", 7)
    logits = tiny.session(1).forward(ids)
    np.testing.assert_allclose(token_losses(tiny.session(1), ids), whole, atol=2 * rounding(logits), rtol=0)


def test_a_plot_is_well_formed_whatever_it_shows() -> None:
    for series in ({}, {"a & b": [(1.0, math.nan)]}, {"a": [(256, 3.0), (65536, 3.0)]}, {"a": [(5, -1e-9)]}):
        ET.fromstring(plot.lines("<title>", "x", "y", series, from_zero=True))
        ET.fromstring(plot.lines("<title>", "x", "y", series))


def test_the_legend_of_a_picture_with_many_lines_stays_in_it() -> None:
    names = ["full attention", "the window alone", "a memory", "another memory", "frozen", "one more line"]
    root = ET.fromstring(plot.lines("title", "x", "y", {name: [(1.0, 1.0), (2.0, 2.0)] for name in names}))
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    places = {e.text: e.attrib for e in root.iter() if e.text in names}
    assert set(places) == set(names)
    assert len({(place["x"], place["y"]) for place in places.values()}) == len(names)
    for name, place in places.items():
        assert float(place["x"]) + 6.6 * len(name) <= width and float(place["y"]) < height


# --- recall


def test_the_phrasings_of_people_are_many_and_do_not_give_the_answer_away() -> None:
    kinds = told()["kinds"]
    assert len(kinds) >= 12 and len({kind["key"] for kind in kinds}) == len(kinds)
    tells = [text for kind in kinds for text in kind["tells"]]
    asks = [text for kind in kinds for text in kind["asks"]]
    assert len(set(tells + asks)) == len(tells) + len(asks) >= 120
    assert all(text.count("{v}") == 1 for text in tells)
    assert not any("{" in text for text in asks)


@pytest.mark.parametrize(("phrasings", "people"), [("generator", 0), ("both", 0.5), ("people", 1)])
def test_facts_are_told_as_asked_and_each_is_asked_for_once(phrasings: Any, people: float) -> None:
    cases, sources = Cases(3, len, phrasings=phrasings), Counter[bool]()
    for _ in range(20):
        turns, questions = cases.case(500, 4)
        facts = [turn for turn in turns if turn.kind == "fact"]
        assert [turn.kind for turn in turns[:4]] == ["fact"] * 4
        assert sorted(str(turn.key) for turn in facts) == sorted(str(turn.key) for turn in questions)
        for question in questions:
            assert question.answer is not None
            told_turn = next(turn for turn in facts if turn.key == question.key)
            assert question.answer in told_turn.user and question.answer not in question.user
            sources[str(question.key).startswith("people:")] += 1
        assert sum(len(t.user) + len(t.assistant) for t in turns[4:]) >= 500
    assert sources[True] / 80 == people


def test_a_seed_gives_the_same_cases_and_unknown_asks_for_what_was_not_told() -> None:
    one, two = (Cases(5, len, phrasings="both") for _ in range(2))
    assert [one.case(100, 3) for _ in range(5)] == [two.case(100, 3) for _ in range(5)]
    turns, questions = Cases(5, len, phrasings="both").case(100, 4, unknown=True)
    assert {turn.kind for turn in questions} == {"ask_unknown"}
    assert not {turn.key for turn in turns} & {turn.key for turn in questions} - {None}


@pytest.mark.parametrize("phrasings", ["people", "both"])
def test_no_question_has_two_answers_or_asks_as_unknown_for_what_was_told(phrasings: Any) -> None:
    same = {"city": "town", "gym": "locker_code"}
    cases, unknown = (Cases(7, len, phrasings=phrasings) for _ in range(2))

    def keys(turns: list[Turn]) -> list[str]:
        names = [str(turn.key).removeprefix("people:") for turn in turns if turn.key]
        return [same.get(name, name) for name in names]

    for _ in range(300):
        turns, _questions = cases.case(0, 10)
        assert len(set(keys(turns))) == 10
        turns, questions = unknown.case(0, 10, unknown=True)
        assert not set(keys(turns)) & set(keys(questions))


@pytest.mark.parametrize("phrasings", ["generator", "both", "people"])
def test_a_corrected_fact_is_told_twice_and_its_last_value_is_right(phrasings: Any) -> None:
    cases = Cases(5, len, phrasings=phrasings)
    for _ in range(40):
        turns, questions = cases.case(300, 3, corrected=True)
        kinds = [turn.kind for turn in turns]
        last = len(kinds) - kinds[::-1].index("correct")
        assert kinds[:3] == ["fact"] * 3 and kinds[last - 3 : last] == ["correct"] * 3
        assert set(kinds[3 : last - 3] + kinds[last:]) == {"small_talk"}
        for between in (turns[3 : last - 3], turns[last:]):
            assert sum(len(turn.user) + len(turn.assistant) for turn in between) >= 300
        for question in questions:
            first, new = (next(t for t in ts if t.key == question.key) for ts in (turns, turns[last - 3 :]))
            assert question.answer and question.old and question.answer.casefold() != question.old.casefold()
            assert question.old in first.user and question.answer in new.user


def test_text_files_fill_the_distance_in_their_order(tmp_path: Path) -> None:
    lines = [f"Line {i} of a text that goes on and on." for i in range(200)]
    (tmp_path / "text").write_text("\n".join(lines))
    passages = filler_of([tmp_path / "text"])
    assert "\n".join(passages).splitlines() == lines
    turns, _ = Cases(1, len, phrasings="people", filler=passages).case(3000, 1)
    assert sum(any(line in turn.user for line in lines) for turn in turns[1:]) == len(turns) - 1
    (tmp_path / "empty").write_text(" \n")
    for name in ("empty", "none"):
        with pytest.raises(AllMemError, match=name):
            filler_of([tmp_path / name])


def test_recall_is_kept_and_goes_on(tiny_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("Some words to read. " * 300)
    arguments: list[str | Path] = ["eval", "recall", tiny_dir, "--distance", "300,600", "--questions", "4"]
    arguments += ["--phrasings", "both", "--filler", tmp_path / "text", "--out", tmp_path / "results"]
    first = report_of(*arguments)
    assert [row["total"] for row in first["results"]] == [4, 4]
    assert first["results"][0]["by_phrasing"]["people"]["total"] == 2
    kept = (tmp_path / "results").read_text().splitlines(keepends=True)
    assert len(kept) == 5  # the settings, and two conversations at each distance
    (tmp_path / "results").write_text("".join(kept[:3]) + kept[3][:20])
    assert report_of(*arguments) == first
    assert (tmp_path / "results").read_text() == "".join(kept)
    other = run(*arguments, "--seed", "2")
    assert other.returncode == 1 and b"seed 1, not 2" in other.stderr
    (tmp_path / "text").write_text("Other words to read. " * 300)
    other = run(*arguments)
    assert other.returncode == 1 and b"holds results with filler" in other.stderr


def test_recall_says_how_answers_are_drawn_and_does_not_go_on_otherwise(
    tiny_copy: Path, tmp_path: Path
) -> None:
    (tiny_copy / "generation_config.json").write_text('{"repetition_penalty": 1.1}')
    arguments: list[str | Path] = ["eval", "recall", tiny_copy, "--distance", "20", "--questions", "2"]
    sampling = report_of(*arguments, "--out", tmp_path / "results")["sampling"]
    assert sampling["temperature"] == 0 and sampling["repetition_penalty"] == pytest.approx(1.1)
    (tiny_copy / "generation_config.json").write_text('{"repetition_penalty": 1.2}')
    other = run(*arguments, "--out", tmp_path / "results")
    assert other.returncode == 1 and b"holds results with sampling" in other.stderr


def test_of_corrected_facts_the_old_values_are_counted(
    tiny_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["recall", str(tiny_dir), "--distance", "50", "--facts", "1", "--questions", "3"]
    arguments += ["--corrected"]
    answers = iter(["{v}", "both {o} and {v}", "{o}"])  # right, right, and old

    def answer(_talk: Talk, _told: list[Turn], asked: list[Turn], _seed: str) -> list[dict[str, Any]]:
        text = next(answers).replace("{v}", str(asked[0].answer)).replace("{o}", str(asked[0].old))
        return [{"key": asked[0].key, "value": asked[0].answer, "answer": text, "away": 1, "repeated": 0.0}]

    monkeypatch.setattr(Talk, "answers", answer)
    result = CliRunner().invoke(evaluations, [*arguments, "--json"])
    (row,) = json.loads(result.stdout)["results"]
    assert (row["correct"], row["old"], row["total"]) == (2, 1, 3)
    assert run("eval", *arguments, "--unknown").returncode == 2


def test_replies_that_repeat_an_earlier_one_are_counted() -> None:
    chat = MagicMock(sampling={})
    asked_once = len(divergence.questions())
    chat.send.side_effect = [["Hello."], ["Hello."], ["I ", "see."], *[["Hel", "lo."]] * (asked_once + 3)]
    talk = Talk(chat, ("", False), asked_once + 3, Mock())
    facts = [Turn("I am Ada.", "Hello, Ada.", "fact"), Turn("I live in Rome.", "I see.", "fact")]
    (answer,) = talk.answers(facts, [Turn("Who am I?", "Ada", "ask", "Ada")], "seed")
    # Replies to facts do not count, nor those to questions that come again.
    assert answer["repeated"] == 1 - 2 / asked_once


def test_the_error_of_recall_is_that_of_conversations() -> None:
    assert standard_error([[True, False]]) is None
    singles = [[True], [False], [True], [True]]
    assert standard_error(singles) == pytest.approx(math.sqrt(0.75 * 0.25 / 3))
    together = [
        talk * 5 for talk in singles
    ]  # five questions that always fail together tell no more than one
    assert standard_error(together) == pytest.approx(standard_error(singles))
    assert standard_error([[True, False], [True]]) == pytest.approx(math.sqrt(2 * (1 / 9 + 1 / 9)) / 3)


def test_recall_across_a_chat_of_the_models_own_repeats_and_goes_on(tiny_dir: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = ["eval", "recall", tiny_dir, "--turns", "3", "--questions", "4"]
    arguments += ["--out", tmp_path / "results"]
    first = report_of(*arguments)
    (row,) = first["results"]
    assert row["turns"] == 3 and row["total"] == 4 and 0 <= row["repeated"] < 1
    head, *kept = (tmp_path / "results").read_text().splitlines(keepends=True)
    away = [answer["away"] for line in kept for answer in json.loads(line)["result"]]
    assert len(kept) == 2 and len(away) == 4
    assert row["distance"] == round(sum(away) / 4) > 0
    (tmp_path / "results").write_text(head + kept[0])
    assert report_of(*arguments) == first
    assert (tmp_path / "results").read_text() == head + "".join(kept)
    assert run(*arguments, "--distance", "64").returncode == 2
