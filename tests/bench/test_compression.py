"""What bench.compression makes of its figures."""

from bidtrie.evaluation.targeting import Tally

from bench.compression import Targeted, front


def test_front() -> None:
    """A point is left out only if another one is as good in everything and better in something."""
    points = [
        {"name": "a", "bits": 4.5, "ppl": 10.0, "ms": 2.0},
        {"name": "beaten", "bits": 4.5, "ppl": 11.0, "ms": 2.0},
        {"name": "fewer bits", "bits": 3.0, "ppl": 12.0, "ms": 2.5},
        {"name": "faster", "bits": 5.0, "ppl": 12.0, "ms": 1.0},
        {"name": "beaten by all", "bits": 5.0, "ppl": 13.0, "ms": 3.0},
    ]
    assert [each["name"] for each in front(points, ("bits", "ppl", "ms"))] == ["faster", "a", "fewer bits"]
    twins = [points[0], {**points[0], "name": "twin"}]
    assert len(front(twins, ("bits", "ppl", "ms"))) == 2


def test_agreement() -> None:
    def targeted(answers: list[list[int]], hits: list[bool]) -> Targeted:
        tally = Tally(tier1_top1=hits, latency_ms=[1.0, 3.0])
        return Targeted({"llm": answers, "default": answers}, {"llm": tally, "default": tally})

    dense = targeted([[1, 2, 3], [4, 5, 6]], [True, True])
    other = targeted([[2, 1, 9], [4, 6, 5]], [False, True])
    found = other.figures(dense)
    assert found["llm_agreement_top3"] == (2 / 3 + 1) / 2
    assert found["llm_same_first"] == 0.5
    assert found["llm_tier1_top1"] == 0.5
    assert found["default_targeting_p50_ms"] == 2
    assert dense.figures(dense)["llm_agreement_top3"] == 1
