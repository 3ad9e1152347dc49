"""PWM (arXiv 2407.02466): a world model learned from real steps, a policy improved by gradients through it.

Not here: networks (`models`), environments, logging, files. What the training loop calls:

- `begin_epoch(epoch)` sets the learning rates, then each of `phases` once, in order: rollout, actor, critic,
  world_model. A phase returns detached 0-d tensors by metric name. The world model's may be interrupted between two
  updates (`WorldModelLearner.tick`); `unfinished` then names it, and the next `phases` begin with the rest of it.
- `policy()` is the deterministic policy for evaluation; `diagnose()` measures the world model on held-out episodes.
- `state_dict()` holds all that an exact continuation needs except the environment's own state; `deployable_state()`
  what acting needs.

Three forms of imagination, `train.imagination`:

- `alongside`, as published: the real environment is driven open loop by the actions computed on imagined latents, and
  the actor learns from that very rollout, its latents detached at the actor's input.
- `from_visited`: the environment is driven closed loop, and the actor learns from rollouts imagined from states that
  were visited recently, several updates an epoch; the gradient includes the policy's own reactions.
- `real`: nothing is imagined; the actor learns from the real rollout, closed loop, whose gradient is the simulator's.

The critic learns from the imagined rewards and continuations (`critic.targets = "imagined"`) or from the real ones of
this epoch's steps (`"real"`), where the end of an episode is a fact and not a prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flowmbpo.algorithms import learner_state
from flowmbpo.algorithms.actor_learner import ActorLearner
from flowmbpo.algorithms.contract import Statistics
from flowmbpo.algorithms.critic_learner import CriticLearner
from flowmbpo.algorithms.experience import Collector, Experience
from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.algorithms.imagination import (
    Transitions,
    encoded,
    follow_reality,
    imagine,
    imagine_alongside,
    predicted,
)
from flowmbpo.algorithms.measurement import measure
from flowmbpo.algorithms.normalizers import ObservationNormalizer, Scale
from flowmbpo.algorithms.optimization import GuardedAdam, autocast, frozen, scheduled_rate
from flowmbpo.algorithms.policy import DeterministicPolicy
from flowmbpo.algorithms.world_model_learner import WorldModelLearner
from flowmbpo.data_types import State
from flowmbpo.models.actor import Actor
from flowmbpo.models.critic import Critic
from flowmbpo.models.diagnostics import reward_fit
from flowmbpo.models.world_model import WorldModel
from flowmbpo.spec.schema import ActorSpec, CriticSpec, TrainSpec

if TYPE_CHECKING:
    from flowmbpo.envs.contract import Env


class PWM:
    """The learner: world model, actor and critic with their optimisers, replay and normalisers."""

    def __init__(
        self,
        *,
        env: Env,
        world_model: WorldModel,
        actor: Actor,
        critic: Critic,
        train: TrainSpec,
        actor_spec: ActorSpec,
        critic_spec: CriticSpec,
        observations: ObservationNormalizer,
        reward_scale: Scale,
        truth: WorldModel | None,
        generator: torch.Generator,
        recorded: HeldOut | None = None,
    ) -> None:
        """Resets `env`. `generator`, on the environment's device, feeds every random number drawn here.

        `recorded`: transitions for `train.pretrain`, needed until that is done.
        `truth`, where there is one, is the simulator on raw observations and rewards, for measurements only.
        """
        self.world_model, self.actor, self.critic = world_model, actor, critic
        self.train, self.actor_spec, self.critic_spec = train, actor_spec, critic_spec
        self.generator = generator
        self.device = env.device
        self.env_steps_per_epoch = train.horizon * env.num_envs
        learns = any(True for _ in world_model.parameters())  # the simulator has nothing to learn
        self.collector = Collector(
            env,
            horizon=train.horizon,
            replay_capacity=train.replay_capacity,
            replays=learns or train.imagination == "from_visited",
        )
        self.observations, self.reward_scale, self.truth = observations, reward_scale, truth
        self.actor_learner = ActorLearner(actor, spec=actor_spec, train=train, device=self.device)
        self.critic_learner = CriticLearner(critic, spec=critic_spec, train=train, generator=generator)
        self.model_learner = WorldModelLearner(
            world_model,
            train=train,
            observations=observations,
            reward_scale=reward_scale,
            replay=self.collector.replay,
            recorded=recorded,
            generator=generator,
        )
        self.bad_steps = torch.zeros((), dtype=torch.long, device=self.device)
        self.epoch = 0
        self._imagined: Transitions | None = None

    # --- one epoch ---------------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> str:
        """Set the learning rates of `epoch`, counted from 0; the policy stays the same one."""
        self.epoch = epoch
        progress, final = epoch / self.train.max_epochs, self.train.final_learning_rate
        for optimizer in self.optimizers.values():
            optimizer.learning_rate = scheduled_rate(optimizer.initial_rate, final, progress, self.train.lr_schedule)
        return ""

    @property
    def phases(self) -> Sequence[tuple[str, Callable[[], Statistics]]]:
        """The parts of one epoch, in order; pre-training comes before the first. Of an interrupted one what is left."""
        phases = (
            ("pretrain", self.pretrain),
            ("rollout", self.rollout),
            ("actor", self.update_actor),
            ("critic", self.update_critic),
            ("world_model", self.update_world_model),
        )
        first = self.unfinished or ("pretrain" if self.model_learner.pretraining_left else "rollout")
        return phases[[name for name, _ in phases].index(first) :]

    @property
    def unfinished(self) -> str:
        """The phase that was interrupted; empty between epochs."""
        return self.model_learner.unfinished

    def interrupt_with(self, tick: Callable[[int, int], bool]) -> None:
        """From now on `tick(done, total)` is called between the updates of long phases; False interrupts the phase."""
        self.model_learner.tick = tick

    @property
    def optimizers(self) -> dict[str, GuardedAdam]:
        """By the network's name; without the world model's where it has nothing to learn."""
        found = {"actor": self.actor_learner.optimizer, "critic": self.critic_learner.optimizer}
        model = self.model_learner.optimizer
        return found if model is None else {**found, "world_model": model}

    @property
    def nonfinite(self) -> dict[str, Tensor]:
        """Refused updates, and real steps with a value that is not finite, so far."""
        return {"environment": self.bad_steps, **{name: o.refused for name, o in self.optimizers.items()}}

    @property
    def reacting(self) -> bool:
        """Whether the actor's gradient includes how the policy will react to the states that its actions lead to."""
        return self.train.imagination != "alongside" or self.actor_spec.reacts

    def counters(self) -> dict[str, float]:
        """How far learning is: rates, updates, stored transitions. Synchronises."""
        return {
            **{f"lr/{name}": optimizer.learning_rate for name, optimizer in self.optimizers.items()},
            "train/updates": float(self.model_learner.updates),
            "train/outlying_rewards": float(self.reward_scale.moments.outliers),
            "train/replay_transitions": float(len(self.collector.replay)),
        }

    @property
    def model_is_trained(self) -> bool:
        """Before its many first updates the model has no gradient worth following: actor and critic rest."""
        return self.model_learner.caught_up

    # --- rollout -----------------------------------------------------------------------------------------------------

    def rollout(self) -> Statistics:
        """`horizon` real steps of every environment, and beside them the imagined ones where imagination runs so."""
        given = (self.world_model, self.actor, self.collector, self.encode, self.generator)
        if self.train.imagination == "alongside":
            with frozen(self.world_model, self.critic, self.actor), autocast(self.train.precision, self.device):
                self._imagined = imagine_alongside(*given, reacting=self.reacting)
        elif self.train.imagination == "real":
            with frozen(self.world_model, self.critic, self.actor):
                self._imagined = follow_reality(*given)
        else:
            with torch.no_grad():
                for t in range(self.train.horizon):
                    self.collector.step(t, self.actor.sample(self.encode(self.collector.obs), self.generator))
        experience = self.collector.experience
        self.bad_steps += experience.nonfinite()
        self.observations.update(experience.obs)
        self.reward_scale.update(experience.rewards)
        self.center_regression()
        return {
            **self._reward_fit(experience),
            "train/reward_scale": self.reward_scale.value,
            "train/policy_entropy": self.actor.entropy_before_tanh().detach(),
        }

    @torch.no_grad()
    def _reward_fit(self, experience: Experience) -> Statistics:
        """How well the model knows the rewards of the real steps; nothing before it has learned anything."""
        if self.model_learner.optimizer is not None and not self.model_learner.updates:
            return {}
        predicted = self.world_model.reward(self.encode(experience.obs), experience.actions)
        fit = reward_fit(predicted * self.reward_scale.value, experience.rewards)
        return {f"train/{name}": value for name, value in fit.items()}

    def center_regression(self) -> None:
        """Untrained heads predict the mean so far of what they are fitted to.

        The task does not change: what is predicted is the reward as it is, and an episode's end is still worth 0.
        """
        if self.train.regression == "centered":
            self.world_model.reward_offset.copy_(self.reward_scale.center)
            self.critic_learner.center()

    def encode(self, obs: Tensor) -> Tensor:
        """Latent of a raw observation: `[..., O]` -> `[..., Z]`."""
        return self.world_model.encode(self.observations(obs))

    # --- learning -----------------------------------------------------------------------------------------------------

    def update_actor(self) -> Statistics:
        """Ascend the imagined returns."""
        if not self.model_is_trained:
            return {}
        for _ in range(self.actor_spec.updates):
            if self.train.imagination == "from_visited":
                self._imagined = self._imagine_from_visited()
            assert self._imagined is not None
            statistics = self.actor_learner.improve(self._imagined, self.world_model, self.critic_learner.target)
        self.actor_learner.update_average()
        return statistics

    def _imagine_from_visited(self) -> Transitions:
        spec = self.actor_spec
        obs = self.collector.replay.sample_recent(spec.imagined_batch_size, spec.recent_steps, self.generator)
        with torch.no_grad():
            z = self.encode(obs)
        with frozen(self.world_model, self.critic, self.actor), autocast(self.train.precision, self.device):
            return imagine(self.world_model, self.actor, z, horizon=self.train.horizon, generator=self.generator)

    def update_critic(self) -> Statistics:
        """Regress the values on what this epoch's states turned out to be worth, really or in imagination."""
        if not self.model_is_trained:
            return {}
        if self.critic_spec.targets == "real":
            with torch.no_grad():
                seen = encoded(self.collector.experience, self.encode, self.reward_scale)
        else:
            assert self._imagined is not None
            seen = self._imagined
        targets = self.critic_learner.targets(seen)
        self.center_regression()
        latents = seen.latents
        if self.critic_spec.states == "predicted":
            rolled = predicted(self.world_model, self.collector.experience, latents, self.generator)
            latents, targets = torch.cat((latents, rolled)), torch.cat((targets, targets))
        return self.critic_learner.fit(latents, targets)

    def pretrain(self) -> Statistics:
        """Train the world model on the recorded transitions, which also give the scales their start."""
        if not self.unfinished:
            assert self.model_learner.recorded is not None
            obs, rewards = self.model_learner.recorded.kept()
            self.observations.update(obs)
            self.reward_scale.update(rewards)
            self.center_regression()
        return self.model_learner.pretrain()

    def update_world_model(self) -> Statistics:
        """Fit the world model to replayed steps."""
        self._imagined = None  # its graph ends here
        return self.model_learner.update(self.epoch)

    # --- evaluation and state ----------------------------------------------------------------------------------------

    def policy(self) -> DeterministicPolicy:
        """The (averaged) policy under the protocol it was trained with."""
        return DeterministicPolicy(
            world_model=self.world_model,
            actor=self.actor_learner.average,
            observations=self.observations,
            reward_scale=self.reward_scale,
            train=self.train,
        )

    def diagnose(self, held_out: HeldOut) -> Statistics:
        """Measure the world model and the actor's gradient on real episodes that training never sees."""
        return measure(self, held_out)

    def deployable_state(self) -> State:
        """What acting and predicting need."""
        return learner_state.deployable_state(self)

    def state_dict(self) -> State:
        """Everything an exact continuation needs besides the environment; also inside an `unfinished` epoch."""
        return learner_state.resumable_state(self)

    def load_state_dict(self, state: State) -> None:
        """Continue where `state_dict` was taken; load the environment's state too, in either order."""
        learner_state.load_resumable_state(self, state)
