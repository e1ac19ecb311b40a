"""Who shares a step."""

import pytest
from bidtrie.scheduling.entry import Entry
from bidtrie.scheduling.job import Plan
from bidtrie.scheduling.selection import company_wait, in_order, select
from bidtrie.scheduling.service_class import WEIGHTS, ServiceClass, Shares
from bidtrie.scheduling.step_shape import StepShape
from scheduling.simulation import FIXED_S, NODE_S, knowing_model, step_seconds

MODEL = knowing_model()
INF = float("inf")


def entry(nodes: int, deadline: float = INF, later: tuple[int, ...] = (), **more) -> Entry:
    outline = tuple(StepShape(n, 0, 0, 0, 1) for n in (nodes, *later))
    service_class = more.pop("service_class", ServiceClass.TARGETING)
    made = Entry(service_class, deadline, more.pop("arrived", 0.0))
    made.take(Plan("full", 0, outline, lambda: iter(())), MODEL)
    return made


def chosen(entries, now=0.0, max_seconds=INF, max_nodes=1000):
    members = select(entries, MODEL, now, max_seconds=max_seconds, max_nodes=max_nodes)
    return [entries.index(member) for member in members]


def test_the_first_always_goes():
    assert chosen([entry(500)], max_seconds=0.001) == [0]


def test_others_join_while_there_is_room_and_time():
    entries = [entry(10), entry(10), entry(30), entry(5)]
    assert chosen(entries, max_nodes=26) == [0, 1, 3]
    assert chosen(entries, max_seconds=step_seconds(26)) == [0, 1, 3]
    assert chosen(entries) == [0, 1, 2, 3]


def test_nobody_joins_who_would_make_another_late():
    tight = step_seconds(10) + step_seconds(4) + 6.5 * NODE_S
    assert chosen([entry(10, tight, later=(4,)), entry(7), entry(6)]) == [0, 2]
    # One that is late even alone keeps nobody out, as long as it can still tell in time what it has.
    assert chosen([entry(10, step_seconds(25), later=(100,)), entry(10), entry(10)]) == [0, 1]


def test_nobody_joins_a_step_that_ends_after_its_own_deadline():
    assert chosen([entry(10), entry(5, step_seconds(10)), entry(5)]) == [0, 2]


def test_the_order_is_class_then_deadline_then_age():
    creative = entry(1, 0.5, service_class=ServiceClass.CREATIVE)
    old, young = entry(1, 2.0, arrived=0.0), entry(1, 2.0, arrived=1.0)
    first = entry(1, 1.0, arrived=2.0)
    assert in_order([young, creative, old, first], Shares()) == [first, old, young, creative]
    assert in_order([], Shares()) == []


def test_a_class_that_is_owed_goes_first_with_one():
    shares = Shares()
    targeting = {ServiceClass.TARGETING, ServiceClass.CREATIVE}
    a, b = (entry(1, 9.0, service_class=ServiceClass.CREATIVE) for _ in range(2))
    first = entry(1, 1.0)
    assert in_order([a, b, first], shares)[0] is first
    shares.charge(targeting, {ServiceClass.TARGETING: 1e-3})
    assert in_order([a, b, first], shares) == [a, first, b]
    shares.charge(targeting, {ServiceClass.CREATIVE: 1e-3})
    assert in_order([a, b, first], shares)[0] is first


def test_fills_go_alone_or_not_at_all():
    fill, other = (
        entry(1, service_class=ServiceClass.FILL),
        entry(1, service_class=ServiceClass.PREGENERATION),
    )
    assert in_order([fill, other], Shares()) == [other]
    assert in_order([fill], Shares()) == [fill]


def test_shares_follow_the_weights():
    shares = Shares()
    busy = {ServiceClass.TARGETING, ServiceClass.CREATIVE, ServiceClass.PREGENERATION}
    used = dict.fromkeys(busy, 0.0)
    for _ in range(20_000):
        first = max(busy, key=shares.owed)
        used[first] += 1e-3
        shares.charge(busy, {first: 1e-3})
    total = sum(WEIGHTS[each] for each in busy)
    for each in busy:
        assert used[each] / sum(used.values()) == pytest.approx(WEIGHTS[each] / total, rel=0.05)


def test_a_class_without_work_saves_up_nothing():
    shares = Shares()
    for _ in range(1000):
        shares.charge({ServiceClass.TARGETING, ServiceClass.CREATIVE}, {ServiceClass.TARGETING: 1e-2})
    assert shares.owed(ServiceClass.CREATIVE) == shares.MOST_OWED_S
    shares.charge({ServiceClass.TARGETING}, {ServiceClass.TARGETING: 1e-2})
    assert shares.owed(ServiceClass.CREATIVE) == 0


FLAT = knowing_model(lambda nodes: 4e-3 + 1e-6 * nodes)
NEXT = StepShape(10, 0, 0, 0, 1)


@pytest.mark.parametrize(
    ("model", "deadline", "gap", "since", "expected"),
    [
        (FLAT, INF, 2e-3, 1e-3, 1e-3),  # somebody is about to come, and costs next to nothing
        (FLAT, INF, 2e-3, 3e-3, 0.0),  # somebody should have come by now
        (FLAT, INF, 9e-3, 1e-3, 0.0),  # waiting would take longer than the step that it saves
        (FLAT, 4e-3 + 3e-3, 2e-3, 1e-3, 0.0),  # no slack
        (FLAT, 4e-3 + 9e-3, 2e-3, 1e-3, 1e-3),
        (FLAT, INF, INF, INF, 0.0),  # nobody ever came
        (MODEL, INF, 1e-3, 5e-4, 0.0),  # company is dear here
    ],
)
def test_waiting_for_company(model, deadline, gap, since, expected):
    wait = company_wait([entry(4, deadline)], model, 0.0, gap=gap, since_arrival=since, next_shape=NEXT)
    assert wait == pytest.approx(expected)


def test_the_simulated_cost_is_what_the_tests_take_it_for():
    assert MODEL.fixed() == pytest.approx(FIXED_S, rel=1e-3)
    assert MODEL.mean(NEXT) == pytest.approx(step_seconds(10), rel=1e-3)
