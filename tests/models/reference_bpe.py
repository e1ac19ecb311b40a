"""Tokenizers written a second time, plainly: byte-level BPE after GPT-2's encoder.py, and SentencePiece's merging."""

from itertools import pairwise

import regex
from gguf.constants import Keys

#: As llama.cpp's `llama-vocab.cpp` spells them: each pattern cuts what the one before it left whole.
LLAMA_CPP_PATTERNS = {
    "gpt-2": [r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"],
    "smollm": [
        r"\p{N}",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    ],
    "llama-bpe": [
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "qwen2": [
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
}
MERGES_KEY, TOKENS_KEY = Keys.Tokenizer.MERGES, Keys.Tokenizer.LIST


def cut(text: str, pre: str) -> list[str]:
    """Split a text into the words that merges do not cross."""
    words = [text] if text else []
    for pattern in LLAMA_CPP_PATTERNS[pre]:
        words = [piece for word in words for piece in _pieces(word, pattern)]
    return words


def _pieces(word: str, pattern: str) -> list[str]:
    pieces, at = [], 0
    for match in regex.finditer(pattern, word):
        pieces += [word[at : match.start()], match.group()]
        at = match.end()
    return [piece for piece in [*pieces, word[at:]] if piece]


def bytes_to_unicode() -> dict[int, str]:
    """GPT-2's encoder.py, as published."""
    bs = (
        list(range(ord("!"), ord("~") + 1))
        + list(range(ord("¡"), ord("¬") + 1))
        + list(range(ord("®"), ord("ÿ") + 1))
    )
    cs = bs[:]
    n = 0
    for b in range(2**8):
        if b not in bs:
            bs.append(b)
            cs.append(2**8 + n)
            n += 1
    return dict(zip(bs, map(chr, cs), strict=True))


def byte_level_ids(
    text: str, pre: str, tokens: list[str], merges: list[str], whole_words: bool = False
) -> list[int]:
    """Ids of a text: always the pair of lowest merge rank next, leftmost first."""
    vocabulary = {token: i for i, token in enumerate(tokens)}
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
    alphabet = bytes_to_unicode()
    ids: list[int] = []
    for word in cut(text, pre):
        parts = [alphabet[byte] for byte in word.encode()]
        if whole_words and "".join(parts) in vocabulary:
            ids.append(vocabulary["".join(parts)])
            continue
        while len(parts) > 1:
            pairs = list(pairwise(parts))
            best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            at = pairs.index(best)
            parts[at : at + 2] = ["".join(best)]
        ids += [vocabulary[part] for part in parts]
    return ids


def sentencepiece_ids(
    text: str, tokens: list[str], scores: list[float], add_space_prefix: bool = True
) -> list[int]:
    """SentencePiece's BPE: the adjacent pair whose union scores best is next, leftmost first; bytes for the rest."""
    if not text:
        return []
    vocabulary = {token: i for i, token in enumerate(tokens)}
    parts = list((" " if add_space_prefix else "") + text)
    parts = [part.replace(" ", "\u2581") for part in parts]
    while True:
        unions = [
            (-scores[vocabulary[a + b]], at)
            for at, (a, b) in enumerate(pairwise(parts))
            if a + b in vocabulary
        ]
        if not unions:
            break
        _, at = min(unions)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    ids: list[int] = []
    for part in parts:
        ids += (
            [vocabulary[part]]
            if part in vocabulary
            else [vocabulary[f"<0x{byte:02X}>"] for byte in part.encode()]
        )
    return ids
