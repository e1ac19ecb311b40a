"""Labelled pages and the judging of answers, against cases counted by hand."""

import pytest
from bidtrie.errors import InvalidInput
from bidtrie.evaluation.pages import Page, PageField, read_pages, with_only
from bidtrie.evaluation.targeting import Ranked, Tally, calibrate, compare, either_right, evaluate, has_paths
from bidtrie.requests import PageContext, ScoredSegment
from bidtrie.trie.catalog import Catalog, Segment

PATHS = [("Cars",), ("Cars", "SUV"), ("Food",), ("Food", "Bread"), ("Food", "Bread", "Rye"), ("Art",)]


@pytest.fixture
def catalog():
    return Catalog("small", [Segment(str(i), path[-1], path) for i, path in enumerate(PATHS)])


def write(tmp_path, text: str):
    path = tmp_path / "pages.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def test_all_columns_and_several_right_answers(tmp_path, catalog):
    file = write(
        tmp_path,
        "# easy\n\nFood > Bread|Cars\tA title\tText\tone, two\tAn app\nArt\t\t\t\tGallery\nCars\tOnly a title\n",
    )
    pages = read_pages(file, catalog)
    assert pages[0].expected == (("Food", "Bread"), ("Cars",))
    assert pages[0].context == PageContext("A title", "Text", ("one", "two"), app_name="An app")
    assert pages[1].context == PageContext(app_name="Gallery")
    assert has_paths(pages)
    assert not has_paths(pages[1:])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Cars", r"pages\.tsv:1: expected 2 to 5 columns"),
        ("Cars\t\t", r"pages\.tsv:1: the context is empty"),
        ("Boats\tA title", r"pages\.tsv:1: not in the catalog: Boats"),
        ("Cars > SUV > Red|Cars\tA title", "not in the catalog: Cars > SUV > Red"),
        ("a\tb\tc\td\te\tf", "found 6"),
        ("# only a comment", "holds no page"),
    ],
)
def test_wrong_lines_are_named(tmp_path, catalog, line, message):
    with pytest.raises(InvalidInput, match=message):
        read_pages(write(tmp_path, line + "\n"), catalog)


def test_many_wrong_lines_are_counted(tmp_path, catalog):
    with pytest.raises(InvalidInput) as wrong:
        read_pages(write(tmp_path, "Boats\tx\n" * 50), catalog)
    assert len(wrong.value.violations) == 21
    assert "30 more" in wrong.value.violations[-1].description


def test_judging():
    page = Page((("Food", "Bread"),), PageContext(title="x"))
    tally = Tally()
    # Right path second; tier 1 right at once.
    tally.add(page, [("Food", "Bread", "Rye"), ("Food", "Bread"), ("Cars",)], 1.0)
    # Tier 1 only third among the distinct ones: the two cars count once.
    tally.add(page, [("Cars",), ("Cars", "SUV"), ("Art",), ("Food",)], 3.0)
    tally.add(page, [("Cars",), ("Art",), ("Music",), ("Food", "Bread")], 2.0)
    tally.add(page, [], 10.0)
    assert tally.tier1_top1 == [True, False, False, False]
    assert tally.tier1_top3 == [True, True, False, False]
    assert tally.path_top1 == [False] * 4
    assert tally.path_top5 == [True, False, True, False]
    summary = tally.summary(paths=True)
    assert (summary["tier1_top1"], summary["tier1_top3"], summary["path_top5"]) == (0.25, 0.5, 0.5)
    assert (summary["n"], summary["latency_ms_p50"]) == (4, 2.5)
    assert summary["tier1_top1_low"] < 0.25 < summary["tier1_top1_high"]
    assert summary["path_top1_low"] == 0
    without = tally.summary(paths=False)
    assert [without[key] for key in ("path_top1", "path_top1_low", "path_top5_high")] == [None] * 3
    assert without["tier1_top3_low"] == summary["tier1_top3_low"]


def test_every_ranker_sees_every_page_after_one_warm_up():
    asked: list[tuple[str, str]] = []

    def ranker(name):
        def rank(context):
            asked.append((name, context.title))
            return Ranked([ScoredSegment("2", "Food", ("Food",), 1.0)], cached=name == "b")

        return rank

    pages = [Page((("Food",),), PageContext(title=str(i))) for i in range(3)]
    *_, tallies = evaluate(pages, {"a": ranker("a"), "b": ranker("b")})
    assert asked == [
        ("a", "0"),
        ("b", "0"),
        ("a", "0"),
        ("b", "0"),
        ("a", "1"),
        ("b", "1"),
        ("a", "2"),
        ("b", "2"),
    ]
    assert all(tally.summary(paths=True)["tier1_top1"] == 1.0 for tally in tallies.values())
    assert [tallies[name].cached for name in ("a", "b")] == [0, 3]
    assert [len(tally.answers) for tally in tallies.values()] == [3, 3]


def tally_of(answers: list[ScoredSegment | None], page: Page) -> Tally:
    tally = Tally()
    for answer in answers:
        tally.add_answer(page, Ranked([answer] if answer else []), 1.0)
    return tally


def test_rankers_are_compared_where_they_are_there():
    page = Page((("Food", "Bread"),), PageContext(title="x"))
    bread = ScoredSegment("3", "Bread", ("Food", "Bread"), 1.0)
    food, art = ScoredSegment("2", "Food", ("Food",), 2.0), ScoredSegment("5", "Art", ("Art",), 3.0)
    tallies = {
        "both": tally_of([bread, bread, bread, art, None], page),
        "retriever": tally_of([bread, food, art, food, None], page),
        "lexical": tally_of([art] * 5, page),
    }
    found = compare(tallies, paths=True)
    assert list(found) == ["both_vs_retriever"]
    tier1, path = found["both_vs_retriever"]["tier1_top1"], found["both_vs_retriever"]["path_top1"]
    assert (tier1.only_first, tier1.only_second, tier1.difference_points, tier1.p) == (1, 1, 0.0, 1.0)
    assert (path.only_first, path.only_second, path.difference_points, path.p) == (2, 0, 40.0, 0.5)
    assert compare(tallies, paths=False)["both_vs_retriever"]["path_top1"] is None
    tallies["embedding"] = tallies["llm"] = tallies["lexical"]
    assert list(compare(tallies, paths=True)) == [
        "both_vs_retriever",
        "llm_vs_retriever",
        "both_vs_embedding",
    ]


def test_what_either_of_retriever_and_model_knows():
    tallies = {"llm": Tally(), "retriever": Tally()}
    assert either_right({"llm": tallies["llm"]}, paths=True) == {}
    tallies["llm"].tier1_top1[:], tallies["llm"].path_top1[:] = (
        [True, True, False, False],
        [True] + 3 * [False],
    )
    tallies["retriever"].tier1_top1[:], tallies["retriever"].path_top1[:] = (
        [True, False, True, False],
        4 * [False],
    )
    assert either_right(tallies, paths=True) == {"tier1_top1": 0.75, "path_top1": 0.25}
    assert either_right(tallies, paths=False) == {"tier1_top1": 0.75, "path_top1": None}


def test_only_the_models_scores_are_calibrated():
    page = Page((("Food",),), PageContext(title="x"))
    food = ScoredSegment("2", "Food", ("Food",), 2.0)
    tally = tally_of([food, food, None], page)
    found = calibrate({"both": tally, "retriever": tally}, paths=False)
    assert list(found) == ["both"]
    assert found["both"]["path"] is None
    assert found["both"]["tier1"].right.tolist() == [True, True]
    # One answered page is no two halves.
    assert calibrate({"llm": tally_of([food, None], page)}, paths=False)["llm"]["tier1"] is None


def test_with_only_some_fields_and_without_pages_that_have_none():
    full = Page((("Cars",),), PageContext("A title", "Text", ("one", "two"), app_name="An app"))
    bare = Page((("Art",),), PageContext("Only a title"))
    assert with_only([full, bare], [PageField.KEYWORDS]) == [
        Page((("Cars",),), PageContext(keywords=("one", "two")))
    ]
    both = with_only([full, bare], [PageField.TITLE, PageField.APP_NAME])
    assert [page.context for page in both] == [PageContext("A title", app_name="An app"), bare.context]
    assert with_only([bare], [PageField.DESCRIPTION]) == []
