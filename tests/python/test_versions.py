"""The version is the same wherever it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import allmem_edge as ae

ROOT = Path(__file__).parents[2]
MINOR = ".".join(ae.__version__.split(".")[:2])


@pytest.mark.parametrize(
    ("file", "before", "version"),
    [
        ("pyproject.toml", r'^version = "', ae.__version__),
        ("CMakeLists.txt", r"^project\(allmem VERSION ", ae.__version__),
        ("CITATION.cff", "^version: ", ae.__version__),
        ("CHANGELOG.md", "^## ", ae.__version__),  # the first heading
        ("examples/android/build.gradle.kts", r'^version = "', ae.__version__),
        ("examples/android/README.md", "org.allmem:allmem:", ae.__version__),
        ("docs/building.md", r"^find_package\(allmem ", MINOR),
    ],
)
def test_the_version_is_the_packages(file: str, before: str, version: str) -> None:
    found = re.search(rf"{before}([0-9.]*[0-9])", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert found and found[1] == version
