"""LongBench (v1 and v2), InfiniteBench and LV-Eval from the JSONL files that their makers publish.

A file's lines become cases: a prompt, how it is asked, and a function that scores an answer as the benchmark
does. Prompts are worded here; the benchmark's own can be given instead (`templates`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allmem_edge.checksums import sha256_of
from allmem_edge.errors import StorageError
from allmem_edge.evaluation import metrics
from allmem_edge.evaluation.answering import Prompt
from allmem_edge.evaluation.journal import lines_of

SUITES = ("longbench", "longbench2", "infinitebench", "lveval")
_MAX_ANSWERS = 1 << 20  # characters of all that would be right for a question
Record = dict[str, Any]
Score = Callable[[str], float]


@dataclass(frozen=True)
class Case:
    """One question. `groups`: the rows of the report that it counts for."""

    key: str
    groups: tuple[str, ...]
    prompt: Prompt
    plain: bool  # never in the chat format: the text itself shows how to go on
    max_tokens: int
    score: Score


@dataclass(frozen=True)
class _Kind:
    """What LongBench's datasets have in common."""

    template: str
    metric: Callable[[str, str], float]
    max_tokens: int
    plain: bool = False
    first_line: bool = False


_QA = "{context}\n\nAnswer from the text above, as briefly as you can.\n\nQuestion: {input}\nAnswer:"
_QA_ZH = "{context}\n\n请根据以上内容简短回答问题。\n\n问题: {input}\n回答:"
_SUMMARY = "{context}\n\nSummarise the text above.\n\nSummary:"
_QUERY = (
    "{context}\n\nAnswer the question about the text above in some sentences.\n\nQuestion: {input}\nAnswer:"
)
_SHOTS = "{context}\n{input}"
_WHICH = (
    "Here are numbered paragraphs, and a summary of one of them.\n\n{context}\n\nSummary: {input}\n\n"
    'Which paragraph is it of? Answer as in "Paragraph 1".\n\nAnswer: '
)
_WHICH_ZH = (
    "以下是若干段落和其中一段的摘要。\n\n{context}\n\n摘要: {input}\n\n"
    '请回答摘要属于哪一段, 例如"段落1"。\n\n答案: '
)
_COUNT = (
    "Some of these numbered paragraphs are repeated.\n\n{context}\n\nHow many different ones are there? "
    "Answer with a number alone.\n\nAnswer: "
)
_CODE = "{context}{input}"

_LONGBENCH: dict[str, _Kind] = {
    "narrativeqa": _Kind(_QA, metrics.qa_f1, 128),
    "qasper": _Kind(_QA, metrics.qa_f1, 128),
    "multifieldqa_en": _Kind(_QA, metrics.qa_f1, 64),
    "multifieldqa_zh": _Kind(_QA_ZH, metrics.qa_f1, 64),
    "hotpotqa": _Kind(_QA, metrics.qa_f1, 32),
    "2wikimqa": _Kind(_QA, metrics.qa_f1, 32),
    "musique": _Kind(_QA, metrics.qa_f1, 32),
    "dureader": _Kind(_QA_ZH, metrics.rouge_l, 128),
    "gov_report": _Kind(_SUMMARY, metrics.rouge_l, 512),
    "qmsum": _Kind(_QUERY, metrics.rouge_l, 512),
    "multi_news": _Kind(_SUMMARY, metrics.rouge_l, 512),
    "vcsum": _Kind("{context}\n\n请总结以上内容。\n\n总结:", metrics.rouge_l, 512),
    "trec": _Kind(_SHOTS, metrics.qa_f1, 64, plain=True, first_line=True),
    "triviaqa": _Kind(_SHOTS, metrics.qa_f1, 32, plain=True, first_line=True),
    "samsum": _Kind(_SHOTS, metrics.rouge_l, 128, plain=True, first_line=True),
    "lsht": _Kind(_SHOTS, metrics.qa_f1, 64, plain=True, first_line=True),
    "passage_count": _Kind(_COUNT, metrics.count, 32),
    "passage_retrieval_en": _Kind(_WHICH, metrics.retrieval, 32),
    "passage_retrieval_zh": _Kind(_WHICH_ZH, metrics.retrieval, 32),
    "lcc": _Kind(_CODE, metrics.code_similarity, 64, plain=True),
    "repobench-p": _Kind(_CODE, metrics.code_similarity, 64, plain=True),
}
_CLASSES = ("trec", "lsht")  # scored by the classes that an answer names

_INFINITE: dict[str, tuple[str, int]] = {
    "passkey": ("{context}\n\n{input}\n\nThe pass key is", 6),
    "number_string": ("{context}\n\n{input}\n\nThe sequence of digits is", 12),
    "kv_retrieval": ("{context}\n\n{input}", 50),
    "longdialogue_qa_eng": ("{context}\n\nWhose name stands where $$MASK$$ is? Answer with it alone.", 40),
    "longbook_qa_eng": (_QA, 40),
    "longbook_qa_chn": (_QA_ZH, 40),
    "longbook_sum_eng": (_SUMMARY, 1200),
    "longbook_choice_eng": (
        "{context}\n\nQuestion: {input}\n\n{options}\n\nThe letter of the right answer is",
        40,
    ),
    "code_debug": ("{context}\n\n{input}\n\n{options}\n\nThe letter of the right answer is", 5),
    "code_run": ("{context}\n\n{input}\n\nThe value is", 5),
    "math_find": ("{context}\n\n{input}\n\nAnswer with a number alone:", 3),
    "math_calc": ("{context}\n\n{input}\n\nThe results, separated by commas:", 30_000),
}


def read(
    path: Path, *, suite: str | None = None, templates: Mapping[str, str] | None = None
) -> tuple[str, list[Case]]:
    """The suite that a file is of, and its cases.

    suite: one of SUITES, else as the first line's fields tell. templates: by dataset, with {context} and
    {input}, instead of ours. Raises ModelNotFoundError for no such file, and StorageError with the line for
    what is no sample.
    """
    found = lines_of(path)
    suite = suite or _suite_of(path, found[0][1])
    make = {
        "longbench": _longbench,
        "longbench2": _longbench2,
        "infinitebench": _infinitebench,
        "lveval": _lveval,
    }[suite]
    file = f"{path.name} {sha256_of(path)[:16]}"  # two files may have one name
    cases = []
    for number, record in found:
        try:
            cases.append(make(path, f"{file} {number}", record, templates or {}))
        except _BadSampleError as error:
            raise StorageError(f"{path}, line {number}: {error}.") from error
    return suite, cases


class _BadSampleError(ValueError):
    """What a line lacks."""


def _suite_of(path: Path, record: Record) -> str:
    if "choice_A" in record:
        return "longbench2"
    if "answer_keywords" in record or "confusing_facts" in record:
        return "lveval"
    if "all_classes" in record or "answers" in record:
        return "longbench"
    if "answer" in record and path.stem in _INFINITE:
        return "infinitebench"
    raise StorageError(
        f"{path}, line 1: not a sample of LongBench, InfiniteBench or LV-Eval by its fields; --suite says "
        "which."
    )


def _text(record: Record, name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise _BadSampleError(f"the text '{name}' is missing")
    return value


def _texts(record: Record, name: str) -> list[str]:
    value = record.get(name)
    values = value if isinstance(value, list) else [value]
    texts = [str(item) for item in values if isinstance(item, (str, int, float)) and str(item).strip()]
    if not texts or len(texts) != len(values):
        raise _BadSampleError(f"'{name}' has no answer, or an empty one")
    if sum(map(len, texts)) > _MAX_ANSWERS:
        raise _BadSampleError(f"'{name}' has more than {_MAX_ANSWERS:,} characters, which no answer has")
    return texts


def _dataset(path: Path, record: Record) -> str:
    """By its own name, or by that of the file."""
    name = record.get("dataset") or path.stem
    if not isinstance(name, str):
        raise _BadSampleError(f"the dataset {name!r} is no name")
    return name


def _fill(template: str, record: Record) -> str:
    """The template with the record's texts in it: in one pass, so that braces in them stay what they are."""
    return re.sub(r"\{(context|input|options)\}", lambda m: str(record.get(m.group(1), "")), template)


def _longbench(path: Path, key: str, record: Record, templates: Mapping[str, str]) -> Case:
    dataset = re.sub(r"_e$", "", _dataset(path, record))
    kind = _LONGBENCH.get(dataset)
    if kind is None:
        raise _BadSampleError(f"the dataset {dataset!r} is none of LongBench's")
    _text(record, "context"), _text(record, "input")
    answers = _texts(record, "answers")
    classes: Sequence[str] = ()
    if dataset in _CLASSES:
        classes = _texts(record, "all_classes")

    def score(answer: str) -> float:
        if kind.first_line:
            answer = answer.lstrip("\n").split("\n")[0]
        if classes:
            return max(metrics.classification(answer, right, classes) for right in answers)
        return metrics.best(kind.metric, answer, answers)

    prompt = Prompt(_fill(templates.get(dataset, kind.template), record))
    return Case(key, (dataset,), prompt, kind.plain, kind.max_tokens, score)


def _longbench2(path: Path, key: str, record: Record, templates: Mapping[str, str]) -> Case:
    letter = _text(record, "answer").strip()
    if letter not in ("A", "B", "C", "D"):
        raise _BadSampleError(f"the answer {letter!r} is none of A, B, C and D")
    options = "\n".join(f"({c}) {_text(record, f'choice_{c}').strip()}" for c in "ABCD")
    template = templates.get(
        "longbench2",
        "{context}\n\nChoose the right answer to a question about the text above.\n\nQuestion: {input}\n"
        "{options}"
        '\n\nAnswer as in "The correct answer is (A)".',
    )
    filled = {"context": _text(record, "context"), "input": _text(record, "question"), "options": options}
    groups = ["all", *(str(record[name]) for name in ("difficulty", "length") if name in record)]
    return Case(
        key,
        tuple(groups),
        Prompt(_fill(template, filled)),
        plain=False,
        max_tokens=128,
        score=lambda answer: float(metrics.choice(answer) == letter),
    )


def _lveval(path: Path, key: str, record: Record, templates: Mapping[str, str]) -> Case:
    dataset = _dataset(path, record)
    base = re.sub(r"_\d+k$", "", dataset)
    answers = _texts(record, "answers")
    keywords = record.get("answer_keywords")
    keywords = keywords if isinstance(keywords, str) and keywords.strip() else None
    chinese = record.get("language") == "zh" or metrics.is_chinese(answers[0])

    def score(answer: str) -> float:
        if "factrecall" in base:
            return max(_recall(answer, right, chinese) for right in answers)
        if "dureader" in base:
            return metrics.best(metrics.rouge_l, answer, answers)
        return max(metrics.keyword_f1(answer, right, keywords) for right in answers)

    _text(record, "context"), _text(record, "input")
    template = templates.get(base, templates.get(dataset, _QA_ZH if chinese else _QA))
    return Case(key, (dataset,), Prompt(_fill(template, record)), False, 64, score)


def _recall(answer: str, right: str, chinese: bool) -> float:
    wanted = metrics.tokens_of(right, chinese)
    same = sum((Counter(metrics.tokens_of(answer, chinese)) & Counter(wanted)).values())
    return same / len(wanted) if wanted else 0.0


def _infinitebench(path: Path, key: str, record: Record, templates: Mapping[str, str]) -> Case:
    task = path.stem
    if task not in _INFINITE:
        raise _BadSampleError(
            f"the file's name {path.name} is none of InfiniteBench's ({', '.join(_INFINITE)})"
        )
    template, max_tokens = _INFINITE[task]
    answers = _texts(record, "answer")
    if task == "math_find" and _number(answers[0]) is None:
        raise _BadSampleError(f"the answer {answers[0]!r} is no number")
    filled = {"context": _text(record, "context"), "input": _text(record, "input")}
    letters = ""
    if task in ("longbook_choice_eng", "code_debug"):
        options = _texts(record, "options")
        filled["options"] = "\n".join(f"{chr(65 + i)}. {option}" for i, option in enumerate(options))
        letters = "".join(chr(65 + options.index(answer)) for answer in answers if answer in options)
        if not letters:
            raise _BadSampleError("the answer is none of the options")

    def score(answer: str) -> float:
        return _infinite_score(task, answer, answers, letters)

    prompt = Prompt(_fill(templates.get(task, template), filled))
    return Case(key, (task,), prompt, False, max_tokens, score)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _infinite_score(task: str, answer: str, answers: Sequence[str], letters: str) -> float:
    numbers = re.findall(r"\d+", answer)
    if task in ("passkey", "number_string"):
        return float(bool(numbers) and numbers[0] == answers[0])
    if task == "kv_retrieval":
        return float(answers[0] in re.sub(r"[\n:\"'.,?!{}]", " ", answer).split())
    if task == "longdialogue_qa_eng":
        said = re.sub(r"[\n:\"'.,?!{}]", " ", answer).upper().split()
        return float(any(name.upper() in said for name in answers))
    if letters:
        right = metrics.choice(answer) in set(letters)
        return float(right or (task == "code_debug" and answers[0] in answer))
    if task == "longbook_sum_eng":
        return metrics.best(metrics.rouge_l, answer, answers)
    if task == "code_run":
        said = re.sub(r"[\n.`'\":]", " ", answer).split()
        return float(bool(said) and said[-1] == answers[0])
    if task == "math_find":
        first = re.search(r"\d+(?:\.\d+)?", answer)
        return float(first is not None and float(first.group()) == _number(answers[0]))
    if task == "math_calc":
        begin = 0
        while begin < min(len(numbers), len(answers)) and numbers[begin] == answers[begin]:
            begin += 1
        return begin / len(answers)
    return metrics.best(metrics.qa_f1, answer, answers)
