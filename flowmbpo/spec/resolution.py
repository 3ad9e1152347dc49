"""One experiment: inherit, check, judge. Turns a layer of a registry (or `--set`) into a spec, or into problems.

Not here: which entries there are and in which order (`loader`), and what the rules say (`rules`, `estimates`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flowmbpo.spec import estimates, fields, rules
from flowmbpo.spec.inheritance import Inherited, Layer, merge
from flowmbpo.spec.problems import Collector, Problem, plain, visible
from flowmbpo.spec.rule import Violation
from flowmbpo.spec.schema import Experiment
from flowmbpo.spec.table_check import check_table

ENTRY_KEYS = ("extends", "abstract")  # keys of an entry that are about the entry, not about the experiment
_NOT_INHERITED = ("name", "aliases", "description")


@dataclass
class Entry:
    """One entry of the registry, resolved. `spec` is None for abstract and for wrong ones."""

    name: str
    inherited: Inherited
    layer: Layer
    abstract: bool
    spec: Experiment | None


def inheritable(parent: Inherited) -> Inherited:
    """What a child gets: everything except who the parent is."""
    return Inherited(
        {key: value for key, value in parent.values.items() if key not in _NOT_INHERITED},
        {path: origin for path, origin in parent.origins.items() if path[0] not in _NOT_INHERITED},
        {path for path in parent.unsound if not path or path[0] not in _NOT_INHERITED},
    )


def resolve(
    name: str, base: Inherited, layer: Layer, collector: Collector, whole: bool
) -> tuple[Experiment | None, Inherited]:
    """Merge, check and judge one experiment. `whole`: required keys must be there and rules must hold."""
    merged = merge(Experiment, base, layer)
    checked = check_table(Experiment, merged.values, ENTRY_KEYS)
    sound = True
    for finding in checked.findings:
        if finding.missing and (not whole or merged.is_unsound(finding.path)):
            continue
        sound = False
        place = layer.place(finding.path, finding.of_key)
        collector.add(Problem(place, finding.message, finding.hint, name, finding.key, plain(finding.value)))
    for finding in checked.findings:
        path = tuple(part for part in finding.path if isinstance(part, str))
        if finding.at_key:
            path = (*path[:-1], finding.meant) if finding.meant else ()
        if path and (whole or not finding.missing):
            merged.unsound.add(path)
    merged.values = checked.values
    if not sound:
        merged.without_what_is_gone()
    spec = checked.model if isinstance(checked.model, Experiment) else None
    if whole:
        apply_rules(name, merged, spec, layer, collector)
    return (spec if sound else None), merged


def apply_rules(name: str, inherited: Inherited, spec: Experiment | None, layer: Layer, collector: Collector) -> None:
    values = fields.values_with_defaults(Experiment, inherited.values)
    values = {key: value for key, value in values.items() if not inherited.is_unsound(tuple(key.split(".")))}
    violations: Iterable[Violation] = rules.judge(values)
    if spec is not None:
        violations = [*violations, *estimates.judge(spec)]
    for violation in violations:
        origins = {key: inherited.origin(key) for key in (violation.key, *violation.also)}
        own = [key for key, at in origins.items() if at.place is not None and at.entry == layer.entry]
        blamed = own[0] if own else violation.key
        origin = origins[blamed]
        message = violation.message if blamed == violation.key else f"{violation.key} {violation.message}"
        hint = violation.hint
        if origin.entry is not None and origin.entry != name:
            inherited_from = f"inherited from {visible(origin.entry)}"
            hint = f"{hint} ({inherited_from})" if hint else inherited_from
        place = origin.place or layer.place((), True)
        collector.add(Problem(place, message, hint, name, blamed, plain(values.get(blamed)), violation.severity))
