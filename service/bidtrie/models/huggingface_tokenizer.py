"""A tokenizer out of a Hugging Face directory: tokenizer.json and the files that say how texts begin and end."""

from bidtrie.errors import ModelError
from bidtrie.models.fields import Fields
from bidtrie.models.model_folder import ModelFolder
from bidtrie.models.tokenizer import Tokenizer

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
GENERATION = "generation_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
#: A key of tokenizer_config.json that only bidtrie writes: tokens of no use that tokenizer.json cannot mark as such.
UNUSED_IDS = "unused_token_ids"


def read_tokenizer(folder: ModelFolder, config: Fields) -> Tokenizer:
    """The tokenizer of a directory whose config.json is `config`. Raises ModelError naming the file."""
    if not folder.has(TOKENIZER):
        raise ModelError(f"{folder.path / TOKENIZER}: is missing (a tokenizer.model alone is not read)")
    text = folder.text(TOKENIZER)
    settings, generation = _optional(folder, SETTINGS), _optional(folder, GENERATION)
    tokenizer = Tokenizer.from_json(
        text,
        source=str(folder.path / TOKENIZER),
        chat_template=_chat_template(folder, settings),
        unused_ids=settings.integers(UNUSED_IDS, []),
    )
    for unused in settings.integers(UNUSED_IDS, []):
        if not 0 <= unused < tokenizer.vocab_size:
            raise ModelError(
                f"{settings.source}: {UNUSED_IDS} holds {unused}, expected 0 to {tokenizer.vocab_size - 1}"
            )
    eos = generation.integers("eos_token_id", config.integers("eos_token_id", []))
    if not eos and (token := _named_token(settings, "eos_token", tokenizer)) is not None:
        eos = [token]
    bos = tokenizer.added_first
    if bos is None and settings.flag("add_bos_token", False):
        bos = _named_token(settings, "bos_token", tokenizer)
    return tokenizer.with_ends(bos_id=bos, eos_ids=eos)


def _optional(folder: ModelFolder, name: str) -> Fields:
    return Fields(str(folder.path / name), folder.json(name) if folder.has(name) else {})


def _named_token(settings: Fields, key: str, tokenizer: Tokenizer) -> int | None:
    """The id of a token that tokenizer_config.json names, as text or as an object with `content`."""
    value = settings.values.get(key)
    content = value.get("content") if isinstance(value, dict) else value
    return tokenizer.token_id(content) if isinstance(content, str) else None


def _chat_template(folder: ModelFolder, settings: Fields) -> str | None:
    """The default chat template: a file of its own, else in tokenizer_config.json, alone or among named ones."""
    if folder.has(CHAT_TEMPLATE):
        return folder.text(CHAT_TEMPLATE)
    value = settings.values.get("chat_template")
    if isinstance(value, list):
        value = next(
            (
                item.get("template")
                for item in value
                if isinstance(item, dict) and item.get("name") == "default"
            ),
            None,
        )
    return value if isinstance(value, str) else None
