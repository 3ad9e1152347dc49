"""PWM (arXiv 2407.02466): a world model learned from real steps, a policy improved by gradients through it.

Not here: networks (`models`), environments, logging, files. What the training loop calls:

- `begin_epoch(epoch)` sets the learning rates, then each of `phases` once, in order: rollout, actor, critic,
  world_model. A phase returns detached 0-d tensors by metric name. `tick(done, total)` is called between the updates of
  the world model and says whether they may go on; where not, `unfinished` names the phase, and the next `phases` begin
  with the rest of it.
- `policy()` is the deterministic policy for evaluation; `diagnose()` measures the world model on held-out episodes.
- `state_dict()` holds all that an exact continuation needs except the environment's own state; `deployable_state()`
  what acting needs.

Two forms of imagination, `train.imagination`:

- `alongside`, as published: the real environment is driven open loop by the actions computed on imagined latents, and
  the actor learns from that very rollout, its latents detached at the actor's input.
- `from_visited`: the environment is driven closed loop, and the actor learns from rollouts imagined from states that
  were visited recently, several updates an epoch; the gradient includes the policy's own reactions.

The critic learns from the imagined rewards and continuations (`critic.targets = "imagined"`) or from the real ones of
this epoch's steps (`"real"`), where the end of an episode is a fact and not a prediction.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flowmbpo.algorithms.experience import Collector
from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.algorithms.imagination import (
    Transitions,
    encoded,
    imagine,
    imagine_alongside,
    predicted,
    values_at_segment_ends,
)
from flowmbpo.algorithms.measurement import measure
from flowmbpo.algorithms.normalizers import ObservationNormalizer, RunningMoments, Scale
from flowmbpo.algorithms.optimization import GuardedAdam, frozen, scheduled_rate
from flowmbpo.algorithms.policy import DeterministicPolicy
from flowmbpo.algorithms.replay import Sequences
from flowmbpo.algorithms.returns import segment_returns
from flowmbpo.algorithms.value_learning import fit_values, value_targets
from flowmbpo.models.actor import Actor
from flowmbpo.models.averaging import update_average_
from flowmbpo.models.critic import Critic
from flowmbpo.models.diagnostics import reward_fit
from flowmbpo.models.world_model import WorldModel
from flowmbpo.spec.schema import ActorSpec, CriticSpec, TrainSpec

if TYPE_CHECKING:
    from flowmbpo.envs.contract import Env

Statistics = dict[str, Tensor]


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

        `recorded`: transitions for `train.pretrain`, needed iff that is set.
        `truth`, where there is one, is the simulator on raw observations and rewards, for measurements only.
        """
        self.world_model, self.actor, self.critic = world_model, actor, critic
        self.train, self.actor_spec, self.critic_spec = train, actor_spec, critic_spec
        self.generator = generator
        self.device = env.device
        self.env_steps_per_epoch = train.horizon * env.num_envs
        self.average_actor = copy.deepcopy(actor).requires_grad_(False)
        moving = critic_spec.target_decay > 0.0
        self.target_critic = copy.deepcopy(critic).requires_grad_(False) if moving else critic

        self.collector = Collector(
            env,
            horizon=train.horizon,
            replay_capacity=train.replay_capacity,
            replays=self.learns_model or train.imagination == "from_visited",
        )
        self.observations, self.reward_scale = observations, reward_scale
        self.truth = truth
        self.return_scale = Scale("running_std", self.device)
        self.value_targets = RunningMoments((), self.device)

        def optimizer(network: nn.Module, rate: float, betas: tuple[float, float], norm: float) -> GuardedAdam:
            return GuardedAdam(list(network.parameters()), learning_rate=rate, betas=betas, grad_norm=norm)

        self.optimizers = {
            "actor": optimizer(actor, actor_spec.learning_rate, train.adam_betas, actor_spec.grad_norm),
            "critic": optimizer(critic, critic_spec.learning_rate, train.adam_betas, critic_spec.grad_norm),
        }
        if self.learns_model:
            self.optimizers["world_model"] = optimizer(
                world_model, train.wm_learning_rate, train.wm_adam_betas, train.wm_grad_norm
            )
        self._bad_steps = torch.zeros((), dtype=torch.long, device=self.device)
        self.epoch = 0
        self.world_model_updates = 0
        self._caught_up = not self.learns_model  # whether the many first updates of the world model have begun
        self.recorded = recorded
        self._pretrain_left = train.pretrain.updates if train.pretrain else 0
        self.tick: Callable[[int, int], bool] = lambda done, total: True
        self.unfinished = ""  # the phase that was interrupted, with so many of its updates done, and their sums
        self._done = self._total = 0
        self._sums: Statistics = {}
        self._imagined: Transitions | None = None

    # --- one epoch ---------------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rates of `epoch`, counted from 0."""
        self.epoch = epoch
        for optimizer in self.optimizers.values():
            optimizer.learning_rate = scheduled_rate(
                optimizer.initial_rate,
                self.train.final_learning_rate,
                epoch / self.train.max_epochs,
                self.train.lr_schedule,
            )

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
        first = self.unfinished or ("pretrain" if self._pretrain_left else "rollout")
        return phases[[name for name, _ in phases].index(first) :]

    @property
    def nonfinite(self) -> dict[str, Tensor]:
        """Refused updates, and real steps with a value that is not finite, so far."""
        return {"environment": self._bad_steps, **{name: o.refused for name, o in self.optimizers.items()}}

    @property
    def learns_model(self) -> bool:
        """Whether the world model has anything to learn; the simulator has not."""
        return any(True for _ in self.world_model.parameters())

    @property
    def reacting(self) -> bool:
        """Whether the actor's gradient includes how the policy will react to the states that its actions lead to."""
        return self.train.imagination == "from_visited" or self.actor_spec.reacts

    @property
    def rollouts_per_actor_update(self) -> int:
        alongside = self.train.imagination == "alongside"
        return self.train.num_envs if alongside else self.actor_spec.imagined_batch_size

    @property
    def dynamics_evaluations(self) -> int:
        """Evaluations of the dynamics network per epoch, one per state: what flows with more substeps pay for."""
        train = self.train
        imagined = self.actor_spec.updates * self.rollouts_per_actor_update * train.horizon
        if not self.learns_model:
            return round(imagined * self.world_model.dynamics.evaluations_per_step)
        per_sequence = self.world_model.evaluations_per_sequence(train.sequence_length)
        replayed = train.wm_updates * train.wm_batch_size * per_sequence
        return round(imagined * self.world_model.dynamics.evaluations_per_step + replayed)

    def counters(self) -> dict[str, float]:
        """How far learning is: rates, updates, stored transitions. Synchronises."""
        return {
            **{f"lr/{name}": optimizer.learning_rate for name, optimizer in self.optimizers.items()},
            "train/updates": float(self.world_model_updates),
            "train/outlying_rewards": float(self.reward_scale.outliers),
            "train/replay_transitions": float(len(self.collector.replay)),
        }

    @property
    def model_is_trained(self) -> bool:
        """Before its many first updates the model has no gradient worth following: actor and critic rest."""
        return self._caught_up

    # --- rollout -----------------------------------------------------------------------------------------------------

    def rollout(self) -> Statistics:
        """`horizon` real steps of every environment, and beside them the imagined ones where imagination runs so."""
        if self.train.imagination == "alongside":
            with frozen(self.world_model, self.critic, self.actor), self._autocast():
                self._imagined = imagine_alongside(
                    self.world_model, self.actor, self.collector, self.encode, self.generator, reacting=self.reacting
                )
        else:
            with torch.no_grad():
                for t in range(self.train.horizon):
                    self.collector.step(t, self.actor.sample(self.encode(self.collector.obs), self.generator))
        experience = self.collector.experience
        self._bad_steps += experience.nonfinite()
        self.observations.update(experience.obs)
        self.reward_scale.update(experience.rewards)
        self._center_regression()
        with torch.no_grad():
            predicted = self.world_model.reward(self.encode(experience.obs), experience.actions)
        fit = reward_fit(predicted * self.reward_scale.value, experience.rewards)
        return {
            **{f"train/{name}": value for name, value in fit.items()},
            "train/reward_scale": self.reward_scale.value,
            "train/policy_entropy": self.actor.entropy_before_tanh().detach(),
        }

    def _center_regression(self) -> None:
        """Untrained heads predict the mean so far of what they are fitted to.

        The task does not change: what is predicted is the reward as it is, and an episode's end is still worth 0.
        """
        if self.train.regression == "centered":
            self.world_model.reward_offset.copy_(self.reward_scale.center)
            for critic in (self.critic, self.target_critic):
                critic.offset.copy_(self.value_targets.mean)

    def encode(self, obs: Tensor) -> Tensor:
        """Latent of a raw observation: `[..., O]` -> `[..., Z]`."""
        return self.world_model.encode(self.observations(obs))

    # --- actor -------------------------------------------------------------------------------------------------------

    def update_actor(self) -> Statistics:
        """Ascend the imagined returns."""
        if not self.model_is_trained:
            return {}
        for _ in range(self.actor_spec.updates):
            if self.train.imagination == "from_visited":
                self._imagined = self._imagine_from_visited()
            assert self._imagined is not None
            statistics = self._improve_actor(self._imagined)
        update_average_(self.average_actor, self.actor, 1.0 - self.actor_spec.average_decay)
        return statistics

    def _imagine_from_visited(self) -> Transitions:
        spec = self.actor_spec
        obs = self.collector.replay.sample_recent(spec.imagined_batch_size, spec.recent_steps, self.generator)
        with torch.no_grad():
            z = self.encode(obs)
        with frozen(self.world_model, self.critic, self.actor), self._autocast():
            return imagine(self.world_model, self.actor, z, horizon=self.train.horizon, generator=self.generator)

    def _improve_actor(self, imagined: Transitions) -> Statistics:
        with frozen(self.world_model, self.critic), self._autocast():
            returns = segment_returns(
                imagined.rewards,
                imagined.continues,
                values_at_segment_ends(self.target_critic, imagined),
                gamma=self.train.gamma,
                ended=imagined.ended,
            )
        self.return_scale.update(returns)
        loss = -self.return_scale(returns).mean()
        assert imagined.exploration is not None
        with self._autocast():
            through_policy = imagined.exploration.through_policy(loss, self.actor, imagined.latents)
        norm = self.optimizers["actor"].step(through_policy)
        return {
            "train/actor_loss": loss.detach(),
            "train/actor_gradient_norm": norm,
            "train/return_scale": self.return_scale.value,
        }

    # --- critic ------------------------------------------------------------------------------------------------------

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
        targets = value_targets(self.target_critic, seen, gamma=self.train.gamma, td_lambda=self.train.td_lambda)
        self.value_targets.update(targets)
        self._center_regression()
        latents = seen.latents
        if self.critic_spec.states == "predicted":
            rolled = predicted(self.world_model, self.collector.experience, latents, self.generator)
            latents, targets = torch.cat((latents, rolled)), torch.cat((targets, targets))
        return fit_values(
            self.critic,
            self.target_critic,
            self.critic_spec.target_decay,
            self.optimizers["critic"],
            latents,
            targets,
            passes=self.critic_spec.passes,
            minibatches=self.critic_spec.minibatches,
            generator=self.generator,
            precision=self._autocast,
        )

    # --- before the first epoch --------------------------------------------------------------------------------------

    def pretrain(self) -> Statistics:
        """Train the world model on the recorded transitions, which also give the scales their start."""
        assert self.recorded is not None
        count = self._pretrain_left
        if not self.unfinished:
            obs, rewards = self.recorded.kept()
            self.observations.update(obs)
            self.reward_scale.update(rewards)
            self._center_regression()
            self._pretrain_left, self._caught_up = 0, True
        return self._learn_world_model("pretrain", count, self._recorded_sequences)

    def _recorded_sequences(self) -> Sequences:
        assert self.recorded is not None
        batch = self.recorded.sample(self.train.wm_batch_size, self.train.sequence_length, self.generator)
        if batch is None:
            raise ValueError(f"no recorded episode holds {self.train.sequence_length} transitions")
        return batch

    # --- world model -------------------------------------------------------------------------------------------------

    def update_world_model(self) -> Statistics:
        """`wm_updates` steps on replayed sequences; once, from `wm_first_epoch` on, `wm_first_updates`.

        No update while no stored episode is long enough for one sequence; to know that, an epoch reads one number.
        """
        self._imagined = None  # its graph ends here
        warming_up = self.epoch + 1 < self.train.warmup_epochs
        if not self.learns_model:
            return {}
        if not self.unfinished and (warming_up or self.collector.replay.starts(self.train.sequence_length).empty):
            return {}
        count = self.train.wm_updates
        if not self._caught_up and self.epoch + 1 >= self.train.wm_first_epoch:
            count, self._caught_up = self.train.wm_first_updates, True
        return self._learn_world_model("world_model", count, self._replayed_sequences)

    def _replayed_sequences(self) -> Sequences:
        return self.collector.replay.sample(self.train.wm_batch_size, self.train.sequence_length, self.generator)

    def _learn_world_model(self, phase: str, count: int, draw: Callable[[], Sequences]) -> Statistics:
        """`count` updates, each on a batch from `draw`; of an interrupted phase what is left of them. Says nothing
        where it is interrupted again."""
        if not self.unfinished:
            self.unfinished, self._done, self._total, self._sums = phase, 0, count, {}
        while self._done < self._total:
            for name, value in self._improve_world_model(draw()).items():
                self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._done += 1
            self.world_model_updates += 1
            if self._done < self._total and not self.tick(self._done, self._total):
                return {}
        sums, self._sums, self.unfinished = self._sums, {}, ""
        return {f"train/{name}": value / self._total for name, value in sums.items()}

    def _improve_world_model(self, batch: Sequences) -> Statistics:
        with self._autocast():
            loss, parts = self.world_model.loss(
                self.observations(batch.obs),
                batch.actions,
                self.reward_scale(batch.rewards),
                discount=self.train.wm_step_discount,
                reward_weight=self.train.wm_reward_weight,
                decoder_weight=self.train.wm_decoder_weight,
                terminated=batch.terminated,
                generator=self.generator,
            )
        norm = self.optimizers["world_model"].step(loss)
        parts.pop("reward_correlation", None)  # the one of the real steps is logged instead
        return {**parts, "world_model_loss": loss.detach(), "world_model_gradient_norm": norm}

    # --- evaluation and state ----------------------------------------------------------------------------------------

    def policy(self) -> DeterministicPolicy:
        """The (averaged) policy under the protocol it was trained with."""
        return DeterministicPolicy(
            world_model=self.world_model,
            actor=self.average_actor,
            observations=self.observations,
            reward_scale=self.reward_scale,
            train=self.train,
        )

    def diagnose(self, held_out: HeldOut) -> Statistics:
        """Measure the world model and the actor's gradient on real episodes that training never sees."""
        return measure(self, held_out)

    def deployable_state(self) -> dict[str, Any]:
        """What acting and predicting need."""
        return {
            "world_model": self.world_model.state_dict(),
            "actor": self.average_actor.state_dict(),
            "critic": self.critic.state_dict(),
            "observations": self.observations.state_dict(),
            "reward_scale": self.reward_scale.state_dict(),
            "value_targets": self.value_targets.state_dict(),
        }

    def load_deployable_state(self, state: dict[str, Any]) -> None:
        """Inverse of `deployable_state`; training cannot go on from it."""
        self.world_model.load_state_dict(state["world_model"])
        for actor in (self.actor, self.average_actor):
            actor.load_state_dict(state["actor"])
        for critic in (self.critic, self.target_critic):
            critic.load_state_dict(state["critic"])
        self.observations.load_state_dict(state["observations"])
        self.reward_scale.load_state_dict(state["reward_scale"])
        if "value_targets" in state:  # not in those of 0.1.0
            self.value_targets.load_state_dict(state["value_targets"])
        self._center_regression()

    def state_dict(self) -> dict[str, Any]:
        """Everything an exact continuation needs besides the environment; also inside an `unfinished` epoch."""
        return {
            **self.deployable_state(),
            "training_actor": self.actor.state_dict(),
            "target_critic": self.target_critic.state_dict(),
            "return_scale": self.return_scale.state_dict(),
            "collector": self.collector.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "generator": self.generator.get_state(),
            "bad_steps": self._bad_steps,
            "world_model_updates": self.world_model_updates,
            "caught_up": self._caught_up,
            "pretrain_left": self._pretrain_left,
            "unfinished": self.unfinished,
            "updates": {"done": self._done, "total": self._total, "sums": dict(self._sums)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; load the environment's state too, in either order."""
        self.load_deployable_state(state)
        self.actor.load_state_dict(state["training_actor"])
        self.target_critic.load_state_dict(state["target_critic"])
        self.return_scale.load_state_dict(state["return_scale"])
        self.collector.load_state_dict(state["collector"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.generator.set_state(state["generator"].cpu())
        self._bad_steps.copy_(state["bad_steps"])
        self.world_model_updates = int(state["world_model_updates"])
        self._caught_up = bool(state["caught_up"])
        self._pretrain_left = int(state["pretrain_left"])
        self.unfinished = str(state["unfinished"])
        self._done, self._total = int(state["updates"]["done"]), int(state["updates"]["total"])
        self._sums = {name: value.to(self.device) for name, value in state["updates"]["sums"].items()}

    def _autocast(self) -> AbstractContextManager[object]:
        if self.train.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)
