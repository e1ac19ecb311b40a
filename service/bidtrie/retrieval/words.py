"""Text to the words that lexical retrieval compares: folded, without function words, lightly stemmed."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")

#: English function words: in a title they say nothing about its topic.
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
    a about after all also am an and any are as at be because been before but by can could did do does for from had
    has have he her here his how i if in into is it its just may me more most my no not of on one or our out over own
    she should so some such than that the their them then there these they this those to too up us very was we were
    what when where which while who whom why will with would you your
    """,
    )
)


def words(text: str) -> list[str]:
    """The stemmed words of a text in their order; function words are left out.

    Upper and lower case, accents and compatibility forms do not matter.
    """
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    found = []
    for word in _WORD.findall(text.casefold()):
        if "'" in word or "\u2019" in word:
            word = word.replace("\u2019", "'").removesuffix("'s").replace("'", "")
        if word not in _STOP_WORDS:
            found.append(stem(word))
    return found


def words_as_written(text: str) -> list[tuple[str, str]]:
    """The words of a text, each with the way it is written there."""
    found = []
    for written in _WORD.findall(text):
        found += [(word, written) for word in words(written)]
    return found


def stem(word: str) -> str:
    """A word without the ending of an English plural: the "S" stemmer of Harman, "How effective is suffixing?" (1991).

    Stronger stemmers gained nothing on short texts; what they would unite, similar spelling finds.
    """
    if len(word) < 4 or not word.endswith("s") or word.endswith(("us", "ss")):
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    return word[:-1]
