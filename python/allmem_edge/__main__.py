"""`python -m allmem_edge` is the command `allmem-edge`."""

from __future__ import annotations

from allmem_edge.cli import main

main()
