"""Runs clang-tidy on the files of csrc that a change concerns: `tests/clang_tidy.py [--all] BUILD`.

Concerned is what was changed, or includes what was changed, since the branch left origin's main;
on that branch itself, since the commit before. Without git's history, and with --all, it is every file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = ["--quiet", "--warnings-as-errors=*"]
# The build's compiler may be GCC, whose warnings clang does not all know.
OPTIONS += [
    f"--extra-arg=-Wno-{name}" for name in ("unknown-warning-option", "ignored-optimization-argument")
]


def git(*arguments: str) -> str | None:
    """What git prints, or None where it fails."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def changed_files() -> set[Path] | None:
    """What differs from where the change began; None where that is not known."""
    head = git("rev-parse", "HEAD")
    start = git("merge-base", "HEAD", "origin/main")
    if start is None or start == head:
        start = git("rev-parse", "HEAD~1")
    if start is None:
        return None
    names = (
        (git("diff", "--name-only", start) or "")
        + "\n"
        + (git("ls-files", "--others", "--exclude-standard") or "")
    )
    return {ROOT / name for name in names.splitlines() if name}


def includes(build: Path) -> dict[Path, set[Path]]:
    """Source file of csrc -> it and all that it includes, as ninja noted when it was compiled."""
    listed = subprocess.run(
        ["ninja", "-C", str(build), "-t", "deps"], capture_output=True, text=True, check=True
    )
    found: dict[Path, set[Path]] = {}
    for entry in listed.stdout.split("\n\n"):  # the object, then a file a line, the source first
        files = [Path(os.path.normpath(build / line.strip())) for line in entry.strip().splitlines()[1:]]
        if files and files[0].is_relative_to(ROOT / "csrc"):
            found.setdefault(files[0], set()).update(files)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="Check every file of csrc.")
    parser.add_argument("build", type=Path, help="A build directory of ninja, built.")
    arguments = parser.parse_args()
    build = arguments.build.resolve()
    compiled_from = includes(build)
    changed = None if arguments.all else changed_files()
    if changed is None or changed & {ROOT / ".clang-tidy", Path(__file__).resolve()}:
        sources = list(compiled_from)
    else:
        sources = [source for source, files in compiled_from.items() if files & changed]
    print(f"{len(sources)} of {len(compiled_from)} files of csrc")

    def check(file: Path) -> bool:
        done = subprocess.run(
            ["clang-tidy", "-p", str(build), *OPTIONS, str(file)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            print(done.stdout + done.stderr, flush=True)
        return done.returncode == 0

    with ThreadPoolExecutor(int(os.environ.get("JOBS") or os.cpu_count() or 1)) as threads:
        passed = list(threads.map(check, sorted(sources)))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
