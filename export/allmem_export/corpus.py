"""Text to train and to measure on: the English documentation in Debian's packages.

    python -m allmem_export.corpus --out runs/corpus

fetches the packages with `apt-get download` on Debian 12, whose packages have these names (nothing is
installed), takes the text out of their HTML, text and POD files and writes it as one JSON line per document:
{"source", "path", "text"}. train.jsonl and held_out.jsonl are split by a hash of the path, so that a document
is on the same side wherever it is made. Both appear when all is written. Nothing of it is committed.
"""

from __future__ import annotations

import gzip
import html.parser
import json
import re
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import click
from rich.progress import track

from allmem_edge.dialogues.values import words
from allmem_edge.errors import AllMemError

PACKAGES = (  # and how many million characters are taken of each
    ("python3.11-doc", 9.0),
    ("postgresql-doc-15", 8.0),
    ("perl-doc", 7.0),
    ("git-doc", 3.0),
    ("debian-handbook", 2.5),
    ("debian-policy", 1.0),
    ("debian-reference-en", 1.0),
    ("developers-reference", 1.0),
    ("linux-doc-6.1", 6.0),
    ("apache2-doc", 3.0),
    ("sqlite3-doc", 5.0),
    ("bash-doc", 1.0),
)
LANGUAGES = re.compile(r"/(?!en)[a-z]{2}(-[A-Za-z]{2,4})?/|\.(de|es|fr|ja|ko|tr|zh-cn|pt-br|da)\.")
HELD_OUT_IN = 20  # one document of this many is held out


class _Text(html.parser.HTMLParser):
    """The visible text of a page; what leads around the site is left out."""

    HIDDEN = frozenset(("script", "style", "nav", "head", "header", "footer", "button"))
    BLOCKS = frozenset(
        words("p div section article h1 h2 h3 h4 h5 h6 li ul ol dl dt dd pre table tr br blockquote")
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        classes = dict(attrs).get("class") or ""
        menu = tag == "div" and re.search(r"sphinxsidebar|related|navheader|navfooter", classes)
        if tag in self.HIDDEN or menu or (self._hidden and tag == "div"):
            self._hidden += 1
        if tag == "pre":
            self._verbatim += 1
        if tag in self.BLOCKS:
            self.parts.append("\n" if tag in ("li", "dt", "dd", "tr", "br") else "\n\n")

    def handle_endtag(self, tag: str) -> None:
        if self._hidden and (tag in self.HIDDEN or tag == "div"):
            self._hidden -= 1
        if tag == "pre":
            self._verbatim = max(0, self._verbatim - 1)
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data if self._verbatim else re.sub(r"\s+", " ", data))


def plain_text(name: str, raw: bytes) -> str:
    """The text of a file by its name: HTML without tags, POD without commands, anything else as it is."""
    text = raw.decode("utf-8", errors="ignore")
    if ".html" in name:
        parser = _Text()
        parser.feed(text)
        text = "".join(parser.parts)
    elif name.endswith(".pod"):
        text = re.sub(r"(?m)^=\w+ ?", "", text)
        text = re.sub(r"[BCFILSX]<+ ?(.*?) ?>+", r"\1", text)
    text = re.sub(r"[ \t]+\n", "\n", text.replace("¶", ""))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def documents(root: Path, source: str, limit: int) -> Iterator[dict[str, str]]:
    """The documents under `root`, about `limit` characters of them, in an order by their paths alone."""
    files = [f for f in root.rglob("*") if f.is_file() and not f.is_symlink()]
    taken = 0
    seen: set[int | str] = set()
    for file in sorted(files, key=lambda f: zlib.crc32(str(f.relative_to(root)).encode())):
        path = str(file.relative_to(root))
        name = path.removesuffix(".gz")
        if not re.search(r"\.(html(\.en)?|txt|rst|pod)$", name) or LANGUAGES.search("/" + name):
            continue
        if re.search(r"genindex|bookindex|changelog|copyright|/_?sources?/|index-", name, re.I):
            continue
        stem = page(name)  # one of a page's forms: git-clone.html, git-clone.txt
        if stem in seen:
            continue
        raw = file.read_bytes()
        text = plain_text(name, gzip.decompress(raw) if path.endswith(".gz") else raw)
        start = zlib.crc32(text[:1000].encode())
        if len(text) < 1000 or start in seen or sum(c.isalpha() for c in text) < 0.6 * len(text):
            continue
        seen |= {start, stem}
        taken += len(text)
        yield {"source": source, "path": path, "text": text}
        if taken > limit:
            return


def page(path: str) -> str:
    """What a path names, whatever the form: the same for git-clone.html and git-clone.txt."""
    return re.sub(r"(\.[a-z]+)+$", "", path)


def is_held_out(path: str) -> bool:
    """Whether a document is never trained on."""
    return zlib.crc32(("held out " + page(path)).encode()) % HELD_OUT_IN == 0


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Directory to write to.")
def main(out: Path) -> None:
    """Fetches Debian 12's documentation and writes train.jsonl and held_out.jsonl."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        folder = Path(scratch)
        with (
            (folder / "train.jsonl").open("w", encoding="utf-8") as train,
            (folder / "held_out.jsonl").open("w", encoding="utf-8") as held_out,
        ):
            for package, millions in track(PACKAGES, "corpus"):
                for document in documents(_fetched(package, folder), package, int(millions * 1e6)):
                    file = held_out if is_held_out(document["path"]) else train
                    file.write(json.dumps(document, ensure_ascii=False) + "\n")
        for name in ("held_out.jsonl", "train.jsonl"):  # a part of it must not pass for all
            (folder / name).replace(out / name)


def _fetched(package: str, folder: Path) -> Path:
    """Downloads a package into `folder`. -> Its files there. Raises AllMemError."""
    try:
        subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True, capture_output=True)
        deb = next(folder.glob(f"{package}_*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(deb), str(folder / package)], check=True)
    except (OSError, subprocess.CalledProcessError, StopIteration) as error:
        raise AllMemError(
            f"Debian 12's package {package} could not be fetched: {error}. Other systems name it otherwise."
        ) from error
    return folder / package


if __name__ == "__main__":
    main()
