"""The number type of all physics formulas: one float on CUDA, sixteen at once on a CPU.

Warp runs one CPU thread after the other and does not vectorise across them, so on a CPU a thread holds sixteen
environments and every operation below is one vector instruction (or a few, where registers are narrower). Formulas
are written once, for either, with the operators and functions defined here. This is not a general vector
library: it has what the Ant needs.

Warp resolves `a + b` in a function to the `add` of that function's module when one fits, so a module of formulas
imports them by name.
"""

# Function bodies are Warp's language, which has its own types.
# mypy: ignore-errors
# ruff: noqa: F811 (overloads of one Warp function share its name)

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import warp as wp

__all__ = [
    "WIDTH",
    "Lanes",
    "Scalar",
    "Struct",
    "Vec3",
    "add",
    "any_positive",
    "axpy",
    "cross",
    "div",
    "dot",
    "empty_vec3",
    "lane_struct",
    "maximum",
    "minimum",
    "mul",
    "nearest",
    "neg",
    "root",
    "scalar",
    "scale",
    "sub",
    "vec3",
]

WIDTH = 16
Lanes = wp.types.vector(WIDTH, float)

# What a formula's parameter is, by name. To Warp all are `Any`: it makes the function for each lane type it is given.
Scalar: TypeAlias = Any
Struct: TypeAlias = Any

_NATIVE = f"typedef float Wide __attribute__((ext_vector_type({WIDTH})));"
_A, _B = "__builtin_bit_cast(Wide, a)", "__builtin_bit_cast(Wide, b)"


def _wide(expression: str) -> str:
    """A native snippet that returns `expression`, of sixteen floats."""
    return f"{_NATIVE} return __builtin_bit_cast(wp::vec_t<{WIDTH}, wp::float32>, Wide({expression}));"


@wp.func_native(_wide(f"{_A} + {_B}"))
def add(a: Lanes, b: Lanes) -> Lanes: ...


@wp.func_native(_wide(f"a + {_B}"))
def add(a: float, b: Lanes) -> Lanes: ...


@wp.func_native(_wide(f"{_A} + b"))
def add(a: Lanes, b: float) -> Lanes: ...


@wp.func_native(_wide(f"{_A} - {_B}"))
def sub(a: Lanes, b: Lanes) -> Lanes: ...


@wp.func_native(_wide(f"a - {_B}"))
def sub(a: float, b: Lanes) -> Lanes: ...


@wp.func_native(_wide(f"{_A} - b"))
def sub(a: Lanes, b: float) -> Lanes: ...


@wp.func_native(_wide(f"-{_A}"))
def neg(a: Lanes) -> Lanes: ...


@wp.func_native(_wide(f"{_A} * {_B}"))
def mul(a: Lanes, b: Lanes) -> Lanes: ...


@wp.func_native(_wide(f"a * {_B}"))
def mul(a: float, b: Lanes) -> Lanes: ...


@wp.func_native(_wide(f"{_A} * b"))
def mul(a: Lanes, b: float) -> Lanes: ...


@wp.func_native(_wide(f"{_A} / {_B}"))
def div(a: Lanes, b: Lanes) -> Lanes: ...


@wp.func_native(_wide(f"a / {_B}"))
def div(a: float, b: Lanes) -> Lanes: ...


@wp.func_native(_wide(f"__builtin_elementwise_max({_A}, Wide(b))"))
def maximum(a: Lanes, b: float) -> Lanes: ...


@wp.func
def maximum(a: float, b: float) -> float:
    return wp.max(a, b)


@wp.func_native(_wide(f"__builtin_elementwise_min(Wide(a), {_B})"))
def minimum(a: float, b: Lanes) -> Lanes: ...


@wp.func
def minimum(a: float, b: float) -> float:
    return wp.min(a, b)


@wp.func_native(_wide(f"__builtin_elementwise_sqrt({_A})"))
def root(a: Lanes) -> Lanes: ...


@wp.func
def root(a: float) -> float:
    return wp.sqrt(a)


@wp.func_native(_wide(f"__builtin_elementwise_roundeven({_A})"))
def nearest(a: Lanes) -> Lanes: ...


@wp.func
def nearest(a: float) -> float:
    return wp.rint(a)


@wp.func_native(f"{_NATIVE} return __builtin_reduce_max({_A}) > 0.0f;")
def any_positive(a: Lanes) -> bool: ...


@wp.func
def any_positive(a: float) -> bool:
    return a > 0.0


class LaneStruct(Protocol):
    """What `lane_struct` declares: a Warp function, with the structs of both lane types and the fields."""

    of: Mapping[type, type]
    fields: Mapping[str, "LaneStruct | None"]

    def __call__(self, like: Scalar) -> Struct: ...


def lane_struct(name: str, **fields: LaneStruct | None) -> LaneStruct:
    """A struct whose fields are scalars or vectors of either lane type.

    `fields` maps a name to `scalar` or to another such struct. Returns a Warp function that makes an empty one of the
    same lane type as its argument.
    """

    def declare(suffix: str, scalar_type: type) -> Callable[[], Struct]:
        types = {field: kind.of[scalar_type] if hasattr(kind, "of") else scalar_type for field, kind in fields.items()}
        return wp.struct(type(name + suffix, (), {"__annotations__": types, "__module__": __name__}))

    wide, single = declare("Lanes", Lanes), declare("Float", float)

    @wp.func(name=f"empty_{name}")
    def empty(like: Lanes):
        return wide()

    @wp.func(name=f"empty_{name}")
    def empty(like: float):
        return single()

    empty.of = {Lanes: wide, float: single}
    empty.fields = fields
    return empty


scalar = None
empty_vec3 = lane_struct("Vec3", x=scalar, y=scalar, z=scalar)
Vec3: TypeAlias = Struct
Vec3Lanes, Vec3Float = empty_vec3.of[Lanes], empty_vec3.of[float]


@wp.func
def vec3(x: Scalar, y: Scalar, z: Scalar):
    v = empty_vec3(x)
    v.x = x
    v.y = y
    v.z = z
    return v


@wp.func
def dot(a: Vec3, b: Vec3):
    return a.x * b.x + a.y * b.y + a.z * b.z


@wp.func
def cross(a: Vec3, b: Vec3):
    return vec3(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x)


@wp.func
def add(a: Vec3Lanes, b: Vec3Lanes):
    return vec3(a.x + b.x, a.y + b.y, a.z + b.z)


@wp.func
def add(a: Vec3Float, b: Vec3Float):
    return vec3(a.x + b.x, a.y + b.y, a.z + b.z)


@wp.func
def sub(a: Vec3Lanes, b: Vec3Lanes):
    return vec3(a.x - b.x, a.y - b.y, a.z - b.z)


@wp.func
def sub(a: Vec3Float, b: Vec3Float):
    return vec3(a.x - b.x, a.y - b.y, a.z - b.z)


@wp.func
def scale(k: Scalar, a: Vec3):
    """k a."""
    return vec3(k * a.x, k * a.y, k * a.z)


@wp.func
def axpy(a: Vec3, k: Scalar, b: Vec3):
    """a + k b."""
    return vec3(a.x + k * b.x, a.y + k * b.y, a.z + k * b.z)
