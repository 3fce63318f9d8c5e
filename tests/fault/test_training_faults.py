"""Trainings that are killed, broken off and fed with broken data."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from training_parts import Plain, gaps, heights, losses, model, torch_loader, trainer

from autotune.errors import CheckpointError, NonFiniteLossError, SampleError
from autotune.training import Callback
from autotune.training.callbacks import CheckpointingCallback
from autotune.training.checkpoints import read_checkpoint

pytestmark = [pytest.mark.fault, pytest.mark.usefixtures("one_thread")]

ROOT = Path(__file__).resolve().parent.parent.parent
KILLS = 6

WRITER = """
    import sys, torch
    from autotune.training.checkpoints import write_checkpoint
    numbers = torch.arange(2_000_000)
    for count in range(1_000_000):
        write_checkpoint(sys.argv[1], {"count": count, "numbers": numbers + count})
        print(count, flush=True)
"""


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def python(code, *arguments, **settings):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests' / 'support'}", "OMP_NUM_THREADS": "1"},
        **settings,
    )


def test_a_kill_while_a_checkpoint_is_written_leaves_the_former_one_whole(tmp_path):
    path = tmp_path / "model_last.pt"
    halves = 0
    for number in range(KILLS):
        writer = python(WRITER, path, stdout=subprocess.PIPE, text=True)
        try:
            told = int(writer.stdout.readline())
            # until the next one is being written, and then a little, so that kills come at different places
            deadline = time.monotonic() + 20
            while not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*.partial")):
                assert time.monotonic() < deadline
            time.sleep(0.003 * number)
        finally:
            writer.send_signal(signal.SIGKILL)
            told = max([told, *map(int, writer.stdout.read().split())])
            writer.wait()
            writer.stdout.close()
        halves += bool(list(tmp_path.glob(".*.partial")))
        state = read_checkpoint(path)
        assert state["count"] in (told, told + 1), "the one that was told, or the next, which was just published"
        assert torch.equal(state["numbers"], torch.arange(2_000_000) + state["count"])
    assert halves, "at least one kill came while a file was half written"
    trainer(network=Plain(), epochs=1).save_checkpoint(path)
    assert names_in(tmp_path) == ["model_last.pt"], "what the killed left is removed"


TRAINING = """
    import sys
    from training_parts import torch_loader, trainer
    from autotune.training import Callback
    from autotune.training.callbacks import CheckpointingCallback

    class Tells(Callback):
        order = 99
        def on_epoch_end(self, epoch, logs=None):
            print(epoch, flush=True)
            if epoch == 1 and len(sys.argv) > 2:
                sys.stdin.readline()  # until the kill

    made = trainer(callbacks=[CheckpointingCallback(sys.argv[1]), Tells()], epochs=4)
    made.train()
"""


def test_a_killed_training_goes_on_with_the_losses_of_one_that_was_not(tmp_path):
    running = python(TRAINING, tmp_path, "wait", stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert [running.stdout.readline().strip() for _ in range(2)] == ["0", "1"]
    running.send_signal(signal.SIGKILL)
    running.communicate()
    resumed = trainer(network=model(seed=9), epochs=4)
    resumed.load_checkpoint(tmp_path / "model_last.pt")
    assert resumed.epoch == 2
    expected = losses(trainer(epochs=4).train())
    assert losses(resumed.train()) == expected


def test_a_loss_that_is_not_finite_keeps_a_last_checkpoint_from_which_training_goes_on(tmp_path):
    tall = heights(9) / 30
    broken = tall.clone()
    broken[7] = torch.nan
    made = trainer(
        DataLoader(TensorDataset(broken, gaps(tall)), batch_size=3), callbacks=[CheckpointingCallback(tmp_path)]
    )
    with pytest.raises(NonFiniteLossError, match="batch 2 of epoch 0") as caught:
        made.train()
    assert str(tmp_path / "model_before_error.pt") in caught.value.__notes__[0]
    mended = trainer(DataLoader(TensorDataset(tall, gaps(tall)), batch_size=3), network=model(seed=9))
    mended.load_checkpoint(tmp_path / "model_before_error.pt")
    history = mended.train()
    whole = trainer(DataLoader(TensorDataset(tall, gaps(tall)), batch_size=3)).train()
    assert losses(history) == losses(whole), "the batches before the broken one count, and it is read again"


def test_an_interrupted_training_goes_on_in_the_same_trainer(tmp_path):
    class Interrupts(Callback):
        left = 1

        def on_batch_end(self, batch, logs=None):
            if (logs["epoch"], batch) == (1, 1) and self.left:
                self.left -= 1
                raise KeyboardInterrupt

    made = trainer(callbacks=[Interrupts(), CheckpointingCallback(tmp_path)])
    with pytest.raises(KeyboardInterrupt) as caught:
        made.train()
    assert "model_before_error.pt" in caught.value.__notes__[0]
    expected = losses(trainer().train())
    resumed = trainer(network=model(seed=9))
    resumed.load_checkpoint(tmp_path / "model_before_error.pt")
    assert losses(resumed.train()) == expected
    assert losses(made.train()) == expected


def test_a_disk_that_is_full_leaves_the_former_checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    made = trainer(network=Plain(), epochs=1)
    made.save_checkpoint(path)
    made.train()
    code = """
        import resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        from training_parts import Plain, trainer
        from autotune.errors import CheckpointError
        made = trainer(network=Plain(), epochs=1)
        made.train()
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            made.save_checkpoint(sys.argv[1])
        except CheckpointError as error:
            print("told:", error)
    """
    run = python(code, path, stdout=subprocess.PIPE, text=True)
    told, _ = run.communicate(timeout=120)
    assert "cannot be written" in told
    assert read_checkpoint(path)["epoch"] == 0
    assert names_in(tmp_path) == ["model.pt"]


class Broken(TensorDataset):
    """One of its samples cannot be read."""

    def __getitem__(self, index):
        if index == 4:
            raise SampleError("cannot be read", "/data/tile_4.tif")
        return super().__getitem__(index)


@pytest.mark.fault(12)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_named_by_its_path(workers):
    tall = heights(9)
    loader = DataLoader(Broken(tall, gaps(tall)), batch_size=3, num_workers=workers)
    with pytest.raises(SampleError, match=r"tile_4\.tif"):
        trainer(loader).train()


def test_a_truncated_checkpoint_changes_nothing(tmp_path):
    path = trainer(epochs=1).save_checkpoint(tmp_path / "model.pt")
    path.write_bytes(path.read_bytes()[:1000])
    made = trainer(torch_loader())
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        made.load_checkpoint(path)
    assert losses(made.train()) == losses(trainer().train())
