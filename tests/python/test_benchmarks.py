"""The needle suite, the files of published benchmarks, and the metrics that score them."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import allmem_edge as ae
from allmem_edge.cli.bench_files import _answer
from allmem_edge.errors import AllMemError, InvalidArgumentError, StorageError
from allmem_edge.evaluation import bench_files, metrics, needle
from allmem_edge.evaluation.answering import Answerer, Prompt, cut_in_the_middle

NEEDLES = tuple(needle.tasks(needle.Haystack()))


def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "allmem_edge", *map(str, arguments)]
    return subprocess.run(command, input=b"", capture_output=True, timeout=300, check=False)


# --- metrics


def test_qa_f1_is_that_of_bags_of_words_without_articles_and_punctuation() -> None:
    assert metrics.qa_f1("The Eiffel Tower!", "eiffel tower") == 1
    assert metrics.qa_f1("a tall tower in Paris", "Eiffel Tower") == pytest.approx(
        2 * (1 / 4 * 1 / 2) / (3 / 4)
    )
    assert metrics.qa_f1("", "x") == 0
    assert metrics.qa_f1("北京。", "北京") == 1  # by characters
    assert metrics.best(metrics.qa_f1, "two", ["one", "two"]) == 1


@given(st.text(), st.text(min_size=1))
def test_scores_lie_between_0_and_1_and_saying_the_answer_is_best(said: str, answer: str) -> None:
    for metric in (metrics.qa_f1, metrics.rouge_l, metrics.code_similarity):
        assert 0 <= metric(said, answer) <= 1
    for metric in (metrics.qa_f1, metrics.rouge_l):
        assert metric(answer, answer) in (0, 1)  # 0: nothing in it counts as a word


def test_the_longest_common_subsequence_is_that_of_the_table() -> None:
    rng = random.Random(3)
    for _ in range(200):
        one, other = ([rng.choice("abcd") for _ in range(rng.randrange(80))] for _ in range(2))
        row = [0] * (len(other) + 1)
        for token in one:
            new = [0]
            for j, wanted in enumerate(other):
                new.append(row[j] + 1 if token == wanted else max(row[j + 1], new[j]))
            row = new
        assert metrics.common_subsequence(one, other) == row[-1]


def test_a_long_answer_is_scored_in_no_time() -> None:
    text = " ".join(str(i % 977) for i in range(200_000))
    begin = time.monotonic()
    assert metrics.rouge_l(text[:2000], text) > 0
    assert metrics.code_similarity("x = 1", text) == 0
    assert time.monotonic() - begin < 20


def test_an_answer_of_many_different_words_takes_little_memory() -> None:
    text = " ".join(f"word{i}" for i in range(20_000))
    tracemalloc.start()
    score = metrics.rouge_l("word7 word3 word19999 and more", text)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert score == pytest.approx(2 * 2 / (5 + 20_000))
    assert peak < 8 << 20  # a row of bits for each word would take 25 MB


def test_rouge_l_counts_the_longest_common_subsequence() -> None:
    # "police killed the gunman" and "police kill the gunman": Lin's own example, LCS of 3 words of 4.
    assert metrics.rouge_l("police killed the gunman", "police kill the gunman") == pytest.approx(3 / 4)
    assert metrics.rouge_l("the gunman kill police", "police kill the gunman") == pytest.approx(2 / 4)
    assert metrics.rouge_l("", "x") == 0


def test_a_class_is_shared_with_all_that_are_named_but_parts_of_its_own_name() -> None:
    classes = ["food", "sea food", "drink"]
    assert metrics.classification("It is sea food.", "sea food", classes) == 1
    assert metrics.classification("food or drink", "food", classes) == 1 / 2
    assert metrics.classification("drink", "food", classes) == 0


def test_code_is_compared_by_its_first_line_that_is_no_comment() -> None:
    assert metrics.code_similarity("# a comment\nreturn x\nmore", "return x") == 1
    assert metrics.code_similarity("return y", "return x") == 0.88  # 2 * 7 / 16, in whole percent
    assert metrics.code_similarity("```", "return x") == 0


def test_numbers_share_the_score() -> None:
    assert metrics.retrieval("Paragraph 7", "Paragraph 7") == 1
    assert metrics.retrieval("7 or 8", "Paragraph 7") == 1 / 2
    assert metrics.retrieval("Paragraph 17", "Paragraph 7") == 0
    assert metrics.count("There are 12.", "12") == 1
    assert metrics.count("none", "12") == 0


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The correct answer is (B), because A is wrong.", "B"),
        ("**C**", "C"),
        ("D. since", "D"),
        ("Answer: A", "A"),
        ("I think that B", "B"),
        ("A soldier who returns home, so it must be C.", "C"),
        ("A possible reading of the text is that (C) holds", "C"),
        ("A because B is wrong", "A"),
        ("The answer is B, not (A).", "B"),
        ("C\nA soldier comes home.", "C"),
        ("A\nsoldier comes home.", "A"),
        ("A soldier comes home.", None),
        ("It is A, a soldier.", "A"),
        ("nothing", None),
        ("", None),
        ("BAD", None),
    ],
)
def test_the_letter_that_an_answer_chooses(text: str, letter: str | None) -> None:
    assert metrics.choice(text) == letter


def test_rulers_scores() -> None:
    assert metrics.strings_all("It is 123 and abc.", ["123", "ABC", "x9"]) == pytest.approx(2 / 3)
    assert metrics.strings_any("paris", ["London", "Paris"]) == 1
    assert metrics.strings_any("rome", ["London", "Paris"]) == 0


def test_lv_evals_score_asks_for_keywords_first() -> None:
    answer, keywords = "She was born in the city of Paris", "Paris 1931 Curie France Nobel Radium"
    assert metrics.keyword_f1("in the city of", answer, keywords) == 0
    assert metrics.keyword_f1("in the city of", answer, None) == metrics.qa_f1("in the city of", answer) > 0
    assert metrics.keyword_f1("Paris, Curie", answer, keywords) > 0


def test_the_mean_has_the_error_of_independent_samples() -> None:
    assert metrics.mean_and_error([1.0]) == (1, 0)
    mean, error = metrics.mean_and_error([0.0, 1.0, 1.0, 0.0])
    assert mean == 0.5 and error == pytest.approx((1 / 3) ** 0.5 / 2)


# --- needles


@pytest.mark.parametrize("task", NEEDLES)
@pytest.mark.parametrize("length", [2000, 6000])
def test_a_sample_is_as_long_as_asked_for_and_can_be_answered(task: str, length: int) -> None:
    def count(prompt: Prompt) -> int:
        return len(prompt.text + prompt.answer_begins) // 4

    make = needle.tasks(needle.Haystack())[task]
    sample = needle.fit(make, "1", length, count)
    assert 0.75 * length <= count(sample.prompt) + sample.max_tokens <= length
    assert needle.fit(make, "1", length, count) == sample
    assert needle.fit(make, "2", length, count) != sample
    assert len(set(sample.answers)) == len(sample.answers)
    assert all(answer in sample.prompt.text for answer in sample.answers)
    assert needle.score(task, f"They are {', '.join(sample.answers).upper()}.", sample.answers) == 1
    assert needle.score(task, "I do not know.", sample.answers) == 0


def test_too_short_a_context_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="shortest"):
        needle.fit(needle.tasks(needle.Haystack())["cwe"], "1", 64, lambda prompt: len(prompt.text))


def test_a_cell_whose_shortest_sample_is_too_long_is_not_measured(tiny_dir: Path) -> None:
    arguments: list[str | Path] = ["eval", "needle", tiny_dir, "--length", "500,1500"]
    arguments += ["--task", "niah_single_1"]
    arguments += ["--task", "cwe", "--limit", "2"]
    rows = json.loads(run(*arguments, "--json").stdout)["results"]
    scores = {(row["task"], row["length"]): row["score"] for row in rows}
    assert [cell for cell, score in scores.items() if score is None] == [
        ("niah_single_1", 500),
        ("cwe", 500),
        ("cwe", 1500),
    ]
    assert {row["samples"] for row in rows if row["score"] is None} == {0}
    screen = run(*arguments)
    assert screen.returncode == 0 and b"not measured" in screen.stdout
    assert next(line.split() for line in screen.stdout.decode().splitlines() if "cwe" in line) == [
        "cwe",
        "-",
        "-",
    ]


def test_more_words_than_there_are_get_numbers() -> None:
    found = needle._words(random.Random(1), 16_000)
    assert len(set(found)) == 16_000 and found == needle._words(random.Random(1), 16_000)
    there_are = len({word for word in found if not any(map(str.isdigit, word))})
    assert there_are == len(needle._ADJECTIVES) * len(needle._NOUNS) < 8_000
    assert found[:5_000] == needle._words(random.Random(1), 5_000)
    assert not any(word in other for word in found[:10] for other in found[there_are:])  # no wrong hit
    for task, units in (("niah_multikey_2", 7_500), ("cwe", 7_500), ("qa_1", 20_000)):
        sample = needle.tasks(needle.Haystack())[task](random.Random(1), units)
        assert all(answer in sample.prompt.text for answer in sample.answers)


def test_needles_lie_anywhere_and_variables_in_their_order() -> None:
    places = []
    for seed in range(60):
        sample = needle.tasks(needle.Haystack())["niah_single_1"](random.Random(seed), 50)
        text = sample.prompt.text
        places.append(text.index(sample.answers[0]) / len(text))
        chain = needle.tasks(needle.Haystack())["vt"](random.Random(seed), 40)
        begins = [chain.prompt.text.index(f"VAR {name} = ") for name in chain.answers]
        assert begins == sorted(begins)
    assert min(places) < 0.2 and max(places) > 0.8


def test_the_most_frequent_words_are_the_answers() -> None:
    for task, top in (("cwe", 10), ("fwe", 3)):
        for units in (3, 40):
            sample = needle.tasks(needle.Haystack())[task](random.Random(1), units)
            listed = sample.prompt.text.split()
            counts = {word: listed.count(word) for word in set(listed) if word.strip(".").isascii()}
            least = min(counts[answer] for answer in sample.answers)
            coded = [w for w in counts if "-" in w or (task == "fwe" and len(w) == 6 and w.islower())]
            assert sum(counts[word] >= least for word in coded) == top


def test_a_haystack_of_your_own_is_in_its_order() -> None:
    lines = [f"Sentence {i}." for i in range(30)]
    found = needle.Haystack([" ".join(lines)]).sentences(random.Random(0), 10)
    begin = lines.index(found[0])
    assert found == [lines[(begin + i) % 30] for i in range(10)]


def test_the_needle_command_keeps_results_and_goes_on(tiny_dir: Path, tmp_path: Path) -> None:
    arguments: list[str | Path] = ["eval", "needle", tiny_dir, "--task", "niah_single_1", "--task", "qa_1"]
    arguments += ["--length", "1500", "--limit", "2", "--out", tmp_path / "results", "--json"]
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert [row["task"] for row in report["results"]] == ["niah_single_1", "qa_1"]
    assert report["format"] == "chat" and report["seed"] == 1 and report["fingerprint"]
    kept = (tmp_path / "results").read_bytes()
    (tmp_path / "results").write_bytes(kept[:-30])
    assert run(*arguments).stdout == first.stdout
    assert (tmp_path / "results").read_bytes() == kept
    more = run(*arguments[:-3], "--limit", "2", "--out", tmp_path / "results", "--memory", "off")
    assert more.returncode == 2
    other = run(*arguments, "--no-memory")
    assert other.returncode == 1 and b"memory 'on', not 'off'" in other.stderr


# --- files


LONGBENCH: dict[str, Any] = {
    "input": "Who sang?",
    "context": "Mary sang {input}.",
    "answers": ["Mary"],
    "length": 3,
    "dataset": "hotpotqa",
    "language": "en",
    "all_classes": None,
    "_id": "1",
}
LONGBENCH2: dict[str, Any] = {
    "_id": "1",
    "domain": "x",
    "sub_domain": "x",
    "difficulty": "easy",
    "length": "short",
    "question": "Which?",
    **{f"choice_{c}": f"choice {c}" for c in "ABCD"},
    "answer": "B",
    "context": "B is right.",
}
LVEVAL: dict[str, Any] = {
    "input": "Where?",
    "context": "In Paris.",
    "answers": ["in Paris"],
    "answer_keywords": "Paris",
    "confusing_facts": [],
    "dataset": "loogle_SD_mixup_16k",
    "language": "en",
    "length": 3,
}


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def one(path: Path, record: Any, **options: Any) -> bench_files.Case:
    return bench_files.read(write(path, record), **options)[1][0]


def test_longbenchs_datasets_have_their_metrics(tmp_path: Path) -> None:
    case = one(tmp_path / "hotpotqa.jsonl", LONGBENCH)
    assert case.groups == ("hotpotqa",) and case.max_tokens == 32 and not case.plain
    assert "Mary sang {input}." in case.prompt.text and case.prompt.text.count("Who sang?") == 1
    assert case.score("Mary") == 1 and case.score("John") == 0
    trec = LONGBENCH | {"dataset": "trec_e", "all_classes": ["Mary", "John"]}
    case = one(tmp_path / "trec_e.jsonl", trec)
    assert case.groups == ("trec",) and case.plain
    assert case.score("\nMary\nJohn") == 1 and case.score("Mary or John") == 0.5
    for dataset, answers, good, bad in (
        ("gov_report", ["a long report of it"], "a long report of it", "no"),
        ("passage_retrieval_en", ["Paragraph 3"], "Paragraph 3", "Paragraph 4"),
        ("passage_count", ["12"], "12", "13"),
        ("lcc", ["return x"], "return x", "~"),
        ("triviaqa", ["A", "Mary"], "mary", "x"),
    ):
        case = one(tmp_path / "x.jsonl", LONGBENCH | {"dataset": dataset, "answers": answers})
        assert (case.score(good), case.score(bad)) == (1, 0), dataset


def test_longbench_2_is_scored_by_the_letter_and_by_difficulty_and_length(tmp_path: Path) -> None:
    suite, cases = bench_files.read(write(tmp_path / "data.jsonl", LONGBENCH2))
    assert suite == "longbench2" and cases[0].groups == ("all", "easy", "short")
    assert all(f"({c}) choice {c}" in cases[0].prompt.text for c in "ABCD")
    assert cases[0].score("The correct answer is (B)") == 1 and cases[0].score("(A)") == 0


def test_lv_eval_is_told_by_its_keywords(tmp_path: Path) -> None:
    suite, cases = bench_files.read(write(tmp_path / "data.jsonl", LVEVAL))
    assert suite == "lveval" and cases[0].groups == ("loogle_SD_mixup_16k",)
    assert cases[0].score("in Paris") == 1 and cases[0].score("in London") == 0
    facts = one(tmp_path / "x.jsonl", LVEVAL | {"dataset": "factrecall_en_16k", "answers": ["David Hume"]})
    assert facts.score("It was Hume.") == 0.5


@pytest.mark.parametrize(
    ("task", "fields", "good", "bad"),
    [
        ("passkey", {"answer": ["71432"]}, "71432.", "7143"),
        ("kv_retrieval", {"answer": ["ab-12"]}, '"ab-12"', "ab-1"),
        ("number_string", {"answer": ["333"]}, "333", "33"),
        ("longdialogue_qa_eng", {"answer": ["BOB"]}, "bob.", "Bobby"),
        ("longbook_qa_eng", {"answer": ["a red car", "car"]}, "the red car", "bus"),
        ("longbook_qa_chn", {"answer": ["北京"]}, "北京", "南"),
        ("longbook_sum_eng", {"answer": "one two"}, "one two", "x"),
        ("longbook_choice_eng", {"answer": ["y"], "options": ["x", "y", "z", "w"]}, "B. y", "A"),
        ("code_debug", {"answer": ["g"], "options": ["f", "g", "h", "k"]}, "B", "C"),
        ("code_run", {"answer": [-7]}, "It is -7", "7"),
        ("math_find", {"answer": 2.5}, "2.5", "2"),
        ("math_calc", {"answer": [1, 2]}, "1, 2", "2"),
    ],
)
def test_infinitebenchs_tasks_are_told_by_the_files_name(
    task: str, fields: dict[str, Any], good: str, bad: str, tmp_path: Path
) -> None:
    record = {"id": 1, "context": "Text.", "input": "Which?", "options": []} | fields
    suite, cases = bench_files.read(write(tmp_path / f"{task}.jsonl", record))
    assert suite == "infinitebench" and cases[0].groups == (task,)
    assert (cases[0].score(good), cases[0].score(bad)) == (1, 0)
    assert cases[0].score("") == 0


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (LONGBENCH | {"answers": []}, "'answers'"),
        (LONGBENCH | {"answers": [" "]}, "'answers'"),
        (LONGBENCH | {"answers": [None]}, "'answers'"),
        (LONGBENCH | {"context": 3}, "'context'"),
        (LONGBENCH | {"dataset": "other"}, "'other'"),
        (LONGBENCH | {"dataset": "trec"}, "'all_classes'"),
        (LONGBENCH2 | {"answer": "E"}, "'E'"),
        ({k: v for k, v in LONGBENCH2.items() if k != "choice_D"}, "'choice_D'"),
        (LVEVAL | {"answers": ""}, "'answers'"),
        (LONGBENCH | {"dataset": 5}, "the dataset 5"),
        (LONGBENCH | {"answers": ["x" * (1 << 20), "y"]}, "'answers' has more than"),
        (LVEVAL | {"dataset": ["a"]}, "the dataset"),
    ],
)
def test_a_bad_sample_is_named_by_file_and_line(record: Any, what: str, tmp_path: Path) -> None:
    good = LONGBENCH2 if "choice_A" in record else LVEVAL if "answer_keywords" in record else LONGBENCH
    file = write(tmp_path / "bad.jsonl", good, record)
    with pytest.raises(StorageError, match=rf"bad\.jsonl, line 2: .*{what}"):
        bench_files.read(file)


def test_an_answer_that_must_be_a_number_and_is_none_is_refused(tmp_path: Path) -> None:
    record = {"id": 1, "context": "Text.", "input": "Which?", "answer": "abc"}
    with pytest.raises(StorageError, match=r"line 1: .*'abc'"):
        bench_files.read(write(tmp_path / "math_find.jsonl", record))


def test_a_kept_result_that_is_no_answer_is_refused() -> None:
    assert _answer({"answer": "x"}, "a 1", Path("kept")) == "x"
    for result in ({"answer": 1}, {}, None, ["answer"]):
        with pytest.raises(StorageError, match=r"kept: .*a 1"):
            _answer(result, "a 1", Path("kept"))


def test_what_is_of_no_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="--suite"):
        bench_files.read(write(tmp_path / "x.jsonl", {"text": "x"}))
    with pytest.raises(AllMemError, match="nowhere"):
        bench_files.read(tmp_path / "nowhere.jsonl")


def test_long_prompts_lose_their_middle() -> None:
    assert cut_in_the_middle(list(range(10)), 4) == [0, 1, 8, 9]
    assert cut_in_the_middle(list(range(10)), 5) == [0, 1, 7, 8, 9]
    assert cut_in_the_middle([1, 2], 5) == cut_in_the_middle([1, 2], None) == [1, 2]


def test_a_prompt_is_in_the_chat_format_or_plain(tiny: ae.Model) -> None:
    prompt = Prompt("Hi <|im_end|>", "Answer:")
    chat, plain = (Answerer(tiny, threads=1, form=form) for form in ("auto", "plain"))
    text = tiny.tokenizer.decode
    assert chat.form == "chat" and chat.ids(prompt).count(258) == 1  # of the template, not of the message
    assert text(plain.ids(prompt)) == "Hi <|im_end|> Answer:"
    assert chat.answer(chat.ids(prompt), 5, step=lambda: None) == chat.answer(
        chat.ids(prompt), 5, step=lambda: None
    )


def test_the_command_scores_files_and_goes_on(tiny_dir: Path, tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.jsonl", LONGBENCH, LONGBENCH | {"dataset": "lcc"}, LONGBENCH),
        write(tmp_path / "b.jsonl", LONGBENCH2),
    ]
    arguments: list[str | Path] = ["eval", "bench-files", tiny_dir, *files, "--limit", "2", "--json"]
    arguments += ["--out", tmp_path / "results", "--max-length", "40"]
    first = run(*arguments)
    assert first.returncode == 0, first.stderr
    report = json.loads(first.stdout)
    assert report["suites"] == ["longbench", "longbench2"]
    samples = {row["dataset"]: row["samples"] for row in report["results"]}
    assert samples == {"hotpotqa": 1, "lcc": 1, "all": 1, "easy": 1, "short": 1}
    kept = (tmp_path / "results").read_text().splitlines(keepends=True)
    (tmp_path / "results").write_text("".join(kept[:2]))
    assert run(*arguments).stdout == first.stdout
    (tmp_path / "a.jsonl").write_text('{"context": 1}\n')
    bad = run(*arguments)
    assert bad.returncode == 1 and b"a.jsonl, line 1" in bad.stderr and b"Traceback" not in bad.stderr
    assert (tmp_path / "results").read_text().splitlines(keepends=True)[:2] == kept[:2]


def test_two_files_of_one_name_are_two_files(tiny_dir: Path, tmp_path: Path) -> None:
    files = []
    for folder, context in (("one", "Mary sang."), ("other", "John sang of Mary and of a long night.")):
        (tmp_path / folder).mkdir()
        files.append(write(tmp_path / folder / "hotpotqa.jsonl", LONGBENCH | {"context": context}))
    keys = [bench_files.read(file)[1][0].key for file in files]
    assert keys[0] != keys[1] and all("hotpotqa.jsonl" in key for key in keys)
    arguments: list[str | Path] = ["eval", "bench-files", tiny_dir, "--out", tmp_path / "results"]
    first = run(*arguments, *files)
    assert first.returncode == 0, first.stderr
    kept = [json.loads(line) for line in (tmp_path / "results").read_text().splitlines()]
    assert [line["key"] for line in kept[1:]] == keys
    assert len({file["sha256"] for file in kept[0]["settings"]["files"]}) == 2
    other = run(*arguments, files[0])
    assert other.returncode == 1 and b"holds results with files" in other.stderr


def test_prompts_of_the_makers_can_be_given(tiny_dir: Path, tmp_path: Path) -> None:
    case = one(tmp_path / "a.jsonl", LONGBENCH, templates={"hotpotqa": "{input} <- {context}"})
    assert case.prompt.text == "Who sang? <- Mary sang {input}."
    for content in ("{", "[1]", '{"a": 1}'):
        (tmp_path / "prompts.json").write_text(content)
        result = run(
            "eval", "bench-files", tiny_dir, tmp_path / "a.jsonl", "--prompts", tmp_path / "prompts.json"
        )
        assert result.returncode == 1 and b"prompts.json" in result.stderr
