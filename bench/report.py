"""Puts what was measured into docs/performance-log.md and docs/performance.md, whose picture it draws.

    python bench/report.py docs/performance*.json docs/rivals.json

The files are those that `against_llama_cpp.py --json` wrote, and `rivals.py --json`. What they say replaces
the text between the markers <!-- PLACE --> and <!-- /PLACE --> of a page: in the log the table of
docs/performance.json goes to "comparison", that of docs/performance-NAME.json to "comparison NAME"; those of
docs/rivals.json go to "rivals" in docs/performance.md. The bounds and the picture are those of
docs/performance.json, but for the bytes of our state, which are those of docs/rivals.json if it is given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from allmem_edge.cost import Cost, Machine, share_of_full_attention
from plot import picture
from rivals import LIKE, WINDOWS, tables
from table import cost_of, markdown, table

DOCS = Path(__file__).parent.parent / "docs"
DEPTH = 131_072


def replaced(page: str, name: str, body: str) -> str:
    """The page with another text between the markers."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"The page has no {begin.strip()} … {end}.")
    return f"{before}{begin}\n{body}\n\n{end}{after}"


def comparison(report: dict[str, Any]) -> str:
    """The table, and under which conditions it holds."""
    machine, arguments = report["machine"], report["arguments"]
    systems = {
        side["load"]["system"].strip(" |"): side["load"].get("version", "")
        for name, side in report["sides"].items()
        if name != "ours"
    }
    versions = " and ".join(sorted({f"llama-cpp-python {version}" for version in systems.values()}))
    features = "; ".join(f"`{system}`" for system in systems)
    compilers = {side["load"].get("compiler") for side in report["sides"].values()} - {None}
    if compilers:
        features += f"; compiled by {' and '.join(sorted(compilers))}"
    speed = report["machine_speed"]
    return (
        f"{machine['date']}, {machine['cpu']}, cores {arguments['cores']} of {machine['cores']}, "
        f"{arguments['threads']} threads, median of {arguments['repeat']}, "
        f"load {machine['load_before']:.1f} before. "
        f"allmem-edge: {report['sides']['ours']['load']['system']}. {versions}: {features}. "
        f"The machine reads {speed['read_bytes'] / 1e9:.1f} GB/s; our kernels do at most "
        f"{speed['integer'] / 1e9:.0f} billion operations/s on 8 bits and {speed['floating'] / 1e9:.0f} on "
        f"float32.\n\n{markdown(table(report))}"
    )


def bounds(report: dict[str, Any]) -> str:
    """Operations and bytes of a token with a full window, part by part."""
    cost, machine = cost_of(report), Machine(**report["machine_speed"])
    tokens = report["arguments"]["read_tokens"]
    parts = {
        "projections, MLPs": (cost.layers(1), cost.layers(tokens)),
        "vocabulary (its bytes are above)": (cost.logits(), cost.logits()),
        "window attention": (
            cost.attention(1, DEPTH, together=False),
            cost.attention(tokens, DEPTH, together=True),
        ),
        "memory": (cost.memory(1, DEPTH, together=False), cost.memory(tokens, DEPTH, together=True)),
        "**all**": (cost.decode(DEPTH), cost.prefill(tokens, DEPTH)),
    }
    lines = [
        f"| | a token: operations | bytes | at least | prompt of {tokens}: operations | bytes | at least |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, (one, many) in parts.items():
        cells = [
            f"{one.operations / 1e6:,.0f} M",
            f"{one.bytes / 1e6:,.1f} MB",
            f"{machine.bound(one)[0] * 1e3:.2f} ms",
            f"{many.operations / 1e9:,.0f} G",
            f"{many.bytes / 1e6:,.0f} MB",
            f"{machine.bound(many)[0] * 1e3:,.0f} ms",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def full_attention(cost: Cost) -> str:
    """The cost of a long context to full attention's."""
    share = share_of_full_attention(cost, DEPTH)
    return "\n".join(
        [
            f"| at {DEPTH:,} tokens, to full attention in this runtime | |",
            "|---|---|",
            f"| operations of the next token | {share['token_operations']:.1%} |",
            f"| bytes of the next token | {share['token_bytes']:.1%} |",
            f"| operations of prefilling all of them | {share['prefill_operations']:.1%} |",
            f"| bytes of decoding all of them | {share['decode_bytes']:.1%} |",
        ]
    )


def main() -> None:
    paths = {name: DOCS / f"{name}.md" for name in ("performance", "performance-log")}
    pages = {name: path.read_text(encoding="utf-8") for name, path in paths.items()}
    reports = {path: json.loads(path.read_text()) for path in map(Path, sys.argv[1:])}
    state = None  # of ours, in bytes: no machine changes it, so the picture has the newest
    for path in [path for path in reports if path.stem == "rivals"]:
        rivals = reports.pop(path)
        pages["performance"] = replaced(pages["performance"], "rivals", tables(rivals))
        state = rivals["models"][f"{LIKE}, window {WINDOWS[0]}"]["state_bytes"]
    for path, report in reports.items():
        name = path.stem.replace("performance", "comparison").replace("-", " ")
        bodies = {name: comparison(report)}
        if name == "comparison":
            bodies |= {"bounds": bounds(report), "full attention": full_attention(cost_of(report))}
            (DOCS / "performance.svg").write_text(picture(report, state), encoding="utf-8")
        for place, body in bodies.items():
            pages["performance-log"] = replaced(pages["performance-log"], place, body)
    for name, path in paths.items():
        path.write_text(pages[name], encoding="utf-8")


if __name__ == "__main__":
    main()
