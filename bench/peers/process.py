"""An engine's process, seen from the benchmark: one command, one answer."""

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

from bench.peers.environments import FOLDER, log_file

_ROOT = Path(__file__).parents[2]
_LOADING_SECONDS = 300
_COMMAND_SECONDS = 60
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class PeerError(Exception):
    """A peer that could not be loaded, failed, or did not answer in time."""


class Worker:
    """A process that has a model loaded and waits for commands."""

    def __init__(self, interpreter: Path, module: str, model: Path | str, form: str, threads: int) -> None:
        """Start it and wait until the model is loaded. Raises PeerError."""
        self._log = log_file(f"{module}-{form or Path(model).name}-{threads}")
        command = [interpreter, "-m", f"bench.peers.{module}"]
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "VLLM_CACHE_ROOT": str(FOLDER / "cache" / "vllm"),
            "TORCHINDUCTOR_CACHE_DIR": str(FOLDER / "cache" / "torch"),
        }
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, "--model", str(model), "--format", form, "--threads", str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=_ROOT,
                env=environment,
            )
        try:
            self._answer(_LOADING_SECONDS)
        except PeerError:
            self.close()
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a command. Raises PeerError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerError(f"has ended, see {self._log.relative_to(_ROOT)}") from None
        return self._answer(_COMMAND_SECONDS)

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        watch = threading.Timer(seconds, self._process.kill)
        watch.start()
        line = self._process.stdout.readline()
        watch.cancel()
        if not line:
            self._process.kill()
            code = self._process.wait()
            raise PeerError(
                f"ended (exit code {code}) or took more than {seconds:.0f} s, see {self._log.relative_to(_ROOT)}"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def processor_seconds(self) -> float:
        """Processor time that the process has taken, all threads together."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
            self._process.wait(10)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
