"""What `--help` says: defaults as they hold, and nothing lost in the markup."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import click
import pytest
import typer.main
from bidtrie.cli.app import app
from bidtrie.settings import Settings, default_of, flag_of
from rich.text import Text


@cache
def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bidtrie", *command, "--help"],
        env=os.environ | {"COLUMNS": "500", "TERM": "dumb"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def wrong_flags(text: str) -> list[str]:
    """The settings whose line lacks flag, meaning or default."""
    found = []
    for name, field in Settings.model_fields.items():
        line = re.search(rf"^\W*{flag_of(name)} .*$", text, flags=re.MULTILINE)
        if line is None or f"{field.description} [default: {default_of(name)}]" not in line[0]:
            found.append(name)
    return found


def test_serve_tells_every_default() -> None:
    text = help_of("serve")
    assert wrong_flags(text) == []
    # Negative control: a default that is not what holds, and a meaning that is not what is written.
    assert wrong_flags(text.replace("[default: 256]", "[default: 257]")) == ["max_queue"]
    assert wrong_flags(text.replace("Most requests waiting", "Requests waiting")) == ["max_queue"]


def commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))


def lost(text: str) -> bool:
    """Whether rich takes a part of a text in brackets for markup, and shows nothing of it."""
    meant = text.replace("\\[", "[")
    return Text.from_markup(text).plain != meant


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("path", list(ALL), ids=lambda path: " ".join(path) or "bidtrie")
def test_markup_eats_nothing(path: tuple[str, ...]) -> None:
    command = ALL[path]
    texts = [getattr(each, "help", None) for each in [command, *command.params]]
    assert [text for text in texts if text and lost(text)] == []


def test_what_markup_eats_is_noticed() -> None:
    assert lost('needs "bidtrie[plots]"')
    assert not lost(r'needs "bidtrie\[plots]"')
    assert len(ALL) > 10


def test_extras_are_shown() -> None:
    assert 'needs "bidtrie[plots]"' in help_of("load")
    assert "bidtrie[redis]" in help_of("serve")
