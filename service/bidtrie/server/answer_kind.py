"""What an answer is worth, as a metric label says it."""

from bidtrie.requests import GenerateAnswer, TargetAnswer


def kind_of_answer(answer: TargetAnswer | GenerateAnswer) -> str:
    """full, partial, cached (fresh), stale (cached, past its time) or fallback (no model took part)."""
    if answer.cache_age_s is not None:
        return "stale" if answer.fallback else "cached"
    if answer.fallback:
        return "fallback"
    return "partial" if answer.partial else "full"
