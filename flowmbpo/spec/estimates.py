"""What an experiment will cost, estimated from its spec before anything is built: memory and arithmetic work per epoch.

Estimates, not measurements (`flowmbpo bench train` measures): weights, optimiser, replay and the activations kept for
the backward pass are counted; allocator overhead is a flat margin. Against one world-model update measured on a CPU
(5M and 48M, MLP and flow, small batches) it is within 30%, which is enough to refuse a job that cannot fit its machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from flowmbpo.spec.extensions import WorldModelExtension
from flowmbpo.spec.parameters import count_parameters, networks
from flowmbpo.spec.rule import Violation
from flowmbpo.spec.schema import (
    STAGES,
    EnsembleWorldModelSpec,
    Experiment,
    FlowWorldModelSpec,
    ResourcesSpec,
    SimulatorWorldModelSpec,
)

_GB = 1e9
_HOST_BASE = 2.5 * _GB  # Python, torch, Warp, MLflow and the CUDA libraries, resident
_DEVICE_BASE = 1.0 * _GB  # CUDA context and workspaces
_BYTES_PER_WEIGHT = 16  # float32 weight, gradient and two Adam averages
_KEPT_PER_STAGE = 5  # latents kept around each velocity evaluation of a flow (measured: 3 to 6)


@dataclass(frozen=True)
class Estimate:
    """Memory in GB (1e9 bytes), work in GFLOP (1e9 floating-point operations, a multiply-add counts 2) per epoch."""

    weights_gb: float
    activations_gb: float
    replay_gb: float
    device_gb: float
    host_gb: float
    actor_gflop: float
    critic_gflop: float
    world_model_gflop: float
    env_steps: int
    dynamics_evaluations: int

    @property
    def epoch_gflop(self) -> float:
        """Arithmetic of one epoch without the simulator."""
        return self.actor_gflop + self.critic_gflop + self.world_model_gflop

    def as_dict(self) -> dict[str, float]:
        """All figures, with `epoch_gflop`."""
        return {**asdict(self), "epoch_gflop": self.epoch_gflop}


def _evaluations_per_step(spec: Experiment) -> int:
    """Evaluations of the dynamics network in one control step."""
    model = spec.world_model
    if isinstance(model, FlowWorldModelSpec):
        return STAGES[model.integrator] * model.substeps
    if isinstance(model, WorldModelExtension):
        return model.evaluations_per_step
    return model.members if isinstance(model, EnsembleWorldModelSpec) else 1


def _evaluations_in_loss(spec: Experiment) -> float:
    """Evaluations of the dynamics network in an update, per transition of a sequence.

    Matching costs 1, a shortcut 3 more on a quarter of them. Who learns from nothing else does not integrate the last
    step, nor any where the loss is taken at encoded states.
    """
    model, per_step = spec.world_model, _evaluations_per_step(spec)
    if isinstance(model, SimulatorWorldModelSpec):
        return 0.0
    matching, predicting = 0.0, True
    if isinstance(model, FlowWorldModelSpec):
        matching = 0.0 if model.objective == "prediction" else 1.75 if model.velocity == "shortcut" else 1.0
        predicting = model.objective != "matching"
    if model.loss_states == "encoded":
        return matching + predicting * per_step
    spared = not predicting and not model.decoder_units
    return matching + per_step - spared * per_step / spec.train.sequence_length


def estimate(spec: Experiment) -> Estimate:
    """Memory and work of one epoch."""
    model, train, critic, env = spec.world_model, spec.train, spec.critic, spec.env
    is_flow = isinstance(model, FlowWorldModelSpec)
    latent, action = spec.latent_dim, env.action_dim
    encoder, dynamics, reward, goes_on, decoder, actor, value = networks(spec).values()

    evaluations = _evaluations_per_step(spec)
    steps = train.num_envs * train.horizon
    from_visited = train.imagination == "from_visited"
    rollouts = spec.actor.imagined_batch_size if from_visited else train.num_envs
    imagined = rollouts * train.horizon  # rows of one actor update
    learned = not isinstance(model, SimulatorWorldModelSpec)
    fitted = learned * train.wm_batch_size * train.sequence_length  # rows of one world-model update
    learnt = _evaluations_in_loss(spec)

    # Backward passes cost twice the forward, or once where weights are frozen.
    frozen = dynamics.flop * evaluations + reward.flop + goes_on.flop + critic.ensemble * value.flop / train.horizon
    updates = spec.actor.updates if from_visited else 1
    actor_flop = imagined * updates * (3 * actor.flop + 2 * frozen)
    actor_flop += steps * (encoder.flop + actor.flop)
    real = critic.targets == "real"
    valued = steps if real else imagined
    rolled = critic.states == "predicted"  # the real actions once more through the model; its states are fitted too
    rolling = rolled * (steps - train.num_envs)
    critic_flop = critic.ensemble * value.flop * valued * (3 * critic.passes * (1 + rolled) + 1)
    critic_flop += rolling * evaluations * dynamics.flop + real * 2 * steps * encoder.flop
    heads = reward.flop + goes_on.flop + decoder.flop
    update = fitted * (3 * (dynamics.flop * learnt + heads) + encoder.flop) + train.wm_batch_size * 3 * encoder.flop
    kept_by_heads = reward.kept + goes_on.kept
    step_kept = dynamics.kept + (_KEPT_PER_STAGE * latent if is_flow else 0)
    kept_by_update = fitted * (step_kept * learnt + kept_by_heads + decoder.kept) + train.wm_batch_size * encoder.kept
    kept_by_rollout = imagined * (step_kept * evaluations + kept_by_heads + actor.kept)

    bytes_per_feature = 3 if train.precision == "bfloat16" else 4  # norms and softmax stay in float32
    activations = bytes_per_feature * max(kept_by_update, kept_by_rollout)
    weights = train.starts * _BYTES_PER_WEIGHT * count_parameters(spec).total
    replay = train.starts * train.replay_capacity * (4 * (env.observation_dim + action + 1) + 2)
    on_device = 1.25 * activations + weights + replay
    on_gpu = spec.resources.gpus > 0
    host = _HOST_BASE + replay + (0 if on_gpu else 1.25 * activations + weights)
    return Estimate(
        weights_gb=weights / _GB,
        activations_gb=activations / _GB,
        replay_gb=replay / _GB,
        device_gb=(on_device + _DEVICE_BASE) / _GB if on_gpu else 0.0,
        host_gb=host / _GB,
        actor_gflop=actor_flop / 1e9,
        critic_gflop=critic_flop / 1e9,
        world_model_gflop=train.wm_updates * update / 1e9,
        env_steps=steps,
        dynamics_evaluations=round((updates * imagined + rolling) * evaluations + train.wm_updates * fitted * learnt),
    )


def judge(spec: Experiment) -> Iterator[Violation]:
    """Whether the estimated memory fits what the experiment asks of its machine."""
    cost, resources, usual = estimate(spec), spec.resources, ResourcesSpec()
    limits = (
        ("host", cost.host_gb, "memory_gb", resources.memory_gb, usual.memory_gb),
        ("device", cost.device_gb, "gpu_memory_gb", resources.gpu_memory_gb, usual.gpu_memory_gb),
    )
    for where, need, key, have, ordinary in limits:
        if need <= have:
            continue
        size = "train.wm_batch_size" if cost.activations_gb > cost.replay_gb else "train.replay_capacity"
        if cost.weights_gb > max(cost.activations_gb, cost.replay_gb):
            size = "world_model.units"
        others = ("train.wm_batch_size", "train.replay_capacity", "train.num_envs", "world_model.units")
        # A need beyond any ordinary machine is the fault of what is large, not of the machine.
        primary = size if need > ordinary else f"resources.{key}"
        parts = f"activations {cost.activations_gb:,.1f}, weights and optimiser {cost.weights_gb:,.1f}, "
        yield Violation(
            primary,
            f"needs about {need:,.1f} GB of {where} memory, but resources.{key} = {have:,g} "
            f"(GB: {parts}replay {cost.replay_gb:,.1f})",
            f"reduce {size}, or ask for more with resources.{key}",
            also=(f"resources.{key}", *others) if primary == size else others,
        )
