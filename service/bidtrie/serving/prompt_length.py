"""How many tokens a context's prompt will have, guessed from its characters: admission cannot wait for a tokenizer."""

_RATE = 0.05


class PromptLength:
    """Tokens a character and tokens around the fields, learned from the prompts that were made."""

    def __init__(self, max_tokens: int) -> None:
        self._most = max_tokens
        self._tokens_a_character = 0.25
        self._around = 8.0

    def expected(self, text: str) -> int:
        """Tokens of the prompt of a context with this text, the fixed part aside."""
        return max(1, round(self._around + min(self._most, self._tokens_a_character * len(text))))

    def note(self, text: str, tokens: int) -> None:
        """A context with this text had so many tokens."""
        fields = self._tokens_a_character * len(text)
        if fields >= self._most or not text:
            return  # it was cut, which says nothing about the rest
        self._tokens_a_character += _RATE * (
            max(0.0, tokens - self._around) / len(text) - self._tokens_a_character
        )
