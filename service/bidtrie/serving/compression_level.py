"""One compression level: a model on its engine, with the prompts' fixed parts computed."""

from collections.abc import Sequence
from dataclasses import dataclass

from bidtrie.creative.job import compute_prefix
from bidtrie.creative.prompt import PromptTemplate
from bidtrie.errors import InvalidInput
from bidtrie.scheduling.job import run_alone
from bidtrie.serving.loaded_model import LoadedModel, load_model
from bidtrie.settings import Settings
from bidtrie.trie.prompt import fixed_tokens


@dataclass(frozen=True, slots=True)
class CompressionLevel:
    """`targeting_prefix` and `creative_prefix` are engine sequences that every prompt continues."""

    model: LoadedModel
    targeting_prefix: int
    cached_tokens: int
    creative_prefix: int


def load_levels(settings: Settings) -> list[CompressionLevel]:
    """The model, and its cheaper levels in the settings' order. Raises ModelError, or InvalidInput naming `levels`."""
    levels: list[CompressionLevel] = []
    try:
        for name in (settings.model, *settings.levels):
            model = load_model(settings.model_copy(update={"model": name}))
            if levels:
                _check(levels[0].model, model, name)
            levels.append(_prepared(model))
    except BaseException:
        shut_down(levels)
        raise
    return levels


def shut_down(levels: Sequence[CompressionLevel]) -> None:
    """End the engines of levels that no scheduler has taken."""
    for level in levels:
        level.model.engine.shutdown()


def _check(best: LoadedModel, level: LoadedModel, name: str) -> None:
    if level.checkpoint.tokenizer.content_hash != best.checkpoint.tokenizer.content_hash:
        level.engine.shutdown()
        expected = f"{name} has another tokenizer than {best.checkpoint.name}, expected levels of one model"
        raise InvalidInput.of("levels", expected)


def _prepared(model: LoadedModel) -> CompressionLevel:
    engine, tokenizer = model.engine, model.checkpoint.tokenizer
    try:
        tokens = fixed_tokens(tokenizer)
        return CompressionLevel(
            model,
            run_alone(engine, compute_prefix(engine, tokens)),
            len(tokens),
            run_alone(engine, compute_prefix(engine, PromptTemplate(tokenizer).fixed_tokens)),
        )
    except BaseException:
        engine.shutdown()
        raise
