"""Fits the dynamics of registered experiments to one recorded data set and scores them: which kind of model fits best?

    python benchmarks/world_models.py noisy-mlp mini-flow-v2:world_model.tau_sampling=early --seeds 3

One line of JSON per model and seed: error of the best guess and energy score of samples after 1 and 16 open-loop steps,
each over that of "nothing changes", coverages, and the CPU time of an update. No policy is trained: the actions are
smooth random ones, the same for all models of one seed. Only for experiments whose latent is the observation.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from flowmbpo.algorithms.normalizers import ObservationNormalizer
from flowmbpo.algorithms.replay import Replay
from flowmbpo.models.diagnostics import distribution_scores, open_loop_error
from flowmbpo.models.world_model import WorldModel
from flowmbpo.spec.registry import load_registry
from flowmbpo.spec.schema import EnvSpec, Experiment, SimulatorWorldModelSpec
from flowmbpo.training.builder import OBSERVATION_LIMIT, build_env, build_networks

TRAIN, HELD_OUT, STEPS = 512, 64, 200  # environments, environments, control steps of each


def collect(spec: EnvSpec, num_envs: int, seed: int) -> tuple[Replay, ObservationNormalizer]:
    """Transitions under first-order random actions."""
    env = build_env(spec, num_envs, seed, "cpu")
    replay = Replay(
        capacity=num_envs * STEPS,
        num_envs=num_envs,
        obs_dim=env.obs_dim,
        action_dim=env.action_dim,
        device=env.device,
    )
    normalizer = ObservationNormalizer(env.obs_dim, env.device, enabled=True, limit=OBSERVATION_LIMIT)
    generator = torch.Generator().manual_seed(seed)
    obs, action = env.reset().clone(), torch.zeros(num_envs, env.action_dim)
    for _ in range(STEPS):
        action = (0.7 * action + 0.7 * torch.randn(action.shape, generator=generator)).clamp(-1, 1)
        normalizer.update(obs.unsqueeze(0))
        step = env.step(action)
        replay.add(obs, action, step)
        obs = step.obs.clone()
    return replay, normalizer


def fit(experiment: Experiment, seed: int, updates: int, batch: int) -> dict[str, float]:
    """Train one model on single transitions and score it on episodes of other environments."""
    replay, normalizer = collect(experiment.env, TRAIN, 1000 + seed)
    held_out, _ = collect(experiment.env, HELD_OUT, 2000 + seed)
    torch.manual_seed(seed)
    env = experiment.env
    assert not isinstance(experiment.world_model, SimulatorWorldModelSpec), "the simulator has nothing to fit"
    model: WorldModel = build_networks(experiment.world_model, env.observation_dim, env.action_dim)
    generator = torch.Generator().manual_seed(seed)
    rate = experiment.train.wm_learning_rate
    optimizer = torch.optim.Adam(model.dynamics.parameters(), rate)
    started = time.process_time()
    for update in range(updates):
        optimizer.param_groups[0]["lr"] = rate * (1 - update / updates)
        data = replay.sample(batch, 1, generator)
        obs = normalizer(data.obs)
        loss = model.dynamics.loss(obs[0], data.actions[0], obs[1], generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = (time.process_time() - started) / updates
    data = held_out.sample(512, 16, torch.Generator().manual_seed(0))
    obs = normalizer(data.obs)
    errors = open_loop_error(model, obs, data.actions, (1, 16))
    scores = distribution_scores(model, obs, data.actions, torch.Generator().manual_seed(1))
    figures = {name: float(value) for name, value in (errors | scores).items()}
    return {**figures, "evaluations_per_step": model.dynamics.evaluations_per_step, "cpu_ms_per_update": 1e3 * seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="+", help="NAME, or NAME:key=value,key=value")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--registry", default="experiments.toml")
    options = parser.parse_args()
    torch.set_num_threads(1)
    registry = load_registry(Path(options.registry))
    for seed in range(options.seeds):
        for name in options.experiments:
            base, _, overrides = name.partition(":")
            experiment = registry.resolve(base, overrides.split(",") if overrides else []).spec
            figures = fit(experiment, seed, options.updates, options.batch)
            rounded = {key: float(f"{value:.4g}") for key, value in figures.items()}
            print(json.dumps({"experiment": name, "seed": seed, **rounded}), flush=True)


if __name__ == "__main__":
    main()
