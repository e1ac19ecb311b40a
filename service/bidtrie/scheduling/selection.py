"""Which requests share the next step."""

from collections.abc import Sequence

from bidtrie.scheduling.cost_model import CostModel
from bidtrie.scheduling.entry import Entry
from bidtrie.scheduling.service_class import RANK, ServiceClass, Shares
from bidtrie.scheduling.step_shape import StepShape

#: Waiting for company pays where one more request would add at most this share of the step's time.
CHEAP_COMPANY = 0.25
#: Shorter than a thread can sleep.
_LEAST_WAIT_S = 5e-5


def in_order(entries: Sequence[Entry], shares: Shares) -> list[Entry]:
    """Entries in the order in which they get into a step.

    Urgent classes first, earliest deadline first within a class (then the older one); but first of all the head of each
    class that is owed the time that it would take. Fills only where there is nothing else.
    """
    ordered = sorted(entries, key=lambda e: (RANK[e.service_class], e.deadline, e.arrived))
    if not ordered or ordered[0].service_class is ordered[-1].service_class:
        return ordered
    ordered = [e for e in ordered if e.service_class is not ServiceClass.FILL]
    owed = []
    seen = {ordered[0].service_class}
    for entry in ordered:
        if entry.service_class not in seen:
            seen.add(entry.service_class)
            if shares.owed(entry.service_class) > 0:
                owed.append(entry)
    return owed + [entry for entry in ordered if entry not in owed] if owed else ordered


def select(
    ordered: Sequence[Entry], model: CostModel, now: float, *, max_seconds: float, max_nodes: int
) -> list[Entry]:
    """The members of the next step, from entries of one level that all want a batch.

    The first always goes. Another joins if there is room, if the step is predicted to stay within `max_seconds`, and
    if it makes no member late that would be in time without it.
    """
    members: list[Entry] = []
    shape = StepShape()
    latest = float("inf")
    for entry in ordered:
        joined = shape.plus(entry.shape)
        if members:
            if joined.nodes > max_nodes:
                continue
            seconds = model.mean(joined)
            if seconds > max_seconds or now + model.margin * seconds > min(latest, entry.deadline):
                continue
        members.append(entry)
        shape = joined
        end = entry.latest_end()
        # One that cannot end in time even alone keeps no company out, but what it has found it must still tell in time.
        latest = min(latest, end if now + model.safe(entry.shape) <= end else entry.deadline)
        if joined.nodes >= max_nodes:
            break
    return members


def company_wait(
    members: Sequence[Entry],
    model: CostModel,
    now: float,
    *,
    gap: float,
    since_arrival: float,
    next_shape: StepShape,
) -> float:
    """Seconds to wait for one more member before the step begins; 0: begin.

    gap            seconds between arrivals of late, on average
    since_arrival  seconds since the last one
    next_shape     what an arriving request's first step is like

    Waiting pays where a step is bound by what does not depend on its size: one more member costs little, and saves a
    step of its own. It is never longer than the time saved, nor than a quarter of the slack of the tightest member.
    """
    shape = StepShape()
    for member in members:
        shape = shape.plus(member.shape)
    seconds = model.mean(shape)
    if model.mean(shape.plus(next_shape)) - seconds > CHEAP_COMPANY * seconds:
        return 0.0
    slack = min(member.latest_end() for member in members) - now - model.safe(shape)
    wait = max(0.0, gap - since_arrival)
    return wait if _LEAST_WAIT_S <= wait <= min(model.fixed(), slack / 4) else 0.0
