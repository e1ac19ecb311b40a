"""What is asked of the service and what it answers, free of any wire format.

The server turns protobuf into these and back; whatever searches or writes takes and returns them.
Deadlines are on `time.monotonic()`, in seconds; None: no deadline. They are budgets: what is answered later is late.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Normalization(StrEnum):
    """How the probabilities of a path's tokens are normalised."""

    TRIE = "trie"
    VOCABULARY = "vocabulary"


class Ranker(StrEnum):
    """Who ranks."""

    AUTO = "auto"
    RETRIEVER = "retriever"
    LLM = "llm"
    BOTH = "both"


class Search(StrEnum):
    """How the model's ranking is searched for."""

    EXACT = "exact"
    """The best there are."""
    LIKELY = "likely"
    """Branches that are unlikely to hold something better are left out."""
    BEAM = "beam"
    """A fixed number of prefixes goes on at each level."""


class Source(StrEnum):
    """Who answered."""

    RETRIEVER = "retriever"
    LLM = "llm"
    BOTH = "both"


class SlotType(StrEnum):
    """What kind of text a slot takes."""

    HEADLINE = "headline"
    DESCRIPTION = "description"
    NATIVE_TITLE = "native_title"


@dataclass(frozen=True, slots=True)
class PageContext:
    """What a page or app is about, in words."""

    title: str = ""
    description: str = ""
    keywords: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    app_name: str = ""
    site_name: str = ""

    def is_empty(self) -> bool:
        """Whether no field holds anything but white space."""
        texts = (
            self.title,
            self.description,
            self.app_name,
            self.site_name,
            *self.keywords,
            *self.categories,
        )
        return not any(text.strip() for text in texts)


@dataclass(frozen=True, slots=True)
class CategoryCode:
    """A category by its id in one of AdCOM's category taxonomies (`cattax`: 1 Content 1.0, 9 Content 3.1 …)."""

    taxonomy: int
    id: str


@dataclass(frozen=True, slots=True)
class Timings:
    """Where a request's time went, in milliseconds; the server adds the total."""

    queue_ms: float = 0.0
    engine_ms: float = 0.0
    steps: int = 0
    nodes: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TargetQuery:
    """Which segments of a catalog fit this context? None stands for the server's default."""

    context: PageContext
    category_codes: tuple[CategoryCode, ...] = ()
    """Categories known by their codes only: words where the catalog is of that taxonomy, else ignored."""
    language: str = ""
    """BCP 47, canonical case; empty: unknown."""
    catalog: str = ""
    """Empty: the default catalog."""
    top_k: int = 3
    candidates: tuple[str, ...] = ()
    """Only these segment ids are ranked, in the request's order, without repetitions; empty: all."""
    blocked: tuple[str, ...] = ()
    normalization: Normalization | None = None
    prior_weight: float | None = None
    ranker: Ranker = Ranker.AUTO
    search: Search | None = None
    beam_width: int | None = None
    allow_partial: bool = True
    """Take an answer whose search was cut short."""
    allow_fallback: bool = True
    """Take a stand-in where the model has no time."""
    deadline: float | None = field(default=None, compare=False)
    """Not part of what is asked: queries that differ in it alone are equal."""

    def __hash__(self) -> int:
        # Of what tells most queries apart: all the fields would cost more than the rest of a cached answer.
        context = self.context
        return hash((context.title, context.description, context.app_name, self.catalog, self.top_k))


@dataclass(frozen=True, slots=True)
class ScoredSegment:
    """A segment of the answer; `log_probability` is 0 where the language model took no part."""

    id: str
    name: str
    path: tuple[str, ...]
    score: float
    log_probability: float = 0.0


@dataclass(frozen=True, slots=True)
class TargetAnswer:
    """Ranked segments, best first, and what they were found with."""

    segments: tuple[ScoredSegment, ...]
    source: Source
    catalog: str
    catalog_version: str
    model: str = ""
    model_version: str = ""
    prompt_version: str = ""
    partial: bool = False
    fallback: bool = False
    """The model had no time, `source` stood in."""
    plan: str = ""
    """Which way of searching was taken: "full", or a cheaper one under load; empty where the model took no part."""
    cache_age_s: float | None = None
    """Seconds since it was computed, where it comes from the cache."""
    timings: Timings = Timings()


@dataclass(frozen=True, slots=True)
class Product:
    """Facts that an ad's text may use."""

    name: str = ""
    company: str = ""
    industry: str = ""
    description: str = ""
    offers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slot:
    """One text to write; `max_characters` counts Unicode code points."""

    name: str
    type: SlotType
    max_characters: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: temperature 0 is greedy, top_k 0 keeps all, seed None is the server's choice."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class GenerateQuery:
    """What should the ad say?"""

    product: Product
    slots: tuple[Slot, ...]
    audience: tuple[str, ...] = ()
    language: str = "en"
    """BCP 47, canonical case."""
    candidates: int = 1
    sampling: Sampling = Sampling()
    allow_partial: bool = True
    """Take fewer texts, or unfinished ones cut at a word, where time runs out."""
    allow_fallback: bool = True
    """Take cached texts that are past their time where the model has none."""
    pregeneration: bool = False
    """Nobody waits for it."""
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text to append to candidate `candidate` (0-based, in order of generation) of a slot."""

    slot: str
    candidate: int
    text: str


@dataclass(frozen=True, slots=True)
class CreativeText:
    """One finished text; `score` is the mean natural-log probability a token, the stop included."""

    slot: str
    rank: int
    text: str
    score: float
    tokens: int


@dataclass(frozen=True, slots=True)
class GenerateAnswer:
    """Texts grouped by slot in the query's order, best first. `seed` is 0 for temperature 0."""

    creatives: tuple[CreativeText, ...]
    model: str
    model_version: str
    prompt_version: str
    seed: int = 0
    partial: bool = False
    fallback: bool = False
    """The model had no time: cached texts past their time."""
    cache_age_s: float | None = None
    timings: Timings = Timings()


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The model in use; `version` is its content hash, 16 hexadecimal digits."""

    name: str
    version: str
    engine: str
    weights: str
    instruction_set: str
    threads: int


@dataclass(frozen=True, slots=True)
class CatalogStatus:
    """A loaded catalog; `version` is its content hash, 16 hexadecimal digits."""

    name: str
    version: str
    segments: int
    nodes: int
    is_default: bool


@dataclass(frozen=True, slots=True)
class Status:
    """What is loaded and how full the KV cache is, in slots (tokens)."""

    model: ModelStatus
    catalogs: tuple[CatalogStatus, ...]
    kv_slots: int
    kv_slots_free: int
