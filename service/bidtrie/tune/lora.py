"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) by peft, written as peft writes them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bidtrie.models.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS

#: Every linear of a layer; embedding and head stay.
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def with_adapters(model: Any, rank: int, seed: int) -> Any:
    """The model with trainable adapters that change nothing yet (B is zero); all else is frozen."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=list(TARGETS), task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def write_adapter(model: Any, base: str, folder: Path) -> None:
    """`adapter_config.json` and `adapter_model.safetensors` (float16) in an existing folder."""
    from peft import get_peft_model_state_dict

    config = model.peft_config["default"].to_dict() | {
        "base_model_name_or_path": base,
        "inference_mode": True,
    }
    # Sets have no order, and enumerations are not JSON.
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    text = json.dumps(plain, indent=2, sort_keys=True, default=str)
    (folder / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")
    state = {
        name: each.detach().half().contiguous() for name, each in get_peft_model_state_dict(model).items()
    }
    save_file(state, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    # safetensors may keep its file to its owner; a service often runs as another user.
    (folder / ADAPTER_WEIGHTS).chmod((folder / ADAPTER_CONFIG).stat().st_mode)
