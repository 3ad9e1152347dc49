"""`flowmbpo reproduce`: the same code on the same machine gives the same bits, and what differs is shown."""

import json
import signal

from flowmbpo.runs.layout import RunFiles


def edit_manifests(work, change):
    for file in work.run_folder.glob("checkpoints/*/manifest.json"):
        document = json.loads(file.read_text())
        change(document)
        file.write_text(json.dumps(document))


def test_a_run_is_trained_again_to_the_bit(work):
    work.run("run", "small", "--device", "cpu", "--seed", 3, "--epochs", 4)
    before = sorted(work.folder.iterdir())
    document = json.loads(work.run("reproduce", work.run_id, "--json"))
    assert (document["name"], document["seed"], document["epochs"]) == ("small", 3, 4)
    assert document["threads"] >= 1
    assert not document["changes"]
    text = work.run("reproduce", "small/seed-3", "--check")
    assert "equal to the bit" in text
    assert " 1 checkpoint(s)" in text
    assert sorted(work.folder.iterdir()) == before
    (_,) = (work.folder / "runs").iterdir()  # no further seed

    journal = RunFiles(work.run_folder).journal  # one value in its last digit
    lines = journal.read_text().splitlines()
    place = next(index for index, line in enumerate(lines) if "train/dynamics_loss" in line)
    entry = json.loads(lines[place])
    entry["metrics"]["train/dynamics_loss"] *= 1 + 1e-15
    lines[place] = json.dumps(entry)
    journal.write_text("\n".join(lines) + "\n")
    text = work.run("reproduce", work.run_id, "--check", code=1)
    assert "train/dynamics_loss" in text
    assert "different: 1 of" in text

    edit_manifests(work, lambda document: document["code"].update(torch="1.0"))
    assert "torch: 1.0 ->" in work.run("reproduce", work.run_id, "--check", code=2)


def test_an_interrupted_repetition_is_no_failure(work):
    work.run("run", "small", "--device", "cpu", "--epochs", 4000, "--time-limit", "5s")
    command = work.start("reproduce", work.run_id, "--check")
    work.until(lambda: "started" in command.text, command)
    command.send(signal.SIGINT)
    assert command.wait() == 130, command.text
    assert "nothing of the repetition is kept" in command.text
    assert "continued" not in command.text


def test_what_cannot_be_reproduced(work):
    assert "holds no run" in work.run("reproduce", "nothing", code=2)
