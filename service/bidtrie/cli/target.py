"""`bidtrie target`."""

from pathlib import Path
from typing import Annotated

import typer

from bidtrie.errors import InvalidInput
from bidtrie.requests import Ranker, Search


def target(
    title: Annotated[str, typer.Option(help="Title of the page.")] = "",
    description: Annotated[str, typer.Option(help="Summary or first lines.")] = "",
    keywords: Annotated[str, typer.Option(help="Keywords, comma-separated.")] = "",
    app_name: Annotated[str, typer.Option(help="Name of the app.")] = "",
    bid_request: Annotated[
        Path | None, typer.Option(help="An OpenRTB BidRequest as JSON, instead of the fields above.")
    ] = None,
    catalog: Annotated[str, typer.Option(help="Catalog; the server's default without it.")] = "",
    top_k: Annotated[int, typer.Option(help="Segments to return, 1 to 50.")] = 3,
    ranker: Annotated[Ranker, typer.Option(help="Who ranks.")] = Ranker.AUTO,
    search: Annotated[
        Search | None,
        typer.Option(help="How the model's ranking is searched for; the server's default without it."),
    ] = None,
    beam_width: Annotated[
        int | None, typer.Option(help="Prefixes that go on at each level, 1 to 64; makes the search a beam.")
    ] = None,
    candidates: Annotated[str, typer.Option(help="Rank only these segment ids, comma-separated.")] = "",
    blocked: Annotated[str, typer.Option(help="Segment ids not to return, comma-separated.")] = "",
    timeout_ms: Annotated[float, typer.Option(min=1, help="Deadline of the call.")] = 10_000,
    address: Annotated[str, typer.Option("--target", help="HOST:PORT of the server.")] = "127.0.0.1:50051",
    json_only: Annotated[bool, typer.Option("--json", help="Print the response as one JSON object.")] = False,
) -> None:
    """Ask a running server which segments fit a page.

    Example: bidtrie target --title "Sourdough for beginners" --catalog iab-content --top-k 3 --json
    """
    from google.protobuf import json_format
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from bidtrie.cli.answer_notes import answer_notes
    from bidtrie.client import Client
    from bidtrie.openrtb.v2 import openrtb_pb2
    from bidtrie.v1 import common_pb2

    message = None
    if bid_request is not None:
        if title or description or keywords or app_name:
            raise InvalidInput.of(
                "--bid-request", "stands instead of --title, --description, --keywords, --app-name"
            )
        try:
            text = bid_request.read_text(encoding="utf-8")
            message = openrtb_pb2.BidRequest()
            json_format.Parse(text, message, ignore_unknown_fields=True)
        except OSError as error:
            raise InvalidInput.of("--bid-request", f"{bid_request}: {error.strerror}") from error
        except (UnicodeDecodeError, json_format.ParseError) as error:
            raise InvalidInput.of(
                "--bid-request", f"is not an OpenRTB BidRequest in JSON: {error}"
            ) from error
    with Client(address) as client:
        response = client.target(
            title=title,
            description=description,
            keywords=_listed(keywords),
            app_name=app_name,
            bid_request=message,
            catalog=catalog,
            top_k=top_k,
            ranker=ranker,
            search="unspecified" if search is None else search,
            beam_width=beam_width,
            candidates=_listed(candidates),
            blocked=_listed(blocked),
            timeout_ms=timeout_ms,
        )
    if json_only:
        print(json_format.MessageToJson(response, preserving_proto_field_name=True, indent=None))
        return
    table = Table("score", "id", "segment")
    for segment in response.segments:
        table.add_row(f"{segment.score:.2f}", escape(segment.id), escape(" > ".join(segment.path)))
    console = Console()
    console.print(table)
    timings = response.timings
    partial, fallback = "time ran out before the search was done", "the model had no time"
    for note in answer_notes(response, partial=partial, fallback=fallback):
        console.print(note)
    console.print(
        f"{common_pb2.Source.Name(response.source)}, {timings.total_ms:.1f} ms, "
        f"{timings.steps} steps, {timings.nodes} nodes"
    )


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]
