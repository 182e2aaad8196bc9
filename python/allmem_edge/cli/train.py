"""`allmem-edge train`: trains as a config file says."""

from __future__ import annotations

from pathlib import Path

import click

from allmem_edge.cli.needs_export import export_package


@click.command("train")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--resume", is_flag=True, help="Resume from the last checkpoint of this config.")
def command(config: Path, resume: bool) -> None:
    """Train as the TOML file CONFIG says (docs/distillation.md)."""
    with export_package():
        from allmem_export.train import train

        train(config, resume=resume)
