"""How the modules of both packages import each other."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {"allmem_edge": ROOT / "python", "allmem_export": ROOT / "export"}


def _modules() -> dict[str, Path]:
    """Every module by its dotted name; a package's own is its __init__.py."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package, root in PACKAGES.items()
        for path in (root / package).rglob("*.py*")
        if path.suffix in (".py", ".pyi")
    }


def _imported(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that a module imports: anywhere, also inside functions and for types alone."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.add(inner if inner in known else source)
    return found & known.keys()


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = _modules()
    assert {"allmem_edge.model", "allmem_export.train"} <= known.keys()
    graph = {name: _imported(name, path, known) for name, path in known.items()}
    assert {"allmem_edge.session", "allmem_edge.chat"} <= graph["allmem_edge.model"]  # they are seen at all
    assert "allmem_export.task" in graph["allmem_export.train"]
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


def test_the_package_does_without_what_needs_pytorch() -> None:
    known = _modules()
    for name, path in known.items():
        if name.startswith("allmem_edge.") and not name.startswith("allmem_edge.cli."):
            wrong = {other for other in _imported(name, path, known) if other.startswith("allmem_export")}
            assert not wrong, f"{name} imports {wrong}"
