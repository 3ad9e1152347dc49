"""The three layers of a job's request: registry, the user's file, the command."""

from pathlib import Path

import pytest

from flowmbpo.cluster.request import cluster_file, job_request, read_cluster_file
from flowmbpo.errors import UserError
from flowmbpo.spec.schema import ResourcesSpec

L40S = ResourcesSpec(gpu="L40S", gpus=1, cpus=4, memory_gb=128.0, time_limit="12:00:00", options={"exclude": "n1"})


def test_later_layers_win_and_none_is_not_a_value():
    request = job_request(L40S, {"account": "lab", "cpus": 8}, {"cpus": 16, "memory_gb": None}, "cluster.toml")
    assert (request.account, request.cpus, request.memory_gb, request.gpu) == ("lab", 16, 128.0, "L40S")


def test_sbatch_options_are_merged_key_by_key():
    request = job_request(L40S, {"options": {"qos": "long"}}, {"options": {"exclusive": True}}, "cluster.toml")
    assert request.options == {"exclude": "n1", "qos": "long", "exclusive": True}


def test_every_problem_is_named_with_its_place():
    mine = {"acount": "lab", "cpus": "four", "time_limit": "12h", "setup": ["module load cuda"]}
    with pytest.raises(UserError) as caught:
        job_request(L40S, mine, {}, "my.toml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all(line.startswith("my.toml [cluster]") for line in lines)
    assert "'acount' is unknown" in str(caught.value)
    assert "account" in str(caught.value)
    assert "12h" in str(caught.value)
    assert "H:MM:SS" in str(caught.value)


@pytest.mark.parametrize(("option", "why"), [("array", "--seeds"), ("no-requeue", "requeued"), ("--wrap", "decides")])
def test_options_that_a_job_of_ours_rests_on_are_refused(option: str, why: str):
    with pytest.raises(UserError, match=rf"{option} cannot be set.*{why}"):
        job_request(L40S, {}, {"options": {option: "5-6"}}, "cluster.toml")


@pytest.mark.parametrize("named", [True, False])
def test_a_link_that_leads_nowhere_is_told_and_no_other_file_used(directory: Path, named: bool):
    other = directory / "config" / "flowmbpo" / "cluster.toml"
    other.parent.mkdir(parents=True)
    other.write_text("[cluster]\n")
    link = directory / "cluster.toml"
    link.symlink_to("gone.toml")
    with pytest.raises(UserError, match=r"a link to gone\.toml"):
        read_cluster_file(cluster_file(link if named else None))


def test_the_users_file_is_found_in_order(directory: Path, monkeypatch: pytest.MonkeyPatch):
    assert cluster_file() is None
    home = directory / "config" / "flowmbpo" / "cluster.toml"
    home.parent.mkdir(parents=True)
    home.write_text('[cluster]\naccount = "home"\n')
    assert read_cluster_file(cluster_file()) == {"account": "home"}
    Path("cluster.toml").write_text('[cluster]\naccount = "here"\n')
    assert read_cluster_file(cluster_file()) == {"account": "here"}
    named = directory / "other.toml"
    named.write_text("")
    monkeypatch.setenv("FLOWMBPO_CLUSTER", str(named))
    assert read_cluster_file(cluster_file()) == {}
    with pytest.raises(UserError, match=r"missing\.toml does not exist"):
        cluster_file(Path("missing.toml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[cluster\n", "no TOML"),
        (b"\xff\xfe", "no TOML"),
        (b"account = 'x'\n", r"\[cluster\]"),
        (b"cluster = 1\n", "table"),
    ],
)
def test_a_broken_file_is_the_users_mistake(tmp_path: Path, content: bytes, message: str):
    file = tmp_path / "cluster.toml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_cluster_file(file)
