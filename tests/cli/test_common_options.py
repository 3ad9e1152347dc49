"""What every command has in common."""

import pytest

from flowmbpo.cli.app import COMMANDS, app
from tests.command import run_process


def help_of(*command: str) -> str:
    surroundings = {"COLUMNS": "200", "NO_COLOR": "1", "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    return run_process(*command, "--help", only=surroundings).out


@pytest.mark.parametrize("command", [*COMMANDS, "bench sim", "bench train", "bench log"])
def test_every_command_takes_registry_and_tracking_uri(command):
    text = help_of(*command.split())
    assert "--registry" in text
    assert "--tracking-uri" in text
    assert "\x1b" not in text


def test_the_table_of_commands_is_what_is_registered():
    assert {info.name for info in app.registered_commands} == set(COMMANDS)


def test_options_that_a_command_does_not_need_change_nothing():
    plain = run_process("list", "--json")
    given = run_process("list", "--json", "--tracking-uri", "http://127.0.0.1:9")
    assert plain.out == given.out
