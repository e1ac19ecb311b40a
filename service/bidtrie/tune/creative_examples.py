"""Products as examples, in the very prompt that the service uses."""

from collections.abc import Sequence

from bidtrie.creative.prompt import PromptTemplate
from bidtrie.evaluation.creative import LIMITS, LabelledProduct
from bidtrie.models.tokenizer import Tokenizer
from bidtrie.requests import GenerateQuery, Product, Slot, SlotType
from bidtrie.tune.example import Example


class CreativeExamples:
    """Makes examples of products for one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._template = PromptTemplate(tokenizer)
        self._end = tokenizer.token_id("<|im_end|>")
        if self._end is None:
            self._end = tokenizer.eos_ids[0] if tokenizer.eos_ids else None

    @property
    def prefix(self) -> Sequence[int]:
        """What all prompts begin with."""
        return self._template.fixed_tokens

    def make(self, product: LabelledProduct) -> Example:
        """The example: the text, and that it ends there."""
        kind = SlotType.DESCRIPTION if product.type == "description" else SlotType.HEADLINE
        slot = Slot("text", kind, LIMITS[product.type])
        query = GenerateQuery(
            product=Product(product.company, industry=product.industry, description=product.description),
            slots=(slot,),
        )
        prompt = self._template.rest_tokens(query, slot)
        words = self._tokenizer.encode(product.reference)
        if self._end is not None:
            words.append(self._end)
        return Example((*prompt, *words[:-1]), len(prompt) - 1, tuple(words))
