"""The documentation points to what exists: links, commands, options; what is quick runs.

Tests of their own run all of docs/registry.md and docs/using-results.md.
"""

import contextlib
import itertools
import re
import shlex
from pathlib import Path

import pytest
import typer

from flowmbpo.cli.app import app

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?://)([^)#\s]+)(#[^)]*)?\)")
COMMAND = re.compile(r"(?:^[ \t]*(?:\$ )?(?:[A-Z_]+=\S+ )*|(?:&&|[|;]|\bdo) )flowmbpo ([^`\n]+)", re.MULTILINE)
FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n]*\n(.*?)^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`((?:\w+/)+\w+\.py)\b(?:::(\w+))?")
HISTORY = ("CHANGELOG.md", "log.md", "performance.md")  # speak of files that are no more
OPERATOR = re.compile(r"[|&;<>()]+")  # of the shell: another command or a file follows
QUICK, DRY = ("list", "schema", "show", "validate"), ("run", "submit")
WHOLE = ("registry.md", "using-results.md")  # have tests that run them from top to bottom


def test_no_page_is_a_link():
    """On GitHub and in a checkout on Windows it would show a path instead of the page."""
    assert not [path for path in (REPOSITORY / "docs").rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    broken = [target for target, _ in LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not broken


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in HISTORY], ids=lambda page: page.name)
def test_named_files_and_tests_exist(page):
    """`room/file.py::test` is there, in the repository, the package or the tests; `x.py` stands for a new file."""
    roots = [REPOSITORY / root for root in (".", "flowmbpo", "tests")]
    for path, test in FILE.findall(page.read_text()):
        if not path.endswith("/x.py"):
            texts = [(root / path).read_text() for root in roots if (root / path).is_file()]
            assert any(f"def {test}" in text if test else True for text in texts), (path, test)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_imports_work(page):
    for _, block in FENCE.findall(page.read_text()):
        for line in re.findall(r"^(?:import|from) flowmbpo.*$", block, re.MULTILINE):
            exec(line, {})


def test_no_experiment_is_called_better_without_ten_seeds_and_an_interval_above_one_half():
    """A paragraph of docs/experiments.md that says "better" also says "ten seeds" and has an interval above 0.5."""
    for paragraph in (REPOSITORY / "docs" / "experiments.md").read_text().split("\n\n"):
        if re.search(r"\bbetter\b", paragraph, re.IGNORECASE):
            lows = [float(low) for low in re.findall(r"\b([01]\.\d+) to [01]\.\d+", paragraph)]
            assert "ten seeds" in paragraph, paragraph
            assert any(low > 0.5 for low in lows), paragraph


def documented() -> list[tuple[str, list[str]]]:
    """(page, words behind `flowmbpo`) of every command in a fence of any kind."""
    found = []
    for page in PAGES:
        for _, block in FENCE.findall(page.read_text()):
            for line in COMMAND.findall(block.replace("\\\n", " ")):
                words = shlex.shlex(line, posix=True, punctuation_chars=True)
                words.whitespace_split = True
                found.append((page.name, list(itertools.takewhile(lambda word: not OPERATOR.fullmatch(word), words))))
    return found


def test_there_are_documented_commands():
    assert len(documented()) > 60


@pytest.mark.parametrize(("page", "words"), documented())
def test_documented_commands_are_understood(page, words):
    """Command, options and the types of their values, by the parser of the tool."""
    command = typer.main.get_command(app)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name, *words = words
        assert name in command.commands, f"{page}: flowmbpo has no command {name}"
        command = command.commands[name]
    with contextlib.suppress(typer.Exit):  # --help
        command.make_context(command.name, list(words))


def plans() -> list[list[str]]:
    """Documented commands that need nothing but the shipped registry, those that train or submit as a dry run."""
    found = [words for page, words in documented() if page not in WHOLE]
    return [
        [*words, "--dry-run"] if words[0] in DRY and "--dry-run" not in words else words
        for words in found
        if words[0] in (*DRY, *QUICK) and not {"--resume", "examples/pendulum/experiments.toml"} & {*words}
    ]


@pytest.mark.parametrize("words", plans(), ids=" ".join)
def test_documented_experiments_and_keys_exist(words, flowmbpo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    outcome = flowmbpo(*words)
    assert outcome.code == 0, outcome.text
