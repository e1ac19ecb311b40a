"""What single characters may do in an ad's text.

Categories are those of the Unicode Character Database ("Lu", "Nd" …), as `unicodedata` knows them.
"""

import unicodedata
from functools import cache

#: Marks that an ad has no use for and that models write around placeholders, quotations and markup; U+FFFD is what
#: broken text decodes to.
_MARKUP = frozenset('"“”„«»[]{}<>|\\^`*_~\ufffd')
_JOINERS = frozenset("\u200c\u200d")
#: A text cannot end on these: something is missing behind them.
_DANGLING = frozenset("&+/=,;:@#¿¡'‘") | _JOINERS
_CLOSING = frozenset(".,!?:;…)–—。、！？：；）")
_SMALL_KANA = frozenset("ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮ")


@cache
def is_writable(character: str) -> bool:
    """Whether a text may hold it: no controls, no line breaks, no space but U+0020, no markup, nothing unassigned."""
    if character in _MARKUP:
        return False
    category = unicodedata.category(character)
    if category == "Cf":
        return character in _JOINERS
    return category[0] not in "CZ" or character == " "


@cache
def can_begin(character: str) -> bool:
    """Whether a text may begin with it: letters, digits, currency signs, inverted Spanish marks."""
    return unicodedata.category(character)[0] in "LN" or is_numeric(character) or character in "¿¡"


@cache
def can_end(character: str) -> bool:
    """Whether a text may end with it: no space, no opening bracket, no dash, no connector."""
    return character not in _DANGLING and unicodedata.category(character) not in ("Ps", "Pi", "Pd", "Zs")


@cache
def is_digit(character: str) -> bool:
    """Digits and other numerals of any script, superscripts and fractions included."""
    return unicodedata.category(character)[0] == "N"


@cache
def is_numeric(character: str) -> bool:
    """Characters that make up figures: numerals, currency signs, per cent and per mille."""
    return is_digit(character) or character in "%‰" or unicodedata.category(character) == "Sc"


@cache
def is_foreign(character: str) -> bool:
    """Letters of scripts other than Latin, full-width forms included."""
    letter = unicodedata.category(character)[0] == "L" and ord(character) > 0xFF
    return letter and not unicodedata.name(character, "").startswith(("LATIN", "MODIFIER LETTER"))


@cache
def starts_word(character: str) -> bool:
    """Whether the text before it is complete as far as words go: a space, or a Han or Kana character.

    Chinese and Japanese are written without spaces; lines may break between most of their characters (class ID of
    Unicode Standard Annex 14), and so may texts end there.
    """
    if character == " ":
        return True
    if unicodedata.category(character) != "Lo" or character in _SMALL_KANA:
        return False
    code = ord(character)
    return 0x3041 <= code <= 0x30FF or 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or code >= 0x20000


def closes_word(character: str) -> bool:
    """Punctuation before which a word is complete."""
    return character in _CLOSING
