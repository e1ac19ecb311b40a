"""`bidtrie serve`. Its flags are made from `Settings`, so that help and defaults cannot differ from what holds."""

import asyncio
import inspect
import logging
import sys
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from rich.markup import escape

from bidtrie.errors import BidtrieError
from bidtrie.settings import Settings, default_of, is_list, load_settings, split_list

logger = logging.getLogger(__name__)


def serve(config: Path | None, **flags: Any) -> None:
    """Serve targeting and creatives over gRPC, with metrics and health over HTTP.

    Settings come from --config, then BIDTRIE_… environment variables, then flags; later wins. What keeps the server
    from starting is a log line of level error, and the exit code 1; wrong settings are told in plain text, exit code 2.

    Example: bidtrie serve --catalogs iab-content --threads 2
    """
    for name, value in flags.items():
        if is_list(name) and value is not None:
            flags[name] = split_list(value)

    import uvloop

    from bidtrie.cli.start_checks import check_start
    from bidtrie.server.deadline import Budget
    from bidtrie.server.logs import configure_logging
    from bidtrie.server.metrics import Metrics
    from bidtrie.server.serve import ServerOptions
    from bidtrie.server.serve import serve as run
    from bidtrie.serving.runtime import Runtime

    settings = load_settings(config, flags=flags)
    # The engines' thread and the event loop take turns: 5 ms, Python's default, is longer than most steps.
    sys.setswitchinterval(0.0005)
    configure_logging(settings.log_level)
    metrics = Metrics()
    options = ServerOptions(
        host=settings.host,
        grpc_port=settings.grpc_port,
        http_port=settings.http_port,
        max_message_bytes=settings.max_message_bytes,
        drain_seconds=settings.drain_seconds,
        admin=settings.admin,
        budget=Budget(
            tmax_share=settings.tmax_share,
            network_margin_s=settings.network_margin_ms / 1000,
            max_s=settings.max_budget_ms / 1000,
        ),
    )
    try:
        check_start(settings)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(options, lambda: Runtime(settings, metrics), metrics))
    except BidtrieError as error:
        # Whoever runs a server reads its log: the reason must not be the one line in it that is not JSON.
        logger.error("cannot start", extra={"reason": str(error)})
        raise typer.Exit(1) from error


def _flag(name: str) -> inspect.Parameter:
    """A setting as a flag that is None unless it is given; `load_settings` checks the value."""
    field = Settings.model_fields[name]
    members = [each for each in get_args(field.annotation) if each is not NoneType]
    kind, metavar = field.annotation, None
    if is_list(name):
        kind, metavar = str, "NAME,NAME"
    elif choices := _choices(field.annotation):
        kind, metavar = str, "|".join(choices)
    elif members:
        (kind,) = members
    help_text = escape(f"{field.description} [default: {default_of(name)}]")
    option = typer.Option(help=help_text, metavar=metavar, show_default=False)
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _choices(annotation: Any) -> tuple[str, ...]:
    """The texts of a Literal, or of one that may be None; () for other types."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for each in get_args(annotation) if (found := _choices(each))), ())


_config = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option(
            help="TOML file of settings, at its top level; environment and flags go before it.",
            show_default=False,
        ),
    ],
)
# What typer reads.
serve.__signature__ = inspect.Signature([_config, *map(_flag, Settings.model_fields)])  # type: ignore[attr-defined]
