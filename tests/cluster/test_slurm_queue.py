"""Reading Slurm's answers, with stand-ins for its programs."""

import pytest

from flowmbpo.cluster import slurm_queue
from flowmbpo.cluster.states import QueueState
from flowmbpo.errors import WorkFailed

SQUEUE = """cat <<'TEXT'
12_0|RUNNING|None|node07
12_1|PENDING|Resources|
13_0|OUT_OF_MEMORY|OutOfMemory|node08
99_0|RUNNING|None|node09
TEXT"""
SACCT = """cat <<'TEXT'
11_0|CANCELLED by 1000|None|node01
11_1|TIMEOUT|TimeLimit|node02
TEXT"""


def test_states_of_our_arrays_only(programs):
    programs(squeue=SQUEUE, sacct="exit 1")
    assert slurm_queue.states(["12", "13"]) == {
        "12_0": QueueState("RUNNING", "", "node07"),
        "12_1": QueueState("PENDING", "Resources", ""),
        "13_0": QueueState("OUT_OF_MEMORY", "OutOfMemory", "node08"),
    }


def test_the_accounts_know_what_the_queue_has_forgotten(programs):
    folder = programs(squeue=SQUEUE, sacct=SACCT)
    states = slurm_queue.states(["11", "12"])
    assert (states["11_0"].state, states["11_1"].state, states["12_0"].state) == ("CANCELLED", "TIMEOUT", "RUNNING")
    assert "-j 11" in (folder / "calls").read_text()


def test_without_accounts_old_jobs_are_missing(programs):
    programs(squeue=SQUEUE, sacct='echo "Slurm accounting storage is disabled" >&2; exit 1')
    assert slurm_queue.states(["11"]) == {}


def test_nothing_is_asked_for_no_jobs(programs):
    folder = programs(squeue=SQUEUE)
    assert slurm_queue.states([]) == {}
    assert not (folder / "calls").exists()


def test_a_silent_controller_is_an_error(programs):
    programs(squeue='echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1')
    with pytest.raises(WorkFailed, match="Unable to contact"):
        slurm_queue.states(["12"])
    assert slurm_queue.state_of("12") == ""


def test_a_refused_requeue_says_why(programs):
    programs(scontrol='echo "Requested operation is presently disabled for job 5" >&2; exit 1')
    assert "presently disabled" in slurm_queue.requeue("5")
    programs(scontrol="exit 0")
    assert slurm_queue.requeue("5") == ""


def test_the_users_filters_do_not_hide_jobs(programs, monkeypatch):
    monkeypatch.setenv("SQUEUE_PARTITION", "debug")
    programs(squeue=f'test -n "$SQUEUE_PARTITION" || {SQUEUE}')
    assert set(slurm_queue.states(["13"])) == {"13_0"}
