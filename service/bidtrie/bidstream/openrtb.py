"""OpenRTB BidRequest -> what the page or app is about.

Reads what describes the content and nothing else: no user, no device, no geography, no identifier except the
auction's own, no domain and no URL. Exchanges pass on what publishers typed, so texts are cleaned and cut, never
refused.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bidtrie import language
from bidtrie.openrtb.v2.openrtb_pb2 import BidRequest
from bidtrie.requests import CategoryCode, PageContext

MAX_TITLE_CHARACTERS = 2_000
MAX_NAME_CHARACTERS = 200
MAX_KEYWORDS = 100
MAX_CATEGORIES = 50
MAX_CATEGORY_ID_CHARACTERS = 64
#: AdCOM's default of every `cattax`: IAB Content Taxonomy 1.0.
DEFAULT_TAXONOMY = 1

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_WWW = re.compile(r"www\.", re.IGNORECASE)
_SCHEME_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-"


@dataclass(frozen=True, slots=True)
class BidContext:
    """What a BidRequest says about the content, and about the auction itself."""

    id: str
    """The auction's id; empty: none."""
    tmax_ms: int | None
    context: PageContext
    category_codes: tuple[CategoryCode, ...]
    """Most telling first: page, section, content, then site or app."""
    language: str
    """BCP 47, canonical case; empty: unknown or not a valid tag."""
    impressions: int


def read_bid_request(request: BidRequest) -> BidContext:
    """Map a BidRequest; whatever it lacks is empty. Never raises."""
    channel: BidRequest.Site | BidRequest.App | None = None
    if request.HasField("site"):
        channel = request.site
    elif request.HasField("app"):
        channel = request.app
    content = channel.content if channel is not None else BidRequest.Content()
    return BidContext(
        id=request.id[:128],
        tmax_ms=request.tmax if request.HasField("tmax") else None,
        context=PageContext(
            title=_title(content),
            keywords=_keywords(content, channel),
            categories=tuple(_unique(_words(content.genre), MAX_CATEGORIES)),
            app_name=_clean(request.app.name, MAX_NAME_CHARACTERS) if request.HasField("app") else "",
            site_name=_clean(request.site.name, MAX_NAME_CHARACTERS) if request.HasField("site") else "",
        ),
        category_codes=_category_codes(content, channel),
        language=_language(content),
        impressions=len(request.imp),
    )


def _clean(text: str, most: int) -> str:
    """One line without control characters and addresses, at most `most` characters."""
    # Cut first as well: cleaning a megabyte for the sake of its first 200 characters is waste.
    words = _CONTROL.sub(" ", text[: 4 * most]).split()
    return " ".join(word for word in map(_without_address, words) if word)[:most].strip()


def _without_address(word: str) -> str:
    """The part of a word before an address; they get into titles and keywords by mistake.

    A query string or a mailbox may name a person. Languages that write without spaces have text before an address.
    """
    head, is_mailbox, host = word.rpartition("@")
    if (is_mailbox and head and "." in host) or "=" in word.partition("?")[2]:
        return ""
    head, is_url, _ = word.partition("://")
    if is_url:
        return head.rstrip(_SCHEME_CHARACTERS)
    www = _WWW.search(word)
    return word[: www.start()] if www else word


def _title(content: BidRequest.Content) -> str:
    """Series and title as "Series: Title", or whichever is there."""
    title = _clean(content.title, MAX_TITLE_CHARACTERS)
    series = _clean(content.series, MAX_NAME_CHARACTERS)
    if series and title and series.casefold() not in title.casefold():
        return f"{series}: {title}"[:MAX_TITLE_CHARACTERS]
    return title or series


def _words(text: str) -> list[str]:
    """A comma-separated list as OpenRTB's string fields hold it."""
    return text[: 4 * MAX_KEYWORDS * MAX_NAME_CHARACTERS].split(",")


def _unique(texts: Iterable[str], most: int) -> Iterable[str]:
    """The first `most` different texts, cleaned; case does not make a difference."""
    seen: set[str] = set()
    for text in texts:
        cleaned = _clean(text, MAX_NAME_CHARACTERS)
        if cleaned and cleaned.casefold() not in seen:
            seen.add(cleaned.casefold())
            yield cleaned
            if len(seen) == most:
                return


def _keywords(
    content: BidRequest.Content, channel: BidRequest.Site | BidRequest.App | None
) -> tuple[str, ...]:
    """The content's keywords before the site's or app's; `kwarray` stands in for `keywords` where it is given."""
    texts: list[str] = []
    for holder in (content, channel):
        if holder is not None:
            texts += list(holder.kwarray) or _words(holder.keywords)
    return tuple(_unique(texts, MAX_KEYWORDS))


def _category_codes(
    content: BidRequest.Content, channel: BidRequest.Site | BidRequest.App | None
) -> tuple[CategoryCode, ...]:
    sources: list[tuple[BidRequest.Content | BidRequest.Site | BidRequest.App, list[str]]] = []
    if channel is not None:
        sources = [
            (channel, list(channel.pagecat)),
            (channel, list(channel.sectioncat)),
            (content, list(content.cat)),
            (channel, list(channel.cat)),
        ]
    codes: dict[CategoryCode, None] = {}
    for holder, ids in sources:
        taxonomy = holder.cattax if holder.HasField("cattax") else DEFAULT_TAXONOMY
        for each in ids:
            if 0 < len(each.strip()) <= MAX_CATEGORY_ID_CHARACTERS and len(codes) < MAX_CATEGORIES:
                codes[CategoryCode(taxonomy, each.strip())] = None
    return tuple(codes)


def _language(content: BidRequest.Content) -> str:
    tag = (content.langb or content.language).strip()
    return language.canonical(tag) if tag and language.problem_with(tag) is None else ""
