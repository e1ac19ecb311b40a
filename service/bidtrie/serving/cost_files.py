"""The levels' cost models: what the last run learned and a calibration now, saved now and then."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from bidtrie.home import home
from bidtrie.scheduling.calibration import calibrate
from bidtrie.scheduling.cost_store import load_cost_model, save_cost_model
from bidtrie.scheduling.scheduler import Level
from bidtrie.serving.compression_level import CompressionLevel
from bidtrie.serving.runtime_observer import RuntimeObserver

logger = logging.getLogger(__name__)

_SAVE_SECONDS = 60.0


def cost_file(level: CompressionLevel) -> Path:
    """Where a level's cost model is kept: one file for each way in which the model is computed."""
    model = level.model
    name = f"{model.engine.spec.model_hash}-{model.instruction_set}-{model.threads}.json"
    return home() / "costs" / name


class CostFiles:
    """Loads the models; saves them every minute on a thread of its own, and at the end."""

    def __init__(self, levels: Sequence[CompressionLevel], observer: RuntimeObserver) -> None:
        self._observer = observer
        self._files = [cost_file(level) for level in levels]
        self.levels = [_level(level, file) for level, file in zip(levels, self._files, strict=True)]
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="bidtrie-costs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Save for the last time."""
        self._closing.set()
        self._thread.join()
        self._save()

    def _loop(self) -> None:
        while not self._closing.wait(_SAVE_SECONDS):
            self._save()

    def _save(self) -> None:
        for level, file in zip(self.levels, self._files, strict=True):
            self._observer.cost_model_saved(save_cost_model(file, level.model))


def _level(level: CompressionLevel, file: Path) -> Level:
    known = load_cost_model(file)
    costs = Level(level.model.engine) if known is None else Level(level.model.engine, known)
    calibrate(costs, level.targeting_prefix, token=0)
    logger.info("engine calibrated", extra={"step_ms": round(1000 * costs.model.fixed(), 3)})
    return costs
