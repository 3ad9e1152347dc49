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


def wait_in_pretraining():
    """For the signal, before the last of the updates: they take a moment only, and would be over when it comes."""
    import time

    from flowmbpo.training import trainer

    trainer.PATIENCE_SECONDS = trainer.PHASE_SECONDS = 0.0
    may_go_on = trainer.Trainer._may_go_on

    def wait(self, done, total):
        while self._phase == "pretrain" and done == total // 2 and not self.stop:
            time.sleep(0.01)
        return may_go_on(self, done, total)

    trainer.Trainer._may_go_on = wait
