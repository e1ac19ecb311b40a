"""What a deadline leaves for handing the answer over, and how long a prompt will be."""

import random

import pytest
from bidtrie.requests import Search
from bidtrie.serving.hand_off import HandOff
from bidtrie.serving.prompt_length import PromptLength
from bidtrie.serving.target_plans import target_plans


def test_the_reserve_covers_nearly_all_late_hand_overs():
    hand_off, draw = HandOff(), random.Random(1)
    assert hand_off.reserve_s == 0.002
    late = [draw.expovariate(1000) for _ in range(256)]
    for seconds in [1.0, *late]:  # the first has left the window
        hand_off.note(seconds)
    covered = sum(seconds <= hand_off.reserve_s for seconds in late)
    assert covered >= 0.99 * len(late)
    assert hand_off.reserve_s < 0.02


def test_the_reserve_is_bounded():
    hand_off = HandOff()
    hand_off.note(10.0)
    assert hand_off.reserve_s == 0.02
    for _ in range(300):
        hand_off.note(0.0)
    assert hand_off.reserve_s == 0.001


def test_the_length_of_a_prompt_is_learned():
    length, draw = PromptLength(128), random.Random(1)
    for _ in range(500):
        characters = draw.randint(20, 400)
        length.note("x" * characters, 8 + characters // 3)
    assert abs(length.expected("x" * 150) - (8 + 50)) <= 4
    assert length.expected("x" * 100_000) == 8 + 128
    assert length.expected("") >= 1


def test_prompts_that_were_cut_teach_nothing():
    length = PromptLength(16)
    before = length.expected("x" * 30)
    for _ in range(100):
        length.note("x" * 10_000, 24)
        length.note("", 8)
    assert length.expected("x" * 30) == before


def test_the_ladder_of_a_beam_goes_from_wide_and_deep_to_one_level():
    ladder = target_plans(Search.BEAM, 4)
    assert [(plan.name, plan.beam_width, plan.levels, plan.steps) for plan in ladder] == [
        ("full", 4, None, None),
        ("narrow", 2, None, None),
        ("coarse", 4, 2, 2),
        ("coarsest", 4, 1, 1),
    ]
    assert [plan.name for plan in target_plans(Search.BEAM, 1)] == ["full", "coarse", "coarsest"]


@pytest.mark.parametrize("method", [Search.EXACT, Search.LIKELY])
def test_the_ladder_of_a_best_first_search_leaves_out_more_and_more(method):
    full, narrow, coarse, coarsest = target_plans(method, 4)
    assert [plan.name for plan in (full, narrow, coarse, coarsest)] == [
        "full",
        "narrow",
        "coarse",
        "coarsest",
    ]
    assert (full.method, full.steps, full.branches) == (method, None, None)
    assert (narrow.method, narrow.steps, narrow.branches) == (Search.LIKELY, None, None)
    assert narrow.margin < full.margin
    assert coarse.branches > coarsest.branches == 1
    assert coarse.steps > coarsest.steps == 1
