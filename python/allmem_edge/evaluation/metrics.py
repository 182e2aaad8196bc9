"""How answers are scored, as the benchmarks' own scripts do it. Every score is between 0 and 1.

Written from the definitions; where a score needs a package that we do not ask for (jieba's words, the `rouge`
package's sentences), docs/evaluation.md says what stands in its place.
"""

from __future__ import annotations

import difflib
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence


def words_of(text: str) -> list[str]:
    """Lower case, without punctuation and articles: SQuAD's tokens."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def characters_of(text: str) -> list[str]:
    """Lower case, without punctuation and spaces: for Chinese."""
    return [c for c in text.lower() if not c.isspace() and unicodedata.category(c)[0] not in "PS"]


def is_chinese(text: str) -> bool:
    return sum("\u4e00" <= c <= "\u9fff" for c in text) * 3 > len(text)


def tokens_of(text: str, chinese: bool) -> list[str]:
    return characters_of(text) if chinese else words_of(text)


def overlap_f1(prediction: Sequence[str], answer: Sequence[str]) -> float:
    """F1 of two bags of tokens."""
    same = sum((Counter(prediction) & Counter(answer)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(prediction), same / len(answer)
    return 2 * precision * recall / (precision + recall)


def qa_f1(prediction: str, answer: str) -> float:
    """F1 of words; of characters where the answer is Chinese."""
    chinese = is_chinese(answer)
    return overlap_f1(tokens_of(prediction, chinese), tokens_of(answer, chinese))


def keyword_f1(prediction: str, answer: str, keywords: str | None) -> float:
    """LV-Eval's: 0 unless a fifth of the keywords occur (of Chinese, two fifths), else qa_f1."""
    chinese = is_chinese(answer)
    key = tokens_of(keywords or (answer if chinese else ""), chinese)
    if key:
        said = Counter(tokens_of(prediction, chinese))
        found = sum((said & Counter(key)).values())
        if found / len(key) < (0.4 if chinese else 0.2):
            return 0.0
    return qa_f1(prediction, answer)


def rouge_l(prediction: str, answer: str) -> float:
    """F1 by the longest common subsequence of words; of characters where the answer is Chinese."""
    chinese = is_chinese(answer)
    said, wanted = (
        characters_of(text) if chinese else re.findall(r"\w+", text.lower()) for text in (prediction, answer)
    )
    if not said or not wanted:
        return 0.0
    common = common_subsequence(said, wanted)
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall) if common else 0.0


def common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence; a file's answer may be long.

    The usual table, a row at a time in the bits of an integer: bit j is 0 where its row grows by one at
    column j, and adding carries a match over the columns that do not (Hyyrö 2004, "Bit-parallel LCS-length
    computation revisited"). Tokens that only one of the two has are no part of it, and take no memory.
    """
    shared = set(one) & set(other)
    one, other = ([token for token in tokens if token in shared] for tokens in (one, other))
    places: dict[str, int] = {}
    for j, token in enumerate(other):
        places[token] = places.get(token, 0) | 1 << j
    columns = (1 << len(other)) - 1
    row = columns
    for token in one:
        matches = row & places.get(token, 0)
        row = ((row + matches) | (row - matches)) & columns
    return len(other) - row.bit_count()


def classification(prediction: str, answer: str, classes: Sequence[str]) -> float:
    """One over how many classes are named, if the answer's is among them; parts of its name do not count."""
    named = [name for name in classes if name in prediction]
    named = [name for name in named if name == answer or name not in answer]
    return 1 / len(named) if answer in named else 0.0


def code_similarity(prediction: str, answer: str) -> float:
    """How alike the first line of code is to the answer: twice what matches over all characters."""
    lines = (line for line in prediction.lstrip("\n").split("\n"))
    code = next((line for line in lines if not any(mark in line for mark in ("`", "#", "//"))), "")
    if 400 * len(code) < len(answer):  # at most half a per cent: rounded, 0
        return 0.0
    return round(100 * difflib.SequenceMatcher(None, code, answer, autojunk=False).ratio()) / 100


def _share_of_numbers(prediction: str, right: str) -> float:
    numbers = re.findall(r"\d+", prediction)
    return sum(number == right for number in numbers) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, answer: str) -> float:
    """The share of the numbers said that are the paragraph's: "Paragraph 7", or the Chinese for it."""
    wanted = re.search(r"(\d+)", answer)
    return _share_of_numbers(prediction, wanted.group(1)) if wanted else 0.0


def count(prediction: str, answer: str) -> float:
    """The share of the numbers said that are the answer."""
    return _share_of_numbers(prediction, answer.strip())


def choice(prediction: str, letters: str = "ABCD") -> str | None:
    """The letter that is chosen: "The correct answer is (B)", "(B)", "B.", or the first that stands alone.

    An "A" before a word in lower case is the article, unless that word cannot follow one: "A because ...".
    """
    text = prediction.replace("*", "").strip()
    for pattern in (
        rf"[Aa]nswer(?: is)?:? ?\(?([{letters}])\b",
        rf"[Oo]ption(?: is)?:? ?\(?([{letters}])\b",
        rf"\(([{letters}])\)",
        rf"^([{letters}])(?:[.:)]|\s*(?:\n|$))",
        rf"(?<![A-Za-z])(?!A (?!(?:because|since|is)\b)[a-z])([{letters}])(?![A-Za-z'])",
    ):
        if found := re.search(pattern, text):
            return found.group(1)
    return None


def strings_all(prediction: str, answers: Sequence[str]) -> float:
    """RULER's: the share of the answers that occur, whatever their case."""
    said = prediction.lower()
    return sum(answer.lower() in said for answer in answers) / len(answers)


def strings_any(prediction: str, answers: Sequence[str]) -> float:
    """RULER's for questions: 1 if any of the answers occurs, whatever its case."""
    said = prediction.lower()
    return float(any(answer.lower() in said for answer in answers))


def best(metric: Callable[[str, str], float], prediction: str, answers: Sequence[str]) -> float:
    """The best over several answers that are all right."""
    return max((metric(prediction, answer) for answer in answers), default=0.0)


def mean_and_error(scores: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error; 0 for a single score."""
    n = len(scores)
    mean = sum(scores) / n
    variance = sum((score - mean) ** 2 for score in scores) / (n - 1) if n > 1 else 0.0
    return mean, (variance / n) ** 0.5
