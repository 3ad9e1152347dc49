"""The documentation points to what exists: links, commands and options (a test of its own runs docs/registry.md)."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from flowmbpo.cli.app import app

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)(#[^)]*)?\)")
COMMAND = re.compile(r"^(?:\$ )?(?:[A-Z_]+=\S+ )*flowmbpo (.+)$", re.MULTILINE)
BLOCK = re.compile(r"```(?:console|sh|bash|shell)\n(.*?)```", re.DOTALL)


def test_no_page_is_a_link():
    """On GitHub and in a checkout on Windows it would show a path instead of the page."""
    assert not [path for path in (REPOSITORY / "docs").rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    broken = [target for target, _ in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not broken


def test_no_experiment_is_called_better_without_ten_seeds_and_an_interval_above_one_half():
    """A paragraph of docs/experiments.md that says "better" also says "ten seeds" and has an interval above 0.5."""
    for paragraph in (REPOSITORY / "docs" / "experiments.md").read_text().split("\n\n"):
        if re.search(r"\bbetter\b", paragraph, re.IGNORECASE):
            lows = [float(low) for low in re.findall(r"\b([01]\.\d+) to [01]\.\d+", paragraph)]
            assert "ten seeds" in paragraph, paragraph
            assert any(low > 0.5 for low in lows), paragraph


def documented() -> list[tuple[str, str]]:
    """(page, command line) of every command in a console block."""
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            found += [(page.name, line.split("#")[0].strip()) for line in COMMAND.findall(block)]
    return found


def test_there_are_documented_commands():
    assert len(documented()) > 10


@pytest.mark.parametrize(("page", "line"), documented())
def test_documented_commands_and_options_exist(page, line):
    words = [word for word in shlex.split(line.split("|")[0].split("&&")[0]) if word not in (">", "\\")]
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name = words.pop(0)
        assert name in command.commands, f"{page}: flowmbpo has no command {name}"
        command = command.commands[name]
    known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
    known |= {"--help", "-h", "--install-completion", "--show-completion"}
    unknown = [word for word in words if word.startswith("-") and word.split("=")[0] not in known]
    assert not unknown, f"{page}: {line}"
