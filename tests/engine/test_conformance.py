"""The conformance suite on every engine of the package."""

import pytest
from engine.conformance import CHECKS, INVARIANCE_CHECKS, SLOT_CHECKS, Check
from engine.subjects import SUBJECTS

ALL = CHECKS | SLOT_CHECKS | INVARIANCE_CHECKS


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_conformance(name: str, check: Check) -> None:
    check(SUBJECTS[name]())


@pytest.mark.parametrize("check", SLOT_CHECKS.values(), ids=SLOT_CHECKS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_slots(name: str, check: Check) -> None:
    subject = SUBJECTS[name]()
    if not subject.exact_slots:
        pytest.skip("the engine's slots cannot be counted")
    check(subject)


@pytest.mark.parametrize("check", INVARIANCE_CHECKS.values(), ids=INVARIANCE_CHECKS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_batch_invariance(name: str, check: Check) -> None:
    subject = SUBJECTS[name]()
    if not subject.batch_invariant:
        pytest.skip("the engine does not promise the same bits")
    check(subject)
