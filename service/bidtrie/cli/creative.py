"""`bidtrie creative`."""

from typing import Annotated

import typer

from bidtrie.errors import InvalidInput


def creative(
    name: Annotated[
        str, typer.Option(help="Name of the product or service; this or --description is required.")
    ] = "",
    company: Annotated[str, typer.Option(help="Brand or company.")] = "",
    industry: Annotated[str, typer.Option(help="Industry or product category.")] = "",
    description: Annotated[str, typer.Option(help="What it is and why it is good.")] = "",
    offer: Annotated[list[str] | None, typer.Option(help="An offer as it may be quoted; repeatable.")] = None,
    audience: Annotated[list[str] | None, typer.Option(help="Whom the ad addresses; repeatable.")] = None,
    slot: Annotated[
        list[str] | None,
        typer.Option(help="TYPE[:CHARACTERS], type headline, description or native_title; repeatable."),
    ] = None,
    candidates: Annotated[int, typer.Option(help="Texts for each slot, 1 to 16.")] = 1,
    temperature: Annotated[float, typer.Option(help="0: the likeliest token, always.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Same seed, same text.")] = None,
    language: Annotated[str, typer.Option(help="BCP 47 tag of the language to write in.")] = "en",
    timeout_ms: Annotated[float, typer.Option(min=1, help="Deadline of the call.")] = 30_000,
    address: Annotated[str, typer.Option("--target", help="HOST:PORT of the server.")] = "127.0.0.1:50051",
    json_only: Annotated[bool, typer.Option("--json", help="Print the response as one JSON object.")] = False,
) -> None:
    """Ask a running server for ad texts.

    Example: bidtrie creative --company Kettle --description "A kettle that boils in 40 seconds" --slot headline:30
    """
    from google.protobuf import json_format
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from bidtrie.cli.answer_notes import answer_notes
    from bidtrie.client import Client
    from bidtrie.v1 import creative_pb2

    if not (name.strip() or description.strip()):
        raise InvalidInput.of("--description", "is missing, and so is --name: one of them is required")
    kinds = {
        "headline": creative_pb2.SLOT_TYPE_HEADLINE,
        "description": creative_pb2.SLOT_TYPE_DESCRIPTION,
        "native_title": creative_pb2.SLOT_TYPE_NATIVE_TITLE,
    }
    slots = []
    for number, text in enumerate(slot or ["headline"], start=1):
        kind, _, limit = text.partition(":")
        if kind not in kinds or (limit and not limit.isdecimal()):
            expected = f"expected TYPE or TYPE:CHARACTERS, type one of {', '.join(kinds)}"
            raise InvalidInput.of("--slot", f"{text!r}: {expected}")
        written = creative_pb2.Slot(name=f"{kind}-{number}", type=kinds[kind])
        if limit:
            written.max_characters = int(limit)
        slots.append(written)
    sampling = creative_pb2.Sampling(temperature=temperature)
    if seed is not None:
        sampling.seed = seed
    with Client(address) as client:
        response = client.generate(
            product=creative_pb2.Product(
                name=name, company=company, industry=industry, description=description, offers=offer or []
            ),
            audience=audience or [],
            language=language,
            slots=slots,
            candidates=candidates,
            sampling=sampling,
            timeout_ms=timeout_ms,
        )
    if json_only:
        print(json_format.MessageToJson(response, preserving_proto_field_name=True, indent=None))
        return
    table = Table("slot", "score", "characters", "text")
    for written_text in response.creatives:
        length = str(len(written_text.text))
        table.add_row(written_text.slot, f"{written_text.score:.2f}", length, escape(written_text.text))
    console = Console()
    console.print(table)
    partial, fallback = (
        "time ran out, some texts are missing",
        "the model had no time, these texts are past theirs",
    )
    for note in answer_notes(response, partial=partial, fallback=fallback):
        console.print(note)
    timings = response.timings
    console.print(f"{timings.total_ms:.1f} ms, {timings.steps} steps, {timings.nodes} nodes")
