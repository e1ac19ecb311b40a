"""The command tree."""

from typing import Annotated

import typer

from bidtrie import __version__
from bidtrie.cli import catalog, compress, creative, evaluate, load, model, serve, target, tune

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="LLM targeting and ad creatives inside a bid's time budget.",
)
app.command("serve")(serve.serve)
app.command("target")(target.target)
app.command("creative")(creative.creative)
app.command("compress")(compress.compress)
app.command("tune")(tune.tune)
app.command("load")(load.load)
app.add_typer(catalog.app, name="catalog")
app.add_typer(model.app, name="model")
app.add_typer(evaluate.app, name="eval")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bidtrie {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """LLM targeting and ad creatives inside a bid's time budget."""
