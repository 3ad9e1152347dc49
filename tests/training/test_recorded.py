"""Recorded transitions: what is in the file, what may be wrong with it, and what pre-training does with them."""

import copy

import pytest
import torch

from flowmbpo.algorithms.held_out import HeldOut
from flowmbpo.errors import UserError
from flowmbpo.runs.tensors import read_tensors, write_tensors
from flowmbpo.spec.learning import PretrainSpec
from flowmbpo.spec.schema import AntEnvSpec, PointMassEnvSpec
from flowmbpo.training.builder import build
from flowmbpo.training.evaluator import Evaluator
from flowmbpo.training.recorded import read_recorded, write_recorded
from flowmbpo.training.rollout import NoisyPolicy
from tests.training.tiny import tiny

SPEC = tiny().env


class Still:
    def begin(self, num_envs):
        pass

    def act(self, obs):
        return torch.zeros(len(obs), 1), torch.zeros(len(obs))


@pytest.fixture
def env():
    return build(tiny(), 0, "cpu").evaluator.env


@pytest.fixture
def episodes(env):
    kept = HeldOut.of(env, steps=env.episode_length, episodes=env.num_envs)
    sizes = torch.arange(env.num_envs) % 2 * 0.5
    Evaluator(env, 0)(NoisyPolicy(Still(), sizes, torch.Generator().manual_seed(0)), kept)
    return kept


@pytest.fixture
def data(tmp_path, episodes):
    path = tmp_path / "data.safetensors"
    write_recorded(path, episodes, SPEC, {"run_id": "abc"})
    return path


def read(path, spec=SPEC, length=4) -> HeldOut:
    return read_recorded(PretrainSpec(data=str(path), updates=1), spec, length=length, device="cpu")


def test_each_environment_keeps_its_size_of_noise(episodes):
    actions = episodes.state_dict()["actions"]
    assert not actions[:, ::2].any()
    assert 0.3 < actions[:, 1::2].std() < 0.6
    assert actions.abs().max() <= 1


def test_what_is_written_is_read_back(data, episodes):
    found = read(data)
    assert found.transitions == episodes.transitions > 0
    one, other = (e.sample(8, 4, torch.Generator().manual_seed(1)) for e in (episodes, found))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_dry_run_knows_files_of_another_environment(flowmbpo, data):
    pretrain = f'train.pretrain={{data="{data}", updates=1}}'
    said = flowmbpo("run", "pointmass", "--dry-run", "--set", pretrain)
    assert (said.code, "another environment" in said.err) == (2, True)


def test_wrong_files_are_one_message(tmp_path, data):
    whole = data.read_bytes()
    wrong = {
        "missing": None,
        "truncated": whole[: len(whole) // 2],
        "text": b"not a tensor",
        "empty": b"",
    }
    for name, content in wrong.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=r"train\.pretrain\.data.*flowmbpo record"):
            read(path)
    foreign = tmp_path / "foreign.safetensors"
    write_tensors(foreign, {"rewards": torch.zeros(3, 2)})
    with pytest.raises(UserError, match="format is 'unknown'"):
        read(foreign)
    with pytest.raises(UserError, match="another environment"):
        read(data, AntEnvSpec())
    with pytest.raises(UserError, match="another environment"):
        read(data, PointMassEnvSpec(episode_length=SPEC.episode_length + 1))
    tensors = read_tensors(data)
    tensors["actions"] = tensors["actions"][..., :0]
    write_tensors(foreign, tensors, WORDS)
    with pytest.raises(UserError, match="actions is"):
        read(foreign)


WORDS = {"format": "flowmbpo episodes 1", "env": SPEC.model_dump_json()}
NAN = float("nan")


@pytest.mark.parametrize(
    ("changed", "words", "said"),
    [
        ({"rewards": None}, {}, "it has no rewards"),
        ({"lengths": None}, {}, "it has no lengths"),
        ({"rewards": lambda x: x[0]}, {}, "it has no rewards of episodes"),
        ({"lengths": torch.zeros_like}, {}, "its lengths are not"),
        ({"lengths": lambda x: x - 100}, {}, "its lengths are not"),
        ({"lengths": lambda x: x + 100}, {}, "its lengths are not"),
        ({"obs": lambda x: x * NAN}, {}, "not finite"),
        ({"rewards": lambda x: x * NAN}, {}, "not finite"),
        ({"lengths": lambda x: x.clamp(max=3)}, {}, "longest episode has 3 transitions, .* sequences of 4"),
        ({}, {"env": "null"}, "does not say in which environment"),
        ({}, {"env": "[]"}, "does not say in which environment"),
        ({}, {"env": "{}"}, "does not say in which environment"),
        ({}, {"env": "{"}, "cannot be used"),
    ],
)
def test_a_file_of_no_use_is_one_message(tmp_path, data, changed, words, said):
    tensors = read_tensors(data)
    for name, change in changed.items():
        tensor = tensors.pop(name)
        if change:
            tensors[name] = change(tensor).contiguous()
    write_tensors(tmp_path / "useless", tensors, WORDS | words)
    with pytest.raises(UserError, match=said):
        read(tmp_path / "useless")


def test_the_observation_after_the_last_action_is_looked_at_too(tmp_path, data):
    """Sequences have it; what lies behind it is of no episode."""
    tensors = read_tensors(data)
    obs, (last, *_) = tensors["obs"], tensors["lengths"].tolist()
    obs[last + 1 :, 0] = NAN
    write_tensors(tmp_path / "data", tensors, WORDS)
    assert read(tmp_path / "data").transitions == tensors["lengths"].sum()
    obs[last, 0] = NAN
    write_tensors(tmp_path / "data", tensors, WORDS)
    with pytest.raises(UserError, match="not finite"):
        read(tmp_path / "data")


def test_no_episode_at_all_is_one_message(tmp_path, data):
    none = {name: tensor[..., :0] if tensor.ndim < 3 else tensor[:, :0] for name, tensor in read_tensors(data).items()}
    write_tensors(tmp_path / "useless", {name: tensor.contiguous() for name, tensor in none.items()}, WORDS)
    with pytest.raises(UserError, match="its lengths are not"):
        read(tmp_path / "useless")


def test_pretraining_comes_before_the_first_real_step_and_only_once(data):
    spec = tiny(pretrain={"data": str(data), "updates": 7}, imagination="from_visited", normalize_observations=True)
    algorithm = build(spec, 0, "cpu").algorithm
    before = copy.deepcopy(algorithm.actor.state_dict())
    algorithm.begin_epoch(0)
    assert [name for name, _ in algorithm.phases] == ["pretrain", "rollout", "actor", "critic", "world_model"]
    assert algorithm.pretrain()["train/world_model_loss"] > 0
    assert algorithm.model_learner.updates == 7
    assert algorithm.model_learner.recorded is None  # their memory is free again
    assert algorithm.observations.moments.count > 0
    assert next(name for name, _ in algorithm.phases) == "rollout"
    for _, phase in algorithm.phases:
        phase()
    assert any(not torch.equal(before[name], value) for name, value in algorithm.actor.state_dict().items())
    assert algorithm.model_learner.updates == 7 + spec.train.wm_updates  # no many first updates any more


def test_an_interrupted_pretraining_goes_on_exactly(data):
    spec = tiny(pretrain={"data": str(data), "updates": 5}, imagination="from_visited", normalize_observations=True)
    whole, first, second = (build(spec, 0, "cpu").algorithm for _ in range(3))
    first.model_learner.tick = lambda done, total: done < 3
    assert first.pretrain() == {}
    assert [name for name, _ in first.phases] == ["pretrain", "rollout", "actor", "critic", "world_model"]
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    said = {}
    for algorithm in (whole, second):
        algorithm.begin_epoch(0)
        assert [name for name, _ in algorithm.phases][1:] == ["rollout", "actor", "critic", "world_model"]
        said[algorithm] = algorithm.pretrain()
    assert said[whole] == said[second]
    assert second.model_learner.updates == 5
    assert not second.unfinished
    for name, value in whole.world_model.state_dict().items():
        assert torch.equal(value, second.world_model.state_dict()[name]), name
