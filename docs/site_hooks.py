"""What `make docs` does to the pages on their way (hooks of mkdocs).

README.md becomes the first page, and links out of docs/ become names of files, as the sources are not part of
the site. A link to what is not there is a warning.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")
log = logging.getLogger("mkdocs.plugins.allmem")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites the links of one page."""
    first = page.file.src_path == "index.md"
    if first:
        markdown = (ROOT / "README.md").read_text(encoding="utf-8")
    here = ROOT if first else ROOT / "docs"

    def rewrite(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = (here / target).resolve()
        if not path.exists():
            log.warning("%s links to %s, which does not exist", page.file.src_path, target)
        if path.is_relative_to(ROOT / "docs"):
            return f"[{text}]({path.relative_to(ROOT / 'docs').as_posix()}{anchor})"
        name = path.relative_to(ROOT).as_posix()
        return f"`{name}`" if text.strip("`") in (name, Path(name).name, target) else f"{text} (`{name}`)"

    return LINK.sub(rewrite, markdown)
