"""Runs the physics formulas, which are Warp functions, as plain Python on any numbers that have +, -, * and /.

Such numbers are the expressions of `tracing` or Torch tensors. Structs become `Struct`s. Warp itself is not asked.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType
from typing import Any, TypeAlias

import warp as wp

from flowmbpo.physics import lanes
from flowmbpo.physics.lanes import LaneStruct

Formula: TypeAlias = Callable[..., Any]
"""A Warp function, or one of Python that computes the same: of numbers, structs and tuples of them."""

_NATIVE = ("maximum", "minimum", "root", "nearest")


class Struct:
    """Named numbers with the value semantics of the structs in the formulas: what is read or passed on is a copy."""

    def __init__(self, fields: Mapping[str, LaneStruct | None]) -> None:
        object.__setattr__(self, "_fields", fields)
        object.__setattr__(self, "_values", {})

    def __getattr__(self, name: str) -> Any:
        return _copied(self._values[name])

    def __setattr__(self, name: str, value: object) -> None:
        assert name in self._fields, name
        self._values[name] = _copied(value)

    def _merged(self, other: Struct, operation: Callable[[Any, Any], Any]) -> Struct:
        return rebuild(self, map(operation, flatten(self), flatten(other)))

    def __add__(self, other: Struct) -> Struct:
        return self._merged(other, operator.add)

    def __sub__(self, other: Struct) -> Struct:
        return self._merged(other, operator.sub)


def _copied(value: object) -> object:
    return rebuild(value, flatten(value)) if isinstance(value, Struct) else value


def flatten(value: object) -> list[Any]:
    """The numbers of a struct, or of a tuple of structs and numbers, in the order of declaration."""
    if isinstance(value, Struct):
        return [number for name in value._fields for number in flatten(value._values[name])]
    if isinstance(value, tuple):
        return [number for part in value for number in flatten(part)]
    return [value]


def rebuild(like: Struct | LaneStruct, numbers: Iterable[object]) -> Struct:
    """A struct of the kind of `like`, a struct or the function that declared one, from its numbers in order."""
    remaining = iter(numbers)

    def fill(fields: Mapping[str, LaneStruct | None]) -> Struct:
        struct = Struct(fields)
        for name, kind in fields.items():
            struct._values[name] = next(remaining) if kind is lanes.scalar else fill(kind.fields)
        return struct

    return fill(like._fields if isinstance(like, Struct) else like.fields)


def size(kind: LaneStruct) -> int:
    """How many numbers a struct declared by `kind` holds."""
    return sum(1 if inner is lanes.scalar else size(inner) for inner in kind.fields.values())


def interpret(function: Formula, arithmetic: object) -> Formula:
    """A Warp function as Python; `arithmetic` has `maximum`, `minimum`, `root` and `nearest` for the numbers used.

    It may have `any_positive`; without, every contact counts. A `replaced` of it maps functions to others.
    """
    return _Interpreter(arithmetic).python(function)


class _Interpreter:
    """Warp functions with their globals exchanged for others of this interpreter."""

    def __init__(self, arithmetic: object) -> None:
        self._native = {getattr(lanes, name): getattr(arithmetic, name) for name in _NATIVE}
        self._native[lanes.any_positive] = getattr(arithmetic, "any_positive", lambda _: True)
        self._native |= getattr(arithmetic, "replaced", {})
        self._modules: dict[str, dict[str, object]] = {}

    def python(self, function: Formula) -> Formula:
        if function in self._native:
            return self._native[function]
        if hasattr(function, "fields"):
            return lambda _: Struct(function.fields)
        body = function.func if isinstance(function, wp.Function) else None
        assert isinstance(body, FunctionType), function

        def call(*arguments: object) -> object:
            formula = FunctionType(body.__code__, self._globals(body), body.__name__, body.__defaults__)
            return formula(*(_copied(argument) for argument in arguments))

        return call

    def _globals(self, body: FunctionType) -> dict[str, object]:
        if body.__module__ not in self._modules:
            self._modules[body.__module__] = {
                name: self.python(value) if isinstance(value, wp.Function) else value
                for name, value in body.__globals__.items()
            }
        return self._modules[body.__module__]
