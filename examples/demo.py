"""Starts a server on free ports, sends it real bid requests and creative requests, and shows the answers.

`make demo` runs it. It needs the fetched model and the built catalog `iab-content`.
"""

import json
import statistics
from pathlib import Path

from bidtrie.client import Client
from bidtrie.client.errors import DeadlineExceeded
from bidtrie.openrtb.v2 import openrtb_pb2
from bidtrie.serving.own_server import own_server
from bidtrie.v1 import creative_pb2, targeting_pb2
from google.protobuf import json_format
from rich.console import Console
from rich.table import Table

PRODUCTS = [
    creative_pb2.Product(
        company="Kettle & Crumb",
        industry="bakery",
        description="A neighbourhood bakery with sourdough from its own starter, baked every morning at five.",
    ),
    creative_pb2.Product(
        company="Voltaro",
        industry="automotive",
        description="An electric family car with seven seats. Charges from 10 to 80% in 18 minutes.",
        offers=["0% financing until Sunday"],
    ),
    creative_pb2.Product(
        company="Nightferry",
        industry="travel",
        description="Overnight ferries to quiet islands. Cabins with a sea view, breakfast included.",
    ),
]


def content_of(request: openrtb_pb2.BidRequest) -> str:
    """What to show of a bid request."""
    return request.site.content.title or request.app.content.title or request.app.name


def main() -> None:
    console = Console()
    console.print("starting a server …")
    folder = Path(__file__).parent
    requests = [
        json_format.ParseDict(each, openrtb_pb2.BidRequest())
        for each in json.loads((folder / "bid_requests.json").read_text(encoding="utf-8"))
    ]
    with (
        own_server(model="bidtrie-135m", catalogs=["iab-content"]) as ports,
        Client(f"127.0.0.1:{ports.grpc}") as client,
    ):
        client.target(title=content_of(requests[0]), timeout_ms=30_000)  # the first call pays for warming up
        segments = Table(
            "bid request", "segments, best first", "ms", title="Targeting: OpenRTB in, segments out"
        )
        times: dict[str, list[float]] = {"both": [], "retriever": []}
        for request in requests:
            try:
                answer = client.target(bid_request=request, top_k=3, timeout_ms=30_000)
            except DeadlineExceeded:
                segments.add_row(content_of(request), f"no answer within tmax, {request.tmax} ms", "-")
                continue
            quick = client.target(
                bid_request=request, ranker=targeting_pb2.RANKER_RETRIEVER, timeout_ms=30_000
            )
            times["both"].append(answer.timings.total_ms)
            times["retriever"].append(quick.timings.total_ms)
            paths = "\n".join(" > ".join(segment.path) for segment in answer.segments)
            segments.add_row(content_of(request), paths, f"{answer.timings.total_ms:.0f}")
        console.print(segments)
        for name, values in times.items():
            if values:
                console.print(f"  {name}: median {statistics.median(values):.1f} ms on the server")
        texts = Table("product", "headline (at most 30)", "description (at most 90)", "ms", title="Creatives")
        for product in PRODUCTS:
            answer = client.generate(
                product=product,
                slots=[
                    creative_pb2.Slot(name="headline", type=creative_pb2.SLOT_TYPE_HEADLINE),
                    creative_pb2.Slot(name="description", type=creative_pb2.SLOT_TYPE_DESCRIPTION),
                ],
                timeout_ms=60_000,
            )
            written = {text.slot: f"{text.text} ({len(text.text)})" for text in answer.creatives}
            texts.add_row(
                product.company,
                written.get("headline", ""),
                written.get("description", ""),
                f"{answer.timings.total_ms:.0f}",
            )
        console.print(texts)
    console.print("The server has stopped. To run one yourself: bidtrie serve --catalogs iab-content")


if __name__ == "__main__":
    main()
