"""All rules between keys: what no single value can be blamed for. To add one, write it in the file of its section."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from flowmbpo.spec import model_rules, training_rules
from flowmbpo.spec.rule import Absent, Violation

RULES = (*model_rules.RULES, *training_rules.RULES)


def judge(values: Mapping[str, object]) -> list[Violation]:
    """All that is wrong with the resolved values, given by dotted key."""
    found: list[Violation] = []
    for rule in RULES:
        with suppress(Absent):
            if violation := rule.judge(values):
                found.append(violation)
    return found
