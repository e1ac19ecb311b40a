"""A checkpoint as a transformers model, whatever file it came from."""

from typing import Any

import torch

from bidtrie.errors import ModelError
from bidtrie.models.checkpoint import Checkpoint


def torch_model(checkpoint: Checkpoint) -> Any:
    """The model in float32, in transformers' own class. Raises ModelError if a config.json cannot say it."""
    import transformers

    if checkpoint.huggingface_config is None:
        raise ModelError(
            f"{checkpoint.name}: its rotary frequencies cannot be said in a Hugging Face config.json"
        )
    kind = getattr(transformers, checkpoint.config.architecture)
    model = kind(kind.config_class(**checkpoint.huggingface_config))
    state = {
        name: torch.from_numpy(tensor.dequantize().copy()) for name, tensor in checkpoint.tensors.items()
    }
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = {"lm_head.weight"} if checkpoint.config.tie_word_embeddings else set()
    if unexpected or set(missing) - tied:
        raise ModelError(
            f"{checkpoint.name}: transformers does not take it: missing {sorted(missing)}, unknown {sorted(unexpected)}"
        )
    model.tie_weights()
    return model.float().eval()
