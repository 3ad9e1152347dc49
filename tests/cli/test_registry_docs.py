"""docs/registry.md: every registry in it is valid, every command in it runs."""

import re
import shlex
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "registry.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(toml|console)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_registries_and_commands(flowmbpo, tmp_path, monkeypatch):
    """In the order of the page: commands run where the last registry shown is `experiments.toml`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments.toml").write_bytes((REPOSITORY / "experiments.toml").read_bytes())
    ran = 0
    for kind, text in BLOCKS:
        if kind == "toml":
            (tmp_path / "experiments.toml").write_text(text, encoding="utf-8")
            assert flowmbpo("validate").code == 0
            continue
        for line in text.splitlines():
            program, *arguments = shlex.split(line.removeprefix("$ ").partition(" > ")[0])
            assert program == "flowmbpo"
            outcome = flowmbpo(*arguments)
            assert outcome.code == 0, (line, outcome.text)
            assert outcome.out
            ran += 1
    assert ran >= 9


def test_every_rule_of_the_page_names_keys_that_exist():
    from flowmbpo.spec import fields
    from flowmbpo.spec.groups import known_keys
    from flowmbpo.spec.schema import Experiment

    sections = set(known_keys())
    for key in re.findall(r"`((?:env|world_model|actor|critic|train|evaluation)\.\w+)", PAGE):
        assert key in sections or key in fields.dotted_keys(Experiment)
