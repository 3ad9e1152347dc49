"""All rules between keys: what no single value can be blamed for. To add one, write it in the file of its section."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowmbpo.spec import model_rules, training_rules
from flowmbpo.spec.rule import Absent, Values, Violation

RULES = (*model_rules.RULES, *training_rules.RULES)


def judge(values: Mapping[str, Any]) -> list[Violation]:
    """All that is wrong with the resolved values, given by dotted key."""
    given = Values(values)
    found: list[Violation] = []
    for rule in RULES:
        try:
            found.extend(rule(given))
        except Absent:
            continue
    return found
