"""The creative prompt: a versioned template with a hard token cap.

What is the same for all requests comes first, so that it is computed once; then the request's facts, which its slots
share; the slot's instruction comes last. Models with ChatML's tokens get a conversation, others plain text to
complete; both show the same examples.

A request's facts take at most `max_tokens` tokens. They get them in this order: name, company, industry, offers,
audience, description. So the description is cut first and the name last; what is cut ends at a word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bidtrie import language
from bidtrie.models.tokenizer import Tokenizer
from bidtrie.requests import GenerateQuery, Product, Slot, SlotType

#: Changes whenever the text around the facts, the examples, their order or the cutting changes.
PROMPT_VERSION = "creative-1"

#: Tokens that a request's facts may take; the few words that join them come on top.
MAX_TOKENS = 256

_SYSTEM = "You write short ads. Answer with the ad's text only."

_ASK = {
    SlotType.HEADLINE: "Write a headline",
    SlotType.DESCRIPTION: "Write one or two sentences",
    SlotType.NATIVE_TITLE: "Write a title",
}


@dataclass(frozen=True, slots=True)
class _Example:
    """An answered request; the products are invented."""

    product: Product
    slot: Slot
    text: str


_HEADLINE, _DESCRIPTION = Slot("", SlotType.HEADLINE, 30), Slot("", SlotType.DESCRIPTION, 90)

_EXAMPLES = (
    _Example(
        Product(
            "Brightwell Lamps",
            industry="home lighting",
            description="Desk lamps that follow daylight, warm in the evening and cool at noon.",
        ),
        _HEADLINE,
        "Light That Follows Your Day",
    ),
    _Example(
        Product(
            "Oakum Boots",
            industry="footwear",
            description="Walking boots sewn by hand from oiled leather, waterproof and easy to resole.",
        ),
        _DESCRIPTION,
        "Hand-sewn leather boots that keep your feet dry for years. Find your pair today.",
    ),
    _Example(
        Product(
            "Fernley Vets",
            industry="pet care",
            description="A family-run animal clinic with evening hours and home visits for nervous cats.",
        ),
        _HEADLINE,
        "Gentle Care for Your Pet",
    ),
    _Example(
        Product(
            "Tablewise",
            industry="restaurant booking",
            description="An app that finds a free table nearby and books it in one tap, without calls or fees.",
        ),
        _DESCRIPTION,
        "Find a free table near you and book it in one tap. No calls, no fees. Try it tonight.",
    ),
    _Example(
        Product(
            "Paddock Honey",
            industry="food",
            description="Raw honey from wild meadows, bottled by the beekeepers themselves.",
        ),
        _HEADLINE,
        "Honey as Wild as the Meadow",
    ),
    _Example(
        Product(
            "Lumen Windows",
            industry="home improvement",
            description="Triple-glazed windows made to measure, fitted in a day by our own team.",
        ),
        _DESCRIPTION,
        "Keep the warmth in and the noise out with windows made for your home. Ask for a quote.",
    ),
)

#: The facts in the order in which they get their tokens.
_PRIORITY = ("name", "company", "industry", "offers", "audience", "description")


#: The examples' texts, which every prompt holds.
EXAMPLE_TEXTS = tuple(text for example in _EXAMPLES for text in (example.text, example.product.description))


def _facts(product: Product, audience: Sequence[str]) -> dict[str, str]:
    """Facts by name, each on one line, those that say nothing left out."""
    values = {
        "name": product.name,
        "company": product.company,
        "industry": product.industry,
        "description": product.description,
        "offers": "; ".join(product.offers),
        "audience": "; ".join(audience),
    }
    return {name: line for name, value in values.items() if (line := " ".join(value.split()))}


def _paragraph(facts: Mapping[str, str]) -> str:
    """The facts as a line of prose: models as small as the default one copy labels into their ads."""
    name, company = facts.get("name", ""), facts.get("company", "")
    who = f"{name} by {company}" if name and company and company not in name else name or company
    subject = " ".join(filter(None, [who, f"({facts['industry']})" if "industry" in facts else ""]))
    sentences = [
        facts.get("description", ""),
        facts.get("offers", ""),
        f"For {facts['audience']}" if "audience" in facts else "",
    ]
    ended = [text if text[-1] in ".!?" else f"{text}." for text in sentences if text]
    return (f"{subject}: " if subject and ended else subject) + " ".join(ended) + "\n"


def _instruction(slot: Slot, tag: str) -> str:
    name = language.english_name(tag) or tag
    written_in = "" if name == "English" else f" in {name}"
    return f"{_ASK[slot.type]}{written_in} of at most {slot.max_characters} characters."


class PromptTemplate:
    """The template for one tokenizer.

    fixed_tokens: the part that all requests begin with. A prompt is `fixed_tokens`, then `request_tokens`, then
    `slot_tokens`.
    """

    version = PROMPT_VERSION

    def __init__(self, tokenizer: Tokenizer, max_tokens: int = MAX_TOKENS) -> None:
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        chat = tokenizer.token_id("<|im_start|>") is not None and tokenizer.token_id("<|im_end|>") is not None
        if chat:
            system, end = f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n", "<|im_end|>\n"
            self._ask, self._answer = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
        else:
            system, end, self._ask, self._answer = f"{_SYSTEM}\n\n", "\n\n", "", "\n"
        fixed = system
        for example in _EXAMPLES:
            question = _paragraph(_facts(example.product, ())) + _instruction(example.slot, "en")
            fixed += f"{self._ask}{question}{self._answer}{example.text}{end}"
        start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        self.fixed_tokens = (*start, *tokenizer.encode(fixed + self._ask, parse_special=True))

    def request_tokens(self, query: GenerateQuery) -> list[int]:
        """The request's facts. What users write is never read as special tokens."""
        facts, left = _facts(query.product, query.audience), self._max_tokens
        for name in _PRIORITY:
            tokens = self._tokenizer.encode(facts.get(name, ""))
            if len(tokens) > left:
                facts[name] = self._cut(tokens, left)
            left -= min(left, len(tokens))
        return self._tokenizer.encode(_paragraph({name: text for name, text in facts.items() if text}))

    def slot_tokens(self, query: GenerateQuery, slot: Slot) -> list[int]:
        """What is asked for, up to where the text begins."""
        instruction = self._tokenizer.encode(_instruction(slot, query.language))
        return [*instruction, *self._tokenizer.encode(self._answer, parse_special=True)]

    def rest_tokens(self, query: GenerateQuery, slot: Slot) -> list[int]:
        """All that follows the fixed part for one slot."""
        return [*self.request_tokens(query), *self.slot_tokens(query, slot)]

    def _cut(self, tokens: Sequence[int], count: int) -> str:
        """The text of the first `count` tokens, up to the last word that is whole."""
        while count and not self._tokenizer.token_bytes(tokens[count]).startswith(b" "):
            count -= 1
        return self._tokenizer.decode(tokens[:count])
