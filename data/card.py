"""What the training pairs are like: counts, diversity, near duplicates, and leaks into the evaluation sets.

    python -m data.card

prints one JSON object. Near duplicates are pairs of texts whose sets of word trigrams (Broder 1997: shingles; words and
bigrams where a text is shorter) overlap by a Jaccard similarity of `NEAR` or more.
"""

import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
PAGES = HERE / "pages-train.tsv", HERE / "pages-more.tsv"
CREATIVES = HERE / "creatives-train.csv", HERE / "creatives-more.csv"
EVALUATION = HERE.parent / "bench" / "data"
NEAR = 0.6
_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Lower-case words of a text."""
    return _WORD.findall(text.lower())


def page_lines(*files: Path) -> list[list[str]]:
    """Columns of the lines of pages, five each: expected, title, description, keywords, app name."""
    found = []
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                columns = line.split("\t")
                found.append(columns + [""] * (5 - len(columns)))
    return found


def creative_rows(*files: Path) -> list[dict[str, str]]:
    """The rows of CSVs of products."""
    found: list[dict[str, str]] = []
    for file in files:
        with file.open(encoding="utf-8", newline="") as lines:
            found += csv.DictReader(lines)
    return found


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Word trigrams; a shorter text is one shingle."""
    found = words(text)
    size = min(3, max(1, len(found) - 1))
    return frozenset(tuple(found[i : i + size]) for i in range(len(found) - size + 1))


def near(first: Sequence[str], second: Sequence[str] | None = None) -> Iterator[tuple[int, int]]:
    """Pairs of near duplicates: within `first`, or between `first` and `second` (indices into each)."""
    mine = [shingles(text) for text in first]
    others = mine if second is None else [shingles(text) for text in second]
    holding: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i, grams in enumerate(mine):
        for gram in grams:
            holding[gram].append(i)
    for j, grams in enumerate(others):
        shared = Counter(i for gram in grams for i in holding.get(gram, ()))
        for i, count in shared.items():
            if second is None and i >= j:
                continue
            if count / len(mine[i] | grams) >= NEAR:
                yield i, j


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words over all (Li et al. 2016)."""
    grams = [tuple(each[i : i + n]) for each in map(words, texts) for i in range(len(each) - n + 1)]
    return len(set(grams)) / max(1, len(grams))


def openings(texts: Sequence[str]) -> float:
    """The share of the most frequent beginning of three words: what template sentences would raise."""
    counts = Counter(tuple(words(text)[:3]) for text in texts if len(words(text)) > 2)
    return max(counts.values()) / max(1, len(texts))


def text_of(columns: Sequence[str]) -> str:
    """All that a page says."""
    return " ".join(part for part in columns[1:] if part)


def main() -> None:
    pages, tests = page_lines(*PAGES), page_lines(*sorted(EVALUATION.glob("pages*.tsv")))
    rows, test_rows = creative_rows(*CREATIVES), creative_rows(EVALUATION / "products.csv")
    texts, titles = [text_of(page) for page in pages], [page[1] for page in pages if page[1]]
    paths = Counter(path for page in pages for path in page[0].split("|"))
    ads = [row["output"] for row in rows]
    print(
        json.dumps(
            {
                "pages": len(pages),
                "paths": len(paths),
                "fewest_pages_of_a_path": min(paths.values()),
                "pages_with_several_paths": sum("|" in page[0] for page in pages),
                "title_words_mean": sum(len(words(title)) for title in titles) / len(titles),
                "title_distinct_1": distinct(titles, 1),
                "title_distinct_2": distinct(titles, 2),
                "title_distinct_3": distinct(titles, 3),
                "title_most_frequent_opening": openings(titles),
                "pages_near_duplicates": len(list(near(texts))),
                "pages_near_evaluation": len(list(near(texts, [text_of(test) for test in tests]))),
                "creatives": dict(Counter(row["type"] for row in rows)),
                "creative_distinct_1": distinct(ads, 1),
                "creative_distinct_2": distinct(ads, 2),
                "creative_most_frequent_opening": openings(ads),
                "creatives_near_duplicates": len(list(near(ads))),
                "creatives_near_evaluation": len(list(near(ads, [row["output"] for row in test_rows]))),
            }
        )
    )


if __name__ == "__main__":
    main()
