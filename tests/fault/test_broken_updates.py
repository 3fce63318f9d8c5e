"""A break within an update, or right behind it: what goes on from there makes no update twice."""

import os
import signal

import pytest
import torch
from training_parts import losses, model, trainer

from autotune.errors import CheckpointError
from autotune.training.callbacks import CheckpointingCallback

pytestmark = [pytest.mark.fault, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def handled():
    """Let signals raise what they raise in a program: Ctrl-C, and torch's message of a worker's death."""

    def died(number, frame):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGCHLD: died}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield handlers
    assert {number: signal.getsignal(number) for number in handlers} == handlers, "they are put back after each batch"
    for number, handler in before.items():
        signal.signal(number, handler)


def at_update(made, at, act):
    """Act once, right behind the step of the optimizer that makes an update, counted from 0."""
    made_so_far = []

    def behind(*_):
        made_so_far.append(True)
        if len(made_so_far) == at + 1:
            act()

    made._prepared().updates.optimizer.register_step_post_hook(behind)


def weights(of):
    return {name: value.clone() for name, value in of.model.state_dict().items()}


def check_same(found, expected):
    assert losses(found.history) == losses(expected.history)
    wanted = weights(expected)
    assert all(torch.equal(value, wanted[name]) for name, value in weights(found).items())


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGCHLD, RuntimeError)])
@pytest.mark.parametrize(
    ("steps", "at"), [(1, 1), (1, 3), (3, 1)], ids=["second batch", "last batch", "last, smaller group"]
)
def test_an_interruption_behind_an_update_counts_its_batches(number, kind, steps, at, handled, tmp_path):
    settings = {"accumulation_steps": steps, "epochs": 2}
    whole = trainer(**settings)
    whole.train()
    made = trainer(callbacks=[CheckpointingCallback(tmp_path)], **settings)
    at_update(made, at, lambda: os.kill(os.getpid(), number))
    with pytest.raises(kind):
        made.train()
    resumed = trainer(network=model(seed=9), **settings)
    resumed.load_checkpoint(tmp_path / "model_before_error.pt")
    resumed.train()
    check_same(resumed, whole)
    made.train()
    check_same(made, whole)


def test_an_interruption_at_the_end_of_an_epoch_steps_its_schedule_once(handled, tmp_path, monkeypatch):
    settings = {"scheduler_type": "step", "step_epochs": 1, "step_factor": 0.5}
    whole = trainer(**settings)
    whole.train()
    made = trainer(callbacks=[CheckpointingCallback(tmp_path)], **settings)
    schedule = made._prepared().updates.scheduler
    step = schedule.step

    def interrupted(figure=None):
        monkeypatch.undo()
        step(figure)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(schedule, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made.train()
    assert made.epoch == 1
    resumed = trainer(network=model(seed=9), **settings)
    resumed.load_checkpoint(tmp_path / "model_before_error.pt")
    resumed.train()
    check_same(resumed, whole)
    made.train()
    check_same(made, whole)


def test_an_error_within_an_update_is_gone_on_from_a_checkpoint_before_it_alone(tmp_path, caplog):
    whole = trainer()
    whole.train()
    made = trainer(callbacks=[CheckpointingCallback(tmp_path)])

    def fails():
        raise MemoryError("mine")

    at_update(made, 5, fails)
    with pytest.raises(MemoryError) as caught:
        made.train()
    assert caught.value.__notes__ == [f"The last whole epoch is kept in {tmp_path / 'model_last.pt'}"]
    assert "the state before the error is not kept: an error came in the middle of an update" in caplog.text
    assert not (tmp_path / "model_before_error.pt").exists()
    with pytest.raises(CheckpointError, match="load a checkpoint from before"):
        made.train()
    made.load_checkpoint(tmp_path / "model_last.pt")
    assert made.epoch == 1
    made.train()
    check_same(made, whole)


def test_a_checkpoint_before_an_error_is_kept_where_a_later_error_leaves_none(tmp_path):
    made = trainer(callbacks=[CheckpointingCallback(tmp_path)])
    path = made.save_checkpoint(tmp_path / "model_before_error.pt")
    before = path.read_bytes()

    def fails():
        raise MemoryError("mine")

    at_update(made, 0, fails)
    with pytest.raises(MemoryError) as caught:
        made.train()
    assert path.read_bytes() == before
    assert not hasattr(caught.value, "__notes__"), "no epoch of this training is over"
