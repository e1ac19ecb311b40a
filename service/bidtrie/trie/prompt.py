"""The targeting prompt: a versioned template with a hard token cap.

The template was chosen by measurement (docs/targeting-prompt.md). Fields that do not fit are cut in a stated order: the
description first, then keywords, categories, site name, app name, and the title last.
"""

from collections.abc import Sequence

from bidtrie.models.tokenizer import Tokenizer
from bidtrie.requests import PageContext

#: Changes whenever the text around the fields, their order or the cutting changes: priors and caches depend on it.
PROMPT_VERSION = "targeting-1"


#: How every prompt begins.
_BEGIN = "Page title:"


def one_line(text: str) -> str:
    """The text on one line: white space of any kind becomes single spaces."""
    return " ".join(text.split())


def fixed_tokens(tokenizer: Tokenizer) -> list[int]:
    """What every prompt begins with and is computed once: the token that the model expects first, and a label."""
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return begin + tokenizer.encode(_BEGIN)


def terminator(tokenizer: Tokenizer) -> int:
    """The token that ends every path: the newline, which ends the prompt's last line."""
    tokens = tokenizer.encode("\n")
    return tokens[-1]


def retrieval_text(context: PageContext) -> str:
    """All fields of a context as one text: what a retriever gets."""
    fields = (context.title, context.app_name, *context.keywords, *context.categories, context.description)
    return " ".join(part for part in fields if part)


def _lines(context: PageContext) -> list[tuple[str, str]]:
    """The prompt's lines as (label, value), in the order in which they are written."""
    return [
        ("Page title", one_line(context.title)),
        ("App", one_line(context.app_name)),
        ("Site", one_line(context.site_name)),
        ("Categories", one_line(", ".join(context.categories))),
        ("Keywords", one_line(", ".join(context.keywords))),
        ("Description", one_line(context.description)),
    ]


#: Which lines get their tokens first when there are not enough for all.
_PRIORITY = ("Page title", "App", "Site", "Categories", "Keywords", "Description")


def render(context: PageContext, tokenizer: Tokenizer, max_tokens: int) -> list[int]:
    """Token ids that follow `fixed_tokens` for a context; its fields take at most `max_tokens` tokens.

    The title line is always there, also when empty: it is what the neutral contexts look like.
    """
    values = dict(_lines(context))
    left = max_tokens
    for label in _PRIORITY:
        tokens = tokenizer.encode(values[label]) if values[label] else []
        if len(tokens) > left:
            # Cutting may split a character that spans tokens; its remains are dropped.
            values[label] = tokenizer.decode(tokens[:left]).rstrip("\ufffd ").lstrip()
            tokens = tokens[:left]
        left -= len(tokens)
    lines = [f"{label}: {value}" for label, value in values.items() if value or label == "Page title"]
    text = "\n".join([*lines, "Topic category:"])
    return tokenizer.encode(text.removeprefix(_BEGIN))


#: Titles that say nothing: the mean score under them is the prior that is subtracted.
NEUTRAL_TITLES: Sequence[str] = (
    "Everything you need to know",
    "What you should know today",
    "The latest",
    "Read more",
    "My story",
)


def neutral_contexts() -> list[PageContext]:
    """The neutral contexts of this prompt version."""
    return [PageContext(title=title) for title in NEUTRAL_TITLES]
