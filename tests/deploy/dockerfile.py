"""A small reader of Dockerfiles and .dockerignore files: as much of them as this project uses."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its name in capitals, its `--flags`, and the rest on one line."""

    name: str
    flags: tuple[str, ...]
    rest: str


@dataclass(slots=True)
class Stage:
    """From one FROM to the next. `base` is as written."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        return [each for each in self.instructions if each.name == name]

    def argument(self, name: str) -> str:
        """What follows the last instruction of this name, which is the one that counts."""
        return self.all(name)[-1].rest

    def json_argument(self, name: str) -> list[str]:
        """The same in its exec form."""
        found: list[str] = json.loads(self.argument(name))
        return found

    def environment(self) -> dict[str, str]:
        pairs = (pair.partition("=") for each in self.all("ENV") for pair in each.rest.split())
        return {name: value for name, _, value in pairs}


def read_dockerfile(path: Path) -> list[Stage]:
    """The stages, in order; what stands before the first FROM is left out."""
    stages: list[Stage] = []
    for instruction in _instructions(path.read_text(encoding="utf-8")):
        if instruction.name == "FROM":
            base, _, name = re.split(r"\s+(AS)\s+", instruction.rest, flags=re.IGNORECASE)
            stages.append(Stage(name, base))
        elif stages:
            stages[-1].instructions.append(instruction)
    return stages


def final_stages(stages: Sequence[Stage]) -> list[Stage]:
    """Those that no other stage takes anything from: what images are made of."""
    used = {stage.base for stage in stages}
    for stage in stages:
        for instruction in stage.instructions:
            used |= set(re.findall(r"\bfrom=([\w-]+)", " ".join(instruction.flags)))
    return [stage for stage in stages if stage.name not in used]


def _instructions(text: str) -> list[Instruction]:
    # Comment lines go first: they may stand in the middle of a continued line.
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        flags, words = [], rest.strip()
        while words.startswith("--"):
            flag, _, words = words.partition(" ")
            flags.append(flag)
            words = words.strip()
        found.append(Instruction(name.upper(), tuple(flags), words))
    return found


class Ignored:
    """Which paths a .dockerignore keeps out of the build: the last pattern that matches a path or a folder above it."""

    def __init__(self, text: str) -> None:
        self._patterns = []
        for line in text.splitlines():
            pattern = line.strip()
            if pattern and not pattern.startswith("#"):
                keeps = pattern.startswith("!")
                self._patterns.append((not keeps, _expression(pattern.removeprefix("!").strip("/"))))

    def __call__(self, path: str) -> bool:
        """Whether a path, relative to the build's root, is kept out."""
        pure = PurePosixPath(path)
        candidates = [str(pure), *(str(parent) for parent in pure.parents if str(parent) != ".")]
        ignored = False
        for ignores, expression in self._patterns:
            if any(expression.fullmatch(candidate) for candidate in candidates):
                ignored = ignores
        return ignored


def _expression(pattern: str) -> re.Pattern[str]:
    """`**/` is any number of folders, `*` and `?` do not cross a slash."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    special = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(special.get(part, re.escape(part)) for part in parts))
