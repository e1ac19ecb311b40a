"""The same model in Hugging Face transformers, as users write targeting today: prefix-constrained beam search."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from bidtrie.models.checkpoint import Checkpoint
from bidtrie.trie.trie import Trie
from transformers import LlamaConfig, LlamaForCausalLM


def transformers_model(checkpoint: Checkpoint) -> Any:
    """A Llama checkpoint's weights, dequantized to float32, in transformers' own model."""
    config = checkpoint.config
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.rms_norm_eps,
            max_position_embeddings=config.context_length,
            tie_word_embeddings=config.tie_word_embeddings,
            bos_token_id=config.bos_token_id,
            eos_token_id=config.eos_token_ids[0] if config.eos_token_ids else None,
        )
    )
    state = {name: torch.from_numpy(tensor.dequantize()) for name, tensor in checkpoint.tensors.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    if set(missing) - tied or unexpected:
        raise ValueError(f"tensors missing: {missing}, unexpected: {unexpected}")
    model.tie_weights()
    # The frequencies are the checkpoint's own, scaling included.
    model.model.rotary_emb.inv_freq = torch.from_numpy(config.inv_freq)
    model.model.rotary_emb.attention_scaling = config.attention_factor
    return model.eval()


@dataclass(frozen=True)
class BeamPath:
    """A finished path of constrained beam search and its log-probability, the terminator's included."""

    segment: int
    score: float


def constrained_beam(
    model: Any, trie: Trie, prompt: Sequence[int], beams: int, top: int, length_penalty: float = 0.0
) -> list[BeamPath]:
    """Beam search with `prefix_allowed_tokens_fn` over the trie; best first.

    The trie's terminator is the end-of-sequence token of the search. With a length penalty of 0, scores are
    log-probabilities; transformers' own default is 1.
    """
    start = len(prompt)

    def node_of(path: Sequence[int]) -> int:
        node = 0
        for token in path:
            node = next(child for child in trie.children(node) if trie.token[child] == token)
        return node

    def allowed(_: int, ids: torch.Tensor) -> list[int]:
        path = ids[start:].tolist()
        if trie.terminator in path:
            return [trie.terminator]
        return [int(trie.token[child]) for child in trie.children(node_of(path))]

    output = model.generate(
        torch.tensor([list(prompt)]),
        attention_mask=torch.ones(1, start, dtype=torch.long),
        num_beams=beams,
        num_return_sequences=top,
        max_new_tokens=int(trie.depth.max()) + 1,
        do_sample=False,
        length_penalty=length_penalty,
        early_stopping=False,
        eos_token_id=trie.terminator,
        pad_token_id=trie.terminator,
        prefix_allowed_tokens_fn=allowed,
        return_dict_in_generate=True,
        output_scores=True,
    )
    found = []
    for ids, score in zip(output.sequences.tolist(), output.sequences_scores.tolist(), strict=True):
        path = ids[start:]
        node = node_of(path[: path.index(trie.terminator) + 1])
        found.append(BeamPath(int(trie.segment[node]), score))
    return found
