"""Prints what pyproject.toml requires: to build, to run, and for the extras given.

pip install $(python tests/requirements.py test dev)
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib
project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
requirements = project["build-system"]["requires"] + project["project"]["dependencies"]
for extra in sys.argv[1:]:
    requirements += project["project"]["optional-dependencies"][extra]
print(*(requirement.replace(" ", "") for requirement in requirements))
