"""How the specs of runs differ: from each other, and from what today's registry says. Values only; no figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flowmbpo.reports.known import Known, parse_param
from flowmbpo.spec.identity import NOT_IDENTITY
from flowmbpo.tracking.records import RunRecord

Entry = dict[str, Any]
"""A run that a comparison leaves out or doubts, for its JSON document."""


def stale_runs(runs: Sequence[RunRecord], known: Mapping[str, Known]) -> list[Entry]:
    """Runs whose spec is not the one that the registry gives their name today, with the keys that changed."""
    stale: list[Entry] = []
    for run in runs:
        about, digest = known.get(run.name), run.tags.get("flowmbpo.spec_hash")
        if about is None or digest is None or digest == about.spec_hash:
            continue
        logged = _spec(run)
        changed = {
            key: {"run": logged.get(key), "registry": about.values.get(key)}
            for key in (dict.fromkeys([*logged, *about.values]) if logged else ())
            if logged.get(key) != about.values.get(key)
        }
        stale.append({"run_id": run.run_id, "name": run.name, "seed": run.seed, "changed": changed})
    return stale


def _spec(run: RunRecord) -> dict[str, object]:
    """The run's spec as it was logged, without labels."""
    return {key: parse_param(text) for key, text in run.params.items() if key.split(".")[0] not in NOT_IDENTITY}


def spec_difference(groups: Mapping[str, Sequence[RunRecord]]) -> dict[str, dict[str, object]]:
    """Dotted key -> row -> value, where not all runs agree; {"mixed": [...]} where those of one row do not."""
    values: dict[str, dict[str, list[object]]] = {}
    for name, runs in groups.items():
        specs = [_spec(run) for run in runs]
        for key in {key for spec in specs for key in spec}:
            distinct = {json.dumps(spec.get(key)): spec.get(key) for spec in specs}
            values.setdefault(key, {})[name] = [distinct[text] for text in sorted(distinct)]
    difference = {}
    for key in sorted(values):
        row = {name: values[key].get(name, [None]) for name in groups}
        if len({json.dumps(found) for found in row.values()}) > 1 or any(len(found) > 1 for found in row.values()):
            difference[key] = {name: found[0] if len(found) == 1 else {"mixed": found} for name, found in row.items()}
    return difference
