"""What is read from a BidRequest, and what never is."""

import random

import pytest
from bidstream.test_wire_compatibility import REQUEST
from bidtrie.bidstream.openrtb import BidContext, read_bid_request
from bidtrie.openrtb.v2.openrtb_pb2 import BidRequest
from bidtrie.requests import CategoryCode, PageContext
from google.protobuf.message import DecodeError


def site(**fields: object) -> BidContext:
    return read_bid_request(BidRequest(site=BidRequest.Site(**fields)))  # type: ignore[arg-type]


def content(**fields: object) -> BidContext:
    return site(content=BidRequest.Content(**fields))  # type: ignore[arg-type]


def test_a_site() -> None:
    assert read_bid_request(BidRequest.FromString(REQUEST)) == BidContext(
        id="auction-1",
        tmax_ms=120,
        context=PageContext(
            title="Car Show: Best SUVs",
            keywords=("suv", "towing"),
            categories=("Automotive",),
            site_name="Car News",
        ),
        category_codes=(CategoryCode(1, "IAB2-1"), CategoryCode(7, "483"), CategoryCode(1, "IAB2")),
        language="en-GB",
        impressions=2,
    )


def test_an_app() -> None:
    request = BidRequest(
        app={
            "name": "Chess Pro", "bundle": "com.example.chess", "storeurl": "https://example.com/x", "cat": ["680"],
            "cattax": 7, "keywords": "chess, board games ,, Chess",
        }
    )  # fmt: skip
    read = read_bid_request(request)
    assert read.context == PageContext(app_name="Chess Pro", keywords=("chess", "board games"))
    assert read.category_codes == (CategoryCode(7, "680"),)
    assert read.tmax_ms is None


def test_nothing_at_all() -> None:
    empty = BidContext("", None, PageContext(), (), "", 0)
    assert read_bid_request(BidRequest()) == empty
    assert read_bid_request(BidRequest(dooh={})) == empty
    assert empty.context.is_empty()


def fill(message: object, marker: str) -> None:
    """Set every text of a message and what is below it to a marker of its own, every number to 7."""
    for field in message.DESCRIPTOR.fields:  # type: ignore[attr-defined]
        name = f"{marker}_{field.name}"
        if field.containing_oneof is not None and field.containing_oneof.name.endswith("_oneof"):
            continue
        if field.message_type is not None:
            child = getattr(message, field.name)
            fill(child.add() if field.is_repeated else child, name)
        elif field.type == field.TYPE_STRING:
            child = getattr(message, field.name)
            child.append(name) if field.is_repeated else setattr(message, field.name, name)
        elif not field.is_repeated:
            setattr(message, field.name, 7)


#: Every text of a BidRequest that may be read. What is not here must not be.
READ = {
    "app_name", "app_cat", "app_sectioncat", "app_pagecat", "app_kwarray",
    "site_name", "site_cat", "site_sectioncat", "site_pagecat", "site_kwarray",
    *(f"{channel}_content_{field}" for channel in ("site", "app")
      for field in ("title", "series", "genre", "cat", "kwarray")),
}  # fmt: skip


@pytest.mark.parametrize("channel", ["site", "app"])
def test_only_what_describes_the_content_is_read(channel: str) -> None:
    request = BidRequest()
    fill(request, "")
    fill(getattr(request, channel), channel)
    request.id = "auction"
    assert request.user.id == "_user_id"
    assert request.device.ip == "_device_ip"
    read = read_bid_request(request)
    assert read.id == "auction"
    context = read.context
    texts = [context.title, context.description, context.app_name, context.site_name, *context.keywords]
    texts += [*context.categories, *(code.id for code in read.category_codes)]
    seen = {word for text in texts for word in text.replace(":", " ").split()}
    assert seen == {name for name in READ if name.startswith(channel)}


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Best SUVs", "Best SUVs"),
        ("  two\n lines\t", "two lines"),
        ("a\0b\x07c", "a b c"),
        ("see https://example.com/?user=me now", "see now"),
        ("HTTP://EXAMPLE.COM", ""),
        ("www.example.com/a?b=c rules", "rules"),
        ("写真https://example.com/私", "写真"),
        ("mail me@example.com today", "mail today"),
        ("Live @ Wembley", "Live @ Wembley"),
        ("example.com/page?uid=77 news", "news"),
        ("Who? What = that", "Who? What = that"),
        ("x" * 3_000, "x" * 2_000),
    ],
    ids=lambda value: str(value)[:30],
)
def test_texts_are_cleaned(raw: str, clean: str) -> None:
    assert content(title=raw).context.title == clean


def test_titles_and_series() -> None:
    assert content(title="Pilot", series="Car Show").context.title == "Car Show: Pilot"
    assert content(title="Car Show: Pilot", series="car show").context.title == "Car Show: Pilot"
    assert content(series="Car Show").context.title == "Car Show"


def test_lists_are_bounded() -> None:
    read = site(
        kwarray=[f"k{i}" for i in range(500)],
        cat=[f"c{i}" for i in range(500)],
        content=BidRequest.Content(cat=["", " ", "x" * 65], genre="a,b,a"),
    )
    assert len(read.context.keywords) == 100
    assert len(read.category_codes) == 50
    assert read.context.categories == ("a", "b")


def test_categories_default_to_the_first_taxonomy() -> None:
    assert site(cat=["IAB1"]).category_codes == (CategoryCode(1, "IAB1"),)
    assert site(cat=["1"], cattax=9).category_codes == (CategoryCode(9, "1"),)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"language": "DE"}, "de"),
        ({"langb": "pt-br", "language": "pt"}, "pt-BR"),
        ({"language": "klingon"}, ""),
    ],
)
def test_languages(fields: dict[str, str], expected: str) -> None:
    assert content(**fields).language == expected


def test_long_words_take_no_time() -> None:
    """Cleaning is linear: a quadratic one would take minutes here."""
    for evil in (
        "a" * 8_000,
        "a." * 4_000,
        "@" * 8_000,
        "a@" * 4_000,
        "://" * 2_600,
        "?=" * 4_000,
        "www" * 2_600,
    ):
        for _ in range(20):
            content(title=evil * 10, keywords=evil * 100)


def test_mutated_requests_are_read_or_do_not_parse() -> None:
    rng = random.Random(3)
    read = 0
    for _ in range(3_000):
        raw = bytearray(REQUEST)
        for _ in range(rng.randint(1, 5)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        try:
            request = BidRequest.FromString(bytes(raw))
        except DecodeError:
            continue
        found = read_bid_request(request)
        assert len(found.context.title) <= 2_000
        assert "192.0.2" not in repr(found)
        read += 1
    assert 100 < read < 2_900
