"""The commands that show what a configuration may hold. Heavy imports stay inside."""

from __future__ import annotations

import json

import typer

config_app = typer.Typer(help="Show every key of the configuration.", rich_markup_mode=None)


@config_app.command()
def base() -> None:
    """Print every key with its default and its comment: configs/base.yaml."""
    from nrccr.config.render import base_yaml
    from nrccr.systems.settings import config_type

    typer.echo(base_yaml(config_type()), nl=False)


@config_app.command()
def schema() -> None:
    """Print a JSON schema of configuration files, for editors."""
    from nrccr.config.render import json_schema
    from nrccr.systems.settings import config_type

    typer.echo(json.dumps(json_schema(config_type()), indent=2))
