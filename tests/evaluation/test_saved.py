"""Runs on disk, page by page, and their comparison."""

import json
from pathlib import Path

import pytest
from bidtrie.errors import InvalidInput
from bidtrie.evaluation.pages import Page
from bidtrie.evaluation.saved import compare_runs, load_saved, same_first, save
from bidtrie.evaluation.targeting import Ranked, Tally
from bidtrie.requests import PageContext, ScoredSegment

FOOD, BREAD, ART = (
    ScoredSegment("2", "Food", ("Food",), 2.5),
    ScoredSegment("3", "Bread", ("Food", "Bread"), 1.25),
    ScoredSegment("5", "Art", ("Art",), -0.1),
)
PAGES = [Page((("Food", "Bread"),), PageContext(title=f"Brot {i} ü")) for i in range(4)]


def write(
    file: Path, firsts: list[list[ScoredSegment]], pages: list[Page] = PAGES, name: str = "llm"
) -> Path:
    tally = Tally()
    for page, answer in zip(pages, firsts, strict=True):
        tally.add_answer(page, Ranked(answer), 1.0)
    save(file, pages, {name: tally})
    return file


def test_a_line_holds_the_first_five(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [[FOOD, BREAD, ART, FOOD, ART, BREAD], [], [BREAD], [ART]])
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert lines[0]["expected"] == [["Food", "Bread"]]
    assert lines[0]["rankers"]["llm"] == {
        "ids": ["2", "3", "5", "2", "5"],
        "scores": [2.5, 1.25, -0.1, 2.5, -0.1],
        "tier1_top1": True,
        "tier1_top3": True,
        "path_top1": False,
        "path_top5": True,
    }
    assert lines[1]["rankers"]["llm"]["ids"] == []
    assert len({line["page"] for line in lines}) == 4
    assert [each.name for each in tmp_path.iterdir()] == ["a.jsonl"]


def test_two_runs_are_compared_page_by_page(tmp_path: Path) -> None:
    a = load_saved(write(tmp_path / "a.jsonl", [[FOOD], [], [BREAD], [ART]]))
    b = load_saved(write(tmp_path / "b.jsonl", [[BREAD], [BREAD], [BREAD], [ART]]))
    found = compare_runs(a, b)["llm"]
    path = found["path_top1"].to_json()
    assert (path["a"], path["b"], path["difference_points"]) == (0.25, 0.75, 50.0)
    assert (path["only_a"], path["only_b"], path["p"]) == (0, 2, 0.5)
    assert path["low"] < 50 < path["high"]
    assert found["tier1_top1"].to_json()["difference_points"] == 25.0
    assert same_first(a, b, "llm") == 0.5
    turned = compare_runs(b, a)["llm"]["path_top1"].to_json()
    assert (turned["difference_points"], turned["only_a"], turned["only_b"]) == (-50.0, 2, 0)
    assert compare_runs(a, a)["llm"]["path_top1"].to_json()["p"] == 1.0


def test_pages_of_tier_1_have_no_paths_to_compare(tmp_path: Path) -> None:
    pages = [Page((("Food",),), PageContext(title="x"))]
    run = load_saved(write(tmp_path / "a.jsonl", [[FOOD]], pages))
    assert compare_runs(run, run)["llm"]["path_top1"] is None


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    answers = [[FOOD]] * 4
    a = load_saved(write(tmp_path / "a.jsonl", answers))
    fewer = load_saved(write(tmp_path / "b.jsonl", answers[:3], PAGES[:3]))
    turned = load_saved(write(tmp_path / "c.jsonl", answers, [PAGES[0], *PAGES[:0:-1]]))
    relabelled = [*PAGES[:3], Page((("Art",),), PAGES[3].context)]
    other = load_saved(write(tmp_path / "d.jsonl", answers, relabelled))
    named = load_saved(write(tmp_path / "e.jsonl", answers, name="both"))
    for b, message in (
        (fewer, "B: has 3 pages, expected 4 as in A"),
        (turned, "B: line 2 is another page than in A"),
        (other, "B: line 4 is another page than in A, or has other right answers"),
        (named, "B: has no ranker of A, expected one of llm"),
    ):
        with pytest.raises(InvalidInput, match=message):
            compare_runs(a, b)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "{}",
        '{"page": "x", "expected": [["Art"]], "rankers": {"both": {"ids": [], "tier1_top1": true, "path_top1": true}}}',
        '{"page": "x", "expected": [["Art"]], "rankers": {"llm": {"ids": [], "tier1_top1": 1, "path_top1": true}}}',
        '{"page": "x", "expected": 3, "rankers": {"llm": {"ids": [], "tier1_top1": true, "path_top1": true}}}',
        '{"page": "x", "expected": [["Art"]], "rankers": []}',
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, line: str) -> None:
    file = write(tmp_path / "a.jsonl", [[FOOD]] * 4)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(line + "\n")
    with pytest.raises(
        InvalidInput, match=r"^a\.jsonl:5: expected a line of `bidtrie eval targeting --save`$"
    ):
        load_saved(file)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no\.jsonl: cannot be read: No such file"):
        load_saved(tmp_path / "no.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(InvalidInput, match="holds no page"):
        load_saved(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="is not UTF-8 text"):
        load_saved(tmp_path / "binary.jsonl")
    with pytest.raises(InvalidInput, match=r"--save: .* cannot be written: No such file"):
        write(tmp_path / "none" / "a.jsonl", [[FOOD]] * 4)
