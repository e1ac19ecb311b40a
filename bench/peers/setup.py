"""Installs the peers and converts the model for each: what `python -m bench.decode` compares with.

A peer that cannot be installed is reported and left out; what is there already is kept.

python -m bench.peers.setup [--model smollm2-135m] [PEER ...]
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bidtrie.models.load import load_checkpoint

from bench.peers.environments import FOLDER, install, is_installed, log_file
from bench.peers.models import convert
from bench.peers.variants import PEERS, VARIANTS


def _try(what: str, log: Path, work: Callable[[], None]) -> bool:
    """Whether it worked; says so either way."""
    print(f"{what} ...", flush=True)
    try:
        work()
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(f"{what}: failed, see {log}: {error}", file=sys.stderr, flush=True)
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m", help="name of a fetched Llama model, a GGUF file")
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"one of {', '.join(PEERS)}; default: all")
    options = parser.parse_args()
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    peers = options.peers or PEERS
    checkpoint = load_checkpoint(options.model)
    FOLDER.mkdir(exist_ok=True)
    failed = []
    for peer in peers:
        if not is_installed(peer):
            log = log_file(f"install-{peer}")
            if not _try(f"installing {peer}", log, lambda: install(peer)):  # noqa: B023 (called at once)
                failed.append(peer)
                continue
        for variant in VARIANTS:
            if variant.peer == peer:
                log = log_file(f"convert-{variant.name}")
                if not _try(f"converting for {variant.name}", log, lambda: convert(variant, checkpoint)):  # noqa: B023
                    failed.append(variant.name)
    print(f"left out: {', '.join(failed)}" if failed else "all peers are ready")
    if len(failed) == len(peers):
        sys.exit(1)


if __name__ == "__main__":
    main()
