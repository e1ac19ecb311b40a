"""Text that models are calibrated on: ads and pages, in the prompts that the service really uses.

| file | what | becomes |
|---|---|---|
| .tsv | pages, as `bidtrie eval targeting` reads them | the targeting prompt and the right path |
| .csv | products, as `bidtrie eval creative` reads them | the creative prompt and its text; and both as plain prose |
| .jsonl | an object with a "text", or a string, a line | the text |
| .txt | a text a line | the text |

Documents are drawn from all files evenly, for a seed, while they are read: files of any size take little memory.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bidtrie.creative.prompt import PromptTemplate
from bidtrie.errors import InvalidInput
from bidtrie.evaluation.creative import LIMITS, LabelledProduct, read_products
from bidtrie.evaluation.pages import Page, read_pages
from bidtrie.models.tokenizer import Tokenizer
from bidtrie.requests import GenerateQuery, Product, Slot, SlotType
from bidtrie.trie.catalog import SEPARATOR
from bidtrie.trie.prompt import fixed_tokens, render, terminator
from bidtrie.trie.trie import token_text

#: What makes a document's tokens: only those that are drawn are tokenized.
Document = Callable[[], list[int]]

#: The package's own text, by its source's name in the record.
PACKAGE = "package"
#: Documents that are held at once; of more, as many are drawn evenly.
_MOST_DOCUMENTS = 1 << 15
#: Fewer tokens say too little of a model's hundreds of directions.
_FEWEST_TOKENS = 2048
_MAX_CONTEXT_TOKENS = 128
_READ = {".tsv", ".csv", ".jsonl", ".txt"}


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """What a model is calibrated on.

    sequences: int64 [sequences, tokens], all full; each begins with a document, or goes on with a longer one.
    documents: how many there were to draw from.
    sources: the files' names, or `PACKAGE`.
    """

    sequences: NDArray[np.int64]
    documents: int
    sources: tuple[str, ...]


def read_calibration_text(
    data: Sequence[Path], tokenizer: Tokenizer, count: int, length: int, seed: int
) -> CalibrationText:
    """`count` sequences of `length` tokens from files, or from the package's own text where `data` is empty.

    If there is less text, there are fewer sequences. Raises InvalidInput naming the file (and line) that is wrong, and
    for text of fewer than 2,048 tokens, or of less than one sequence.
    """
    for field, value in (("--sequences", count), ("--sequence-tokens", length)):
        if value < 1:
            raise InvalidInput.of(field, f"{value}, expected 1 or more")
    if seed < 0:
        raise InvalidInput.of("--seed", f"{seed}, expected a seed of 0 or more")
    random = np.random.default_rng(seed)
    if data:
        drawn, found = _draw((each for path in data for each in _read(path, tokenizer)), random)
    else:
        with as_file(files("bidtrie.compress") / "data") as folder:
            drawn, found = _draw(
                (each for path in sorted(folder.glob("p*.?sv")) for each in _read(path, tokenizer)), random
            )
    sequences, tokens = _packed(drawn, count, length)
    least = max(_FEWEST_TOKENS, length)
    if len(sequences) * length < _FEWEST_TOKENS and tokens < count * length:
        raise InvalidInput.of(
            "--data", f"holds {tokens} tokens in {found} documents, expected {least} or more to calibrate on"
        )
    return CalibrationText(sequences, found, tuple(path.name for path in data) or (PACKAGE,))


def _draw(documents: Iterator[Document], random: np.random.Generator) -> tuple[list[Document], int]:
    """All documents in random order, or an even sample of very many (Vitter's algorithm R); and how many there were."""
    drawn: list[Document] = []
    found = 0
    for document in documents:
        found += 1
        if len(drawn) < _MOST_DOCUMENTS:
            drawn.append(document)
        elif (place := int(random.integers(found))) < _MOST_DOCUMENTS:
            drawn[place] = document
    return [drawn[i] for i in random.permutation(len(drawn))], found


def _packed(documents: Sequence[Document], count: int, length: int) -> tuple[NDArray[np.int64], int]:
    """Sequences, and the tokens of all documents that were looked at."""
    sequences: list[list[int]] = []
    current: list[int] = []
    tokens = 0
    for document in documents:
        rest = document()
        tokens += len(rest)
        long = len(rest) > length
        while rest and len(sequences) < count:
            room = length - len(current)
            current += rest[:room]
            # The rest of a short document would be a beginning without sense; a long one has no other place.
            rest = rest[room:] if long else []
            if len(current) == length:
                sequences.append(current)
                current = []
        if len(sequences) == count:
            break
    return np.array(sequences, np.int64).reshape(len(sequences), length), tokens


def _read(path: Path, tokenizer: Tokenizer) -> Iterator[Document]:
    """The documents of a file, in its order."""
    if path.suffix not in _READ:
        raise InvalidInput.of(str(path), f"expected a name that ends in {', '.join(sorted(_READ))}")
    if path.suffix == ".tsv":
        for page in read_pages(path):
            yield _page(page, tokenizer)
    elif path.suffix == ".csv":
        template = PromptTemplate(tokenizer)
        yield lambda: list(template.fixed_tokens)
        for product in read_products(path):
            yield _asked(product, template, tokenizer)
            yield _text(
                f"{product.company} ({product.industry}): {product.description}\n{product.reference}",
                tokenizer,
            )
    else:
        for text in _lines(path):
            yield _text(text, tokenizer)


def _page(page: Page, tokenizer: Tokenizer) -> Document:
    def tokens() -> list[int]:
        prompt = [*fixed_tokens(tokenizer), *render(page.context, tokenizer, _MAX_CONTEXT_TOKENS)]
        return [
            *prompt,
            *tokenizer.encode(token_text(SEPARATOR.join(page.expected[0]))),
            terminator(tokenizer),
        ]

    return tokens


def _asked(product: LabelledProduct, template: PromptTemplate, tokenizer: Tokenizer) -> Document:
    """The prompt but for the part that all requests share, which is a document of its own."""
    kind = SlotType.DESCRIPTION if product.type == "description" else SlotType.HEADLINE
    slot = Slot("text", kind, LIMITS[product.type])
    query = GenerateQuery(
        product=Product(product.company, industry=product.industry, description=product.description),
        slots=(slot,),
    )
    return lambda: [*template.rest_tokens(query, slot), *tokenizer.encode(f"{product.reference}\n")]


def _text(text: str, tokenizer: Tokenizer) -> Document:
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    return lambda: [*begin, *tokenizer.encode(f"{text}\n")]


def _lines(path: Path) -> Iterator[str]:
    """The texts of a .jsonl or .txt file that are not empty."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                text = _json_text(line, f"{path.name}:{number}") if path.suffix == ".jsonl" else line
                if text.strip():
                    yield text.strip()
    except OSError as error:
        raise InvalidInput.of(str(path), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput.of(str(path), f"is not UTF-8 text: {error}") from error


def _json_text(line: str, where: str) -> str:
    if not line.strip():
        return ""
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InvalidInput.of(where, f"is not JSON: {error}") from None
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise InvalidInput.of(where, 'expected a string, or an object with a string "text"')
    return text
