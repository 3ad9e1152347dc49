"""Which parts of a learner are kept, and under which names: what acting needs, and what an exact continuation needs.

The names are those of stored checkpoints. Not here: files (`runs.checkpoint`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from flowmbpo.data_types import State

if TYPE_CHECKING:
    from flowmbpo.algorithms.pwm import PWM


class Stateful(Protocol):
    """A network, or whatever else of a learner is kept."""

    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State, /) -> object: ...


def deployable_state(learner: PWM) -> State:
    """What acting and predicting need."""
    return {name: part.state_dict() for name, part in _acting(learner).items()}


def load_deployable_state(learner: PWM, state: State) -> None:
    """Inverse of `deployable_state`; training cannot go on from it."""
    for name, part in _acting(learner).items():
        if name in state or name != "value_targets":  # which those of 0.1.0 do not have
            part.load_state_dict(state[name])
    learner.actor.load_state_dict(state["actor"])
    learner.critic_learner.target.load_state_dict(state["critic"])
    learner.center_regression()


def resumable_state(learner: PWM) -> State:
    """Everything an exact continuation needs besides the environment; also inside an `unfinished` epoch."""
    return {
        **deployable_state(learner),
        **{name: part.state_dict() for name, part in _learning(learner).items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in learner.optimizers.items()},
        "generator": learner.generator.get_state(),
        "bad_steps": learner.bad_steps,
        **learner.model_learner.state_dict(),
    }


def load_resumable_state(learner: PWM, state: State) -> None:
    """Inverse of `resumable_state`; load the environment's state too, in either order."""
    load_deployable_state(learner, state)
    for name, part in _learning(learner).items():
        part.load_state_dict(state[name])
    for name, optimizer in learner.optimizers.items():
        optimizer.load_state_dict(state["optimizers"][name])
    learner.generator.set_state(state["generator"].cpu())
    learner.bad_steps.copy_(state["bad_steps"])
    learner.model_learner.load_state_dict(state)


def _acting(learner: PWM) -> dict[str, Stateful]:
    return {
        "world_model": learner.world_model,
        "actor": learner.actor_learner.average,
        "critic": learner.critic,
        "observations": learner.observations,
        "reward_scale": learner.reward_scale,
        "value_targets": learner.critic_learner.moments,
    }


def _learning(learner: PWM) -> dict[str, Stateful]:
    return {
        "training_actor": learner.actor,
        "target_critic": learner.critic_learner.target,
        "return_scale": learner.actor_learner.return_scale,
        "collector": learner.collector,
    }
