"""Traces formulas as expressions, differentiates them in reverse mode and writes straight-line C.

Not a general differentiator: no loops, no branches but those around contacts, which may always be taken (a contact at
depth zero adds zero), and first derivatives only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from flowmbpo.physics.formulas import Formula, Struct, flatten

Number: TypeAlias = "Value | float"
Result: TypeAlias = "Number | Struct | tuple[Result, ...]"


class Value:
    """A number of a graph: an input, a constant or an operation on earlier numbers."""

    __slots__ = ("active", "arguments", "graph", "index", "operation")

    def __init__(self, graph: Graph, operation: str, arguments: tuple[Any, ...], active: bool) -> None:
        self.graph = graph
        self.operation = operation
        self.arguments = arguments
        self.active = active  # depends on an input with respect to which one differentiates
        self.index = len(graph.values)

    def __add__(self, other: Number) -> Number:
        return self.graph.add(self, other)

    def __sub__(self, other: Number) -> Number:
        return self.graph.sub(self, other)

    def __mul__(self, other: Number) -> Number:
        return self.graph.mul(self, other)

    def __truediv__(self, other: Number) -> Number:
        return self.graph.div(self, other)

    def __neg__(self) -> Number:
        return self.graph.operate("neg", self)

    def __rsub__(self, other: float) -> Number:
        return self.graph.sub(other, self)

    def __rtruediv__(self, other: float) -> Number:
        return self.graph.div(other, self)

    __radd__ = __add__
    __rmul__ = __mul__


class Graph:
    """Numbers in the order of their computation, equal ones only once. Plain floats are constants.

    Of the contacts that a formula tests, in this order, the first `contacts` are counted; all without a number.
    `replaced`: see `interpret`.
    """

    def __init__(self, contacts: int | None = None) -> None:
        self.values: list[Value] = []
        self.depths: list[Value] = []
        self.replaced: dict[Formula, Formula] = {}
        self._contacts = contacts
        self._known: dict[tuple[object, ...], Value] = {}

    def any_positive(self, depth: Value) -> bool:
        self.depths.append(depth)
        return self._contacts is None or len(self.depths) <= self._contacts

    def operate(self, operation: str, *arguments: object, active: bool = False) -> Value:
        key = (operation, *arguments)
        if key not in self._known:
            active = active or any(isinstance(argument, Value) and argument.active for argument in arguments)
            value = self._known[key] = Value(self, operation, arguments, active)
            self.values.append(value)
        return self._known[key]

    def add(self, a: Number, b: Number) -> Number:
        if not isinstance(a, Value) and a == 0.0:
            return b
        if not isinstance(b, Value) and b == 0.0:
            return a
        if isinstance(b, Value) and b.operation == "neg":
            return self.sub(a, b.arguments[0])
        return self.operate("add", a, b)

    def sub(self, a: Number, b: Number) -> Number:
        if a is b:
            return 0.0
        if not isinstance(b, Value) and b == 0.0:
            return a
        if not isinstance(a, Value) and a == 0.0:
            return b.arguments[0] if isinstance(b, Value) and b.operation == "neg" else self.operate("neg", b)
        return self.operate("sub", a, b)

    def mul(self, a: Number, b: Number) -> Number:
        for one, other in ((a, b), (b, a)):
            if not isinstance(one, Value) and one in (0.0, 1.0):
                return 0.0 if one == 0.0 else other
            if not isinstance(one, Value) and one == -1.0:
                return self.operate("neg", other)
            if isinstance(one, Value) and one.operation == "neg":
                return self.sub(0.0, self.mul(one.arguments[0], other))
        return self.operate("mul", a, b)

    def div(self, a: Number, b: Number) -> Number:
        """a / b by the inverse of b, which the derivative needs too."""
        return self.mul(a, self.operate("inverse", b)) if isinstance(b, Value) else self.mul(a, 1.0 / b)

    def maximum(self, a: Number, b: Number) -> Number:
        return self.operate("max", a, b)

    def minimum(self, a: Number, b: Number) -> Number:
        return self.operate("min", a, b)

    def root(self, a: Number) -> Number:
        return self.operate("sqrt", a)

    def nearest(self, a: Number) -> Number:
        return self.operate("rint", a)


def _partials(value: Value, adjoint: Number) -> list[tuple[Number, Number]]:
    """The arguments of an operation, each with what it adds to the argument's adjoint."""
    graph, arguments = value.graph, value.arguments
    a, b = arguments[0], arguments[-1]
    match value.operation:
        case "add":
            return [(a, adjoint), (b, adjoint)]
        case "sub":
            return [(a, adjoint), (b, graph.sub(0.0, adjoint))]
        case "mul":
            return [(a, graph.mul(adjoint, b)), (b, graph.mul(adjoint, a))]
        case "inverse":
            return [(a, graph.sub(0.0, graph.mul(adjoint, graph.mul(value, value))))]
        case "neg":
            return [(a, graph.sub(0.0, adjoint))]
        case "max":  # no derivative at a tie: a contact of depth zero, a hinge at its limit
            return [(a, graph.operate("where", a, b, adjoint)), (b, graph.operate("where", b, a, adjoint))]
        case "min":
            return [(a, graph.operate("where", b, a, adjoint)), (b, graph.operate("where", a, b, adjoint))]
        case "sqrt":  # none at zero either, where it is infinite
            slope = graph.div(graph.mul(0.5, adjoint), value)
            return [(a, graph.operate("where", value, 0.0, slope))]
        case "cosine":
            return [(arguments[2], graph.sub(0.0, graph.mul(adjoint, arguments[1])))]
        case "sine":
            return [(arguments[2], graph.mul(adjoint, arguments[1]))]
    assert value.operation in ("input", "rint", "fixed"), value.operation
    return []


class Segment:
    """One formula as C: `name(inputs..., y)` computes it and `name_vjp(inputs..., cy, cinputs...)` adds J^T cy.

    formula(graph, *groups) takes lists of numbers, as many as `groups` names with their lengths, and returns structs
    and numbers. Groups in `uniform` are the same for all lanes and are not differentiated; `contacts` as of `Graph`.
    """

    def __init__(
        self,
        name: str,
        formula: Callable[..., Result],
        groups: dict[str, int],
        uniform: Sequence[str] = (),
        contacts: int | None = None,
    ) -> None:
        self.name = name
        self.groups = groups
        self._uniform = uniform
        self._graph = Graph(contacts)
        self._inputs = {
            group: [
                self._graph.operate("input", (group, index), active=group not in uniform) for index in range(length)
            ]
            for group, length in groups.items()
        }
        self._results = flatten(formula(self._graph, *(list(numbers) for numbers in self._inputs.values())))

    @property
    def outputs(self) -> int:
        """How many numbers come out."""
        return len(self._results)

    @functools.cached_property
    def _cotangents(self) -> dict[str, list[Number]]:
        """Expressions of J^T cy, one for each input."""
        graph = self._graph
        forward = list(graph.values)
        adjoints: dict[Value, Number] = {}

        def contribute(value: Number, share: Number) -> None:
            if isinstance(value, Value) and value.active and not (isinstance(share, float) and share == 0.0):
                adjoints[value] = graph.add(adjoints[value], share) if value in adjoints else share

        for index, result in enumerate(self._results):
            contribute(result, graph.operate("input", ("cy", index)))
        for value in reversed(forward):
            if value in adjoints:
                for argument, share in _partials(value, adjoints[value]):
                    contribute(argument, share)
        return {
            group: [adjoints.get(x, 0.0) for x in numbers]
            for group, numbers in self._inputs.items()
            if group not in self._uniform
        }

    def source(self) -> str:
        """Both C functions, in terms of a number type V with MAX, MIN, SQRT and RINT and a qualifier FUNCTION."""
        inputs = ", ".join(f"const {'float' if group in self._uniform else 'V'}* {group}" for group in self.groups)
        cotangents = ", ".join(f"V* c{group}" for group in self._cotangents)
        forward = [f"y[{index}] = {_name(result)};" for index, result in enumerate(self._results)]
        backward = {
            f"c{group}[{index}] += {_name(value)};": value
            for group, values in self._cotangents.items()
            for index, value in enumerate(values)
            if isinstance(value, Value)
        }
        return (
            f"FUNCTION void {self.name}({inputs}, V* y) {{\n{_body(self._results)}\n{_lines(forward)}\n}}\n"
            f"FUNCTION void {self.name}_vjp({inputs}, const V* cy, {cotangents}) {{\n"
            f"{_body(backward.values())}\n{_lines(backward)}\n}}\n"
        )


def _body(wanted: Iterable[Number]) -> str:
    """What the wanted numbers need, in order."""
    needed: set[Value] = set()
    open_values = [value for value in wanted if isinstance(value, Value)]
    while open_values:
        value = open_values.pop()
        if value not in needed:
            needed.add(value)
            open_values += [argument for argument in value.arguments if isinstance(argument, Value)]
    return _lines(f"const V t{v.index} = {_expression(v)};" for v in sorted(needed, key=lambda v: v.index))


def _lines(statements: Iterable[str]) -> str:
    return "\n".join(statements)


def _name(value: Number) -> str:
    return f"t{value.index}" if isinstance(value, Value) else f"V({float(np.float32(value))!r}f)"


_TEMPLATES = {
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "inverse": "V(1.0f) / {}",
    "neg": "-{}",
    "max": "MAX({}, {})",
    "min": "MIN({}, {})",
    "sqrt": "SQRT({})",
    "rint": "RINT({})",
    "fixed": "{}",  # not differentiated
    "cosine": "{}",  # of the third argument, whose sine is the second
    "sine": "{}",
    "where": "{} > {} ? {} : V(0.0f)",
}


def _expression(value: Value) -> str:
    if value.operation == "input":
        group, index = value.arguments[0]
        return f"V({group}[{index}])"
    return _TEMPLATES[value.operation].format(*map(_name, value.arguments))
