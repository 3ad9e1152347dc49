"""What is asked of the agent: environments with torch tensors in and out.

`make_env` builds one by its kind. Importing this room also makes `flowmbpo/Ant-v0` and `flowmbpo/PointMass-v0` known to
`gymnasium.make_vec` and `gymnasium.make`; it loads neither torch nor Warp.
"""

from __future__ import annotations

import difflib
import importlib
from typing import TYPE_CHECKING, Any

from gymnasium.envs import registration

if TYPE_CHECKING:
    from flowmbpo.envs.ant import AntEnv
    from flowmbpo.envs.ant_gradients import ant_observation, ant_step
    from flowmbpo.envs.contract import Env, Step
    from flowmbpo.envs.disturbed_ant import DisturbedAnt
    from flowmbpo.envs.pointmass import PointMassEnv

__all__ = [
    "ENVIRONMENTS",
    "AntEnv",
    "DisturbedAnt",
    "Env",
    "PointMassEnv",
    "Step",
    "ant_observation",
    "ant_step",
    "make_env",
]

# kind -> (module, class); a new environment is a module and a line here, or a package of its own (docs/extending.md)
ENVIRONMENTS = {
    "ant": ("flowmbpo.envs.disturbed_ant", "DisturbedAnt"),  # an `AntEnv` where nothing is asked to disturb it
    "pointmass": ("flowmbpo.envs.pointmass", "PointMassEnv"),
}

_LAZY = {
    **{name: module for module, name in ENVIRONMENTS.values()},
    "AntEnv": "flowmbpo.envs.ant",
    "Env": "flowmbpo.envs.contract",
    "Step": "flowmbpo.envs.contract",
    "ant_observation": "flowmbpo.envs.ant_gradients",
    "ant_step": "flowmbpo.envs.ant_gradients",
}


def make_env(kind: str, **arguments: Any) -> Env:
    """The environment called `kind`, built with the keyword arguments of its class; ValueError for an unknown kind."""
    if kind in ENVIRONMENTS:
        module, name = ENVIRONMENTS[kind]
        return getattr(importlib.import_module(module), name)(**arguments)
    from flowmbpo.spec import extensions
    from flowmbpo.spec.schema import ENV_EXTENSIONS

    if kind not in ENV_EXTENSIONS:
        known = sorted([*ENVIRONMENTS, *ENV_EXTENSIONS])
        close = difflib.get_close_matches(kind, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"environment is {kind!r}; allowed: {', '.join(known)}{hint}")
    section = ENV_EXTENSIONS[kind]
    return extensions.load(section, section.environment)(**arguments)


for _id, _kind in (("flowmbpo/Ant-v0", "ant"), ("flowmbpo/PointMass-v0", "pointmass")):
    if _id not in registration.registry:
        _adapter = "flowmbpo.envs.gymnasium_env:Torch"
        registration.register(_id, f"{_adapter}Env", vector_entry_point=f"{_adapter}VectorEnv", kwargs={"kind": _kind})


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
