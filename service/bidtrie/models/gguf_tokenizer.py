"""A tokenizer out of a GGUF file's metadata."""

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from bidtrie.errors import ModelError
from bidtrie.models.fields import Fields
from bidtrie.models.tokenizer import Tokenizer

_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5
_SPACE = "\u2581"

# The patterns are those that the models were trained with; llama.cpp's `llama-vocab.cpp` names them.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _pre_tokenizer(name: str, source: str) -> pre_tokenizers.PreTokenizer:
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    match name:
        case "gpt-2" | "gpt2":
            return gpt2
        case "smollm":
            return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
        case "llama-bpe" | "llama-v3" | "llama3":
            return _split(_LLAMA3)
        case "qwen2":
            return _split(_QWEN2)
    raise ModelError(
        f"{source}: tokenizer.ggml.pre {name!r} is not supported, expected gpt-2, smollm, llama-bpe or qwen2"
    )


def tokenizer_from_gguf(fields: Fields, rows: int) -> Tokenizer:
    """The tokenizer of a file whose embedding has `rows` rows. Raises ModelError naming the metadata key."""
    tokens = fields.texts("tokenizer.ggml.tokens")
    if not 1 <= len(tokens) <= rows:
        raise ModelError(
            f"{fields.source}: tokenizer.ggml.tokens has {len(tokens)} tokens, the embedding {rows} rows"
        )
    if len(set(tokens)) != len(tokens):
        raise ModelError(f"{fields.source}: tokenizer.ggml.tokens holds a token twice")
    types = fields.integers("tokenizer.ggml.token_type", [1] * len(tokens))
    if len(types) != len(tokens):
        raise ModelError(
            f"{fields.source}: tokenizer.ggml.token_type has {len(types)} entries, expected {len(tokens)}"
        )
    kind = fields.text("tokenizer.ggml.model")
    if kind == "gpt2":
        backend = _byte_level(fields, tokens)
    elif kind == "llama":
        backend = _sentencepiece(fields, tokens, types)
    else:
        raise ModelError(
            f"{fields.source}: tokenizer.ggml.model {kind!r} is not supported, expected gpt2 or llama"
        )
    backend.add_special_tokens(
        [
            AddedToken(text, special=True, normalized=False)
            for text, number in zip(tokens, types, strict=True)
            if number in (_UNKNOWN, _CONTROL) and text
        ]
    )
    backend.add_tokens(
        [
            AddedToken(text, special=False, normalized=False)
            for text, number in zip(tokens, types, strict=True)
            if number == _USER_DEFINED and text
        ]
    )
    return Tokenizer(
        backend,
        source=fields.source,
        eos_ids=eos_ids(fields, len(tokens)),
        bos_id=bos_id(fields, len(tokens)),
        chat_template=fields.text("tokenizer.chat_template", "") or None,
        unused_ids=[i for i, number in enumerate(types) if number == _UNUSED],
    )


def _token_id(fields: Fields, key: str, count: int) -> int | None:
    if key not in fields:
        return None
    token = fields.integer(key)
    if not 0 <= token < count:
        raise ModelError(f"{fields.source}: {key} is {token}, expected 0 to {count - 1}")
    return token


def bos_id(fields: Fields, count: int) -> int | None:
    """The token that begins a text: only if the file asks for one to be added (SentencePiece: unless it declines)."""
    wanted = fields.flag("tokenizer.ggml.add_bos_token", fields.text("tokenizer.ggml.model") == "llama")
    return _token_id(fields, "tokenizer.ggml.bos_token_id", count) if wanted else None


def eos_ids(fields: Fields, count: int) -> tuple[int, ...]:
    """The tokens that end a text: end of sequence and, where it differs, end of turn."""
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    found = [_token_id(fields, key, count) for key in keys]
    return tuple(dict.fromkeys(token for token in found if token is not None))


def _merges(fields: Fields, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    merges = []
    for text in fields.texts("tokenizer.ggml.merges"):
        left, space, right = text.partition(" ")
        if not space or any(part not in vocabulary for part in (left, right, left + right)):
            raise ModelError(
                f"{fields.source}: tokenizer.ggml.merges holds {text[:60]!r}, expected two known tokens"
            )
        merges.append((left, right))
    return merges


def _byte_level(fields: Fields, tokens: list[str]) -> tokenizers.Tokenizer:
    name = fields.text("tokenizer.ggml.pre", "gpt-2")
    vocabulary = {text: i for i, text in enumerate(tokens)}
    pre_tokenizer = _pre_tokenizer(name, fields.source)
    # Llama 3 takes a word that is a token as it is, whether or not merges lead to it.
    whole_words = name in ("llama-bpe", "llama-v3", "llama3")
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, _merges(fields, vocabulary), ignore_merges=whole_words)
    )
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    if name == "qwen2":
        backend.normalizer = normalizers.NFC()
    return backend


def _sentencepiece(fields: Fields, tokens: list[str], types: list[int]) -> tokenizers.Tokenizer:
    """SentencePiece BPE: merges, which the file does not hold, follow from the pieces' scores, best first."""
    scores = fields.numbers("tokenizer.ggml.scores")
    if len(scores) != len(tokens):
        raise ModelError(
            f"{fields.source}: tokenizer.ggml.scores has {len(scores)} entries, expected {len(tokens)}"
        )
    vocabulary = {text: i for i, text in enumerate(tokens)}
    ranked: list[tuple[float, int, int, str, str]] = []
    for i, text in enumerate(tokens):
        if types[i] != 1 or len(text) > 256:
            continue
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in vocabulary and right in vocabulary:
                ranked.append((-scores[i], vocabulary[left], vocabulary[right], left, right))
    ranked.sort()
    unknown = next((text for text, kind in zip(tokens, types, strict=True) if kind == _UNKNOWN), None)
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocabulary,
            [(left, right) for *_, left, right in ranked],
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = fields.flag("tokenizer.ggml.add_space_prefix", True)
    backend.normalizer = normalizers.Sequence(
        [*([normalizers.Prepend(_SPACE)] if prefix else []), normalizers.Replace(" ", _SPACE)]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefix else []),
        ]
    )
    return backend
