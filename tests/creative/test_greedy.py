"""Greedy texts against transformers' own greedy decoding of the same tiny model."""

from pathlib import Path

import numpy as np
import pytest
from bidtrie.creative import candidate as candidate_module
from bidtrie.creative.constraint import Constraint
from bidtrie.creative.job import facts, generate
from bidtrie.creative.prompt import PromptTemplate
from bidtrie.creative.sampling import REPETITION_PENALTY
from bidtrie.creative.vocabulary import Vocabulary
from bidtrie.models.load import load_checkpoint
from creative.fakes import query, run
from reference.reference_engine import ReferenceEngine
from reference.tiny_models import save_tiny_model


@pytest.mark.parametrize("penalty", [1.0, REPETITION_PENALTY])
@pytest.mark.parametrize("seed", range(3))
def test_greedy_equals_transformers(
    seed: int, penalty: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no limit plays a part: the same tokens are banned, and the texts are the same."""
    import torch
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    model = save_tiny_model("llama", tmp_path, seed)
    checkpoint = load_checkpoint(tmp_path)
    engine = ReferenceEngine(checkpoint)
    vocabulary, prompt = (
        Vocabulary(checkpoint.tokenizer, engine.spec.vocab_size),
        short_prompt(checkpoint.tokenizer),
    )
    init = candidate_module.Sampler.__init__
    monkeypatch.setattr(
        candidate_module.Sampler, "__init__", lambda self, *given: init(self, *given, penalty=penalty)
    )
    asked = query((500,))
    rule = Constraint(vocabulary, facts(asked))
    result = run(engine, generate(engine, vocabulary, prompt, asked))

    ids = [*prompt.fixed_tokens, *prompt.rest_tokens(asked, asked.slots[0])]
    room = engine.spec.context_length - len(ids)
    path = greedy_transformers(model, ids, rule, room, penalty, RepetitionPenaltyLogitsProcessor, torch)
    assert len(path) < room, "the model itself stopped"
    assert result.texts[0].text == checkpoint.tokenizer.decode(path).removeprefix(" ")
    assert result.texts[0].tokens == len(path)


def short_prompt(tokenizer: object) -> PromptTemplate:
    """The tiny model's context has room for little."""
    prompt = PromptTemplate(tokenizer)  # type: ignore[arg-type]
    prompt.fixed_tokens = prompt.fixed_tokens[:50]
    return prompt


def greedy_transformers(model, ids, rule, room, penalty, penalize, torch) -> list[int]:  # type: ignore[no-untyped-def]
    """`generate(do_sample=False)` with the rule's masks as a logits processor; the stop is not returned."""
    from bidtrie.creative.constraint import TextState

    class Masks:
        def __call__(self, tokens, scores):  # type: ignore[no-untyped-def]
            state = TextState()
            for token in tokens[0, len(ids) :].tolist():
                state = rule.advance(state, token)
            return scores.masked_fill(~torch.from_numpy(rule.allowed(state)), -np.inf)

    output = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        max_new_tokens=room,
        eos_token_id=rule.vocabulary.stop_ids.tolist(),
        pad_token_id=0,
        logits_processor=[penalize(penalty, prompt_ignore_length=len(ids)), Masks()],
    )
    path = output[0, len(ids) :].tolist()
    return path[:-1] if rule.vocabulary.stop[path[-1]] else path
