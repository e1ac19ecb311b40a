"""What was learned of step times, kept from one process to the next."""

import json
import logging
import os
from pathlib import Path

from bidtrie.scheduling.cost_model import CostModel

logger = logging.getLogger(__name__)

_MOST_BYTES = 1 << 20


def load_cost_model(file: Path) -> CostModel | None:
    """The saved model; None where there is none, or none that can be read, which is logged."""
    model = CostModel()
    try:
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"larger than {_MOST_BYTES:,} bytes")
        state = json.loads(data)
        if not isinstance(state, dict):
            raise ValueError("not an object")
        model.restore(state)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("cost model not read", extra={"file": str(file), "reason": str(error)})
        return None
    return model


def save_cost_model(file: Path, model: CostModel) -> bool:
    """Write the model under a temporary name and rename it; False where that fails, which is logged."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(model.state()), encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        logger.warning("cost model not saved", extra={"file": str(file), "reason": str(error)})
        return False
    return True
