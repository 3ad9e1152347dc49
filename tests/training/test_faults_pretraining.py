"""Pre-training that a signal interrupts: the run goes on with the rest of it and ends as if left in peace."""

import shutil
import signal


def test_a_signal_in_pretraining_saves_and_the_run_goes_on_exactly(new_workplace):
    source = new_workplace("source")
    source.run("run", "small", "--epochs", 3)
    source.run("record", "small", "--episodes", 8, "--out", "data")
    whole, work = new_workplace("whole"), new_workplace("work")
    for place in (whole, work):
        shutil.copy(source.folder / "data", place.folder)
    pretrained = ("run", "small", "--epochs", 10, "--set", 'train.pretrain={data="data", updates=40}')

    command = work.start(*pretrained, before=wait_in_pretraining)
    work.until(lambda: "epoch 1, pretrain: " in command.text, command)
    command.send(signal.SIGINT)
    assert command.wait() == 128 + signal.SIGINT, command.text
    assert work.states() == [0]
    assert work.status(work.run_id) == "KILLED"
    work.run("run", "--resume", work.run_id)

    whole.run(*pretrained)
    assert work.status(work.run_id) == whole.status(whole.run_id) == "FINISHED"
    found = work.histories(work.run_id)
    assert found == whole.histories(whole.run_id)
    assert len(found["eval/mean_reward"]) == 2
    assert found["train/updates"][-1][1] == 40 + 10 * 2
    assert work.digests(work.run_id, 10) == whole.digests(whole.run_id, 10)


def test_a_signal_in_the_rest_of_the_first_epoch_needs_the_recorded_data_no_more(new_workplace):
    work = new_workplace("work")
    work.run("run", "small", "--epochs", 3)
    work.run("record", "small", "--episodes", 8, "--out", "data")
    pretrained = ("run", "small", "--epochs", 4, "--set", 'train.pretrain={data="data", updates=4}')
    command = work.start(*pretrained, before=wait_after_pretraining)
    work.until(lambda: "epoch 1, pretrain: 3 of 4 updates" in command.text, command)  # it is asked once more, later
    command.send(signal.SIGINT)
    assert command.wait() == 128 + signal.SIGINT, command.text
    run_id = command.text.split(": run ")[1].split()[0]
    (work.folder / "data").unlink()
    work.run("run", "--resume", run_id)
    assert work.status(run_id) == "FINISHED"
    assert work.histories(run_id)["train/updates"][-1][1] == 4 + 4 * 2


def wait_in_pretraining():
    """For the signal, before the last of the updates: they take a moment only, and would be over when it comes."""
    wait_in("pretrain")


def wait_after_pretraining():
    wait_in("world_model")


def wait_in(phase):
    import time

    from flowmbpo.training import trainer

    trainer.PATIENCE_SECONDS = trainer.PHASE_SECONDS = 0.0
    may_go_on = trainer.Trainer._may_go_on

    def wait(self, done, total):
        while self._phase == phase and done == total // 2 and not self.stop:
            time.sleep(0.01)
        return may_go_on(self, done, total)

    trainer.Trainer._may_go_on = wait
