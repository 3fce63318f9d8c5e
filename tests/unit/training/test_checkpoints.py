"""Checkpoints are whole or not there, and say what they belong to."""

import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from training_parts import Plain, model, torch_loader, trainer

from autotune.errors import CheckpointError
from autotune.training import Callback, Config, Trainer
from autotune.training.checkpoints import (
    VERSION,
    check_signature,
    link_checkpoint,
    read_checkpoint,
    signature_of,
    write_checkpoint,
)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def written(tmp_path):
    return write_checkpoint(tmp_path / "folder" / "one.pt", {"numbers": torch.arange(1000), "text": "whole"})


def test_what_was_written_is_read(written):
    state = read_checkpoint(written)
    assert torch.equal(state["numbers"], torch.arange(1000))
    assert state["text"] == "whole"
    assert state["version"] == VERSION


def test_a_file_is_replaced_and_nothing_else_stays_in_the_folder(written):
    write_checkpoint(written, {"text": "newer"})
    assert read_checkpoint(written)["text"] == "newer"
    assert names_in(written.parent) == ["one.pt"]


def test_what_killed_writers_left_is_removed_and_what_others_write_is_not(written):
    gone = written.with_name(f".one.pt.{2**22 + 1}.partial")  # more than any process number
    alive = written.with_name(f".one.pt.{os.getppid()}.partial")
    for file in (gone, alive):
        file.write_bytes(b"half")
    write_checkpoint(written, {})
    assert not gone.exists()
    assert alive.exists()


def test_a_second_name_keeps_its_content_when_the_first_is_written_again(written):
    best = link_checkpoint(written, "best.pt")
    write_checkpoint(written, {"text": "newer"})
    assert read_checkpoint(best)["text"] == "whole"
    link_checkpoint(written, "best.pt")
    assert read_checkpoint(best)["text"] == "newer"
    assert names_in(written.parent) == ["best.pt", "one.pt"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(written, share):
    content = written.read_bytes()
    written.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_checkpoint(written)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_changed_bytes_are_noticed(written, share):
    content = bytearray(written.read_bytes())
    place = int(len(content) * share)
    content[place : place + 8] = bytes(255 - value for value in content[place : place + 8])
    written.write_bytes(content)
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        read_checkpoint(written)


def test_another_version_is_refused(tmp_path):
    path = tmp_path / "later.pt"
    torch.save({"format": "autotune.training", "version": VERSION + 1}, path)
    with pytest.raises(CheckpointError, match=f"version {VERSION} can be read, got version {VERSION + 1}"):
        read_checkpoint(path)


def test_a_plain_state_dict_is_refused_with_the_way_to_load_it(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(CheckpointError, match="load_state_dict"):
        read_checkpoint(path)


class Harmful:
    """Runs something when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": "autotune.training", "version": VERSION, "model": Harmful()}, "harmful.pt")
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        read_checkpoint("harmful.pt")
    (tmp_path / "pickled.pt").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(CheckpointError):
        read_checkpoint("pickled.pt")
    assert not (tmp_path / "harm").exists()


def test_a_pickle_before_an_archive_is_not_run(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written.write_bytes(pickle.dumps(Harmful()) + written.read_bytes())
    with pytest.raises(CheckpointError, match="truncated or damaged: it begins with"):
        read_checkpoint(written)
    assert not (tmp_path / "harm").exists()


def test_a_missing_file_is_told_with_the_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pt"):
        read_checkpoint(tmp_path / "nowhere.pt")


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_checkpoint(tmp_path / "file" / "one.pt", {})


def test_a_second_name_that_cannot_be_given_is_told(written):
    written.with_name("best.pt").mkdir()
    with pytest.raises(CheckpointError, match=r"best\.pt cannot be written"):
        link_checkpoint(written, "best.pt")
    assert names_in(written.parent) == ["best.pt", "one.pt"]


def test_a_second_name_is_a_copy_where_files_cannot_have_two(written, monkeypatch):
    def refused(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refused)
    copied = link_checkpoint(written, "best.pt")
    assert copied.read_bytes() == written.read_bytes()
    assert not copied.samefile(written)


def test_a_signature_has_names_types_and_shapes():
    assert signature_of(nn.Linear(3, 2)) == {"weight": "float32[2,3]", "bias": "float32[2]"}
    check_signature(signature_of(nn.Linear(3, 2)), nn.Linear(3, 2), "one.pt")


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (nn.Linear(4, 2), r"weight is float32\[2,3\] there and float32\[2,4\] here"),
        (nn.Linear(3, 2).double(), "float64"),
        (nn.Linear(3, 2, bias=False), "bias is only in the checkpoint"),
        (nn.Sequential(nn.Linear(3, 2)), "and 1 more"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_with_the_differences(other, told):
    with pytest.raises(CheckpointError, match=told):
        check_signature(signature_of(nn.Linear(3, 2)), other, "one.pt")


def test_a_trainer_refuses_the_checkpoint_of_another_model_and_stays_as_it_is(tmp_path):
    path = trainer().save_checkpoint(tmp_path / "unet.pt")
    other = trainer(network=Plain())
    before = {name: value.clone() for name, value in other.model.state_dict().items()}
    with pytest.raises(CheckpointError, match="is of another model"):
        other.load_checkpoint(path)
    assert all(torch.equal(value, before[name]) for name, value in other.model.state_dict().items())


def test_a_checkpoint_is_loaded_to_predict_without_any_loader(tmp_path):
    trained = trainer(epochs=1)
    trained.train()
    images = torch.rand(2, 1, 8, 8)
    path = trained.save_checkpoint(tmp_path / "trained.pt")
    alone = Trainer(model(seed=7), Config(thresholds=(5, 10)), callbacks=[])
    alone.load_checkpoint(path)  # batches of 3 made group of batch normalisation, and so does loading
    assert torch.equal(alone.predict(images, 5.0), trained.predict(images, 5.0))
    assert alone.history == trained.history


def test_a_checkpoint_before_training_is_the_beginning(tmp_path):
    path = trainer().save_checkpoint(tmp_path / "new.pt")
    resumed, plain = trainer(network=model(seed=5)), trainer()
    resumed.load_checkpoint(path)
    assert resumed.train()["train_loss"] == plain.train()["train_loss"]


def test_a_checkpoint_of_half_precision_is_read_without_it(tmp_path):
    half = trainer(torch_loader(), mixed_precision=True, epochs=1)
    half.train()
    path = half.save_checkpoint(tmp_path / "half.pt")
    full = trainer(torch_loader(), epochs=2)
    full.load_checkpoint(path)
    assert len(full.train()["train_loss"]) == 2


class Remembers(Callback):
    """Goes on with a figure of its own."""

    def __init__(self, **state):
        self.state = state

    def state_dict(self):
        return self.state


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"best": np.float64(0.5)}, r"got numpy.float64 in Remembers.state_dict\(\)\['best'\]"),
        ({"all": [(1, np.arange(2))]}, r"got numpy.ndarray in Remembers.state_dict\(\)\['all'\]\[0\]\[1\]"),
        ({"by": {np.int64(3): 1}}, r"got numpy.int64 in Remembers.state_dict\(\)\['by'\], as a key"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(state, told, tmp_path):
    path = trainer().save_checkpoint(tmp_path / "one.pt")
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=told):
        trainer(callbacks=[Remembers(**state)]).save_checkpoint(path)
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["one.pt"]


def test_plain_values_of_a_callback_are_written_and_read(tmp_path):
    state = {
        "best": 0.5,
        "all": [(1, None), {"a"}],
        "by": {3: torch.arange(2)},
        "name": "one",
        "shape": torch.Size([2]),
    }
    path = trainer(callbacks=[Remembers(**state)]).save_checkpoint(tmp_path / "one.pt")
    (read,) = read_checkpoint(path)["callbacks"]
    assert str(read["state"]) == str(state)


def test_a_model_with_more_than_tensors_in_its_state_is_refused_too(tmp_path):
    class Odd(Plain):
        def get_extra_state(self):
            return {"heights": np.arange(2)}

        def set_extra_state(self, state):
            pass

    with pytest.raises(CheckpointError, match=r"got numpy.ndarray in model\['_extra_state'\]\['heights'\]"):
        trainer(network=Odd()).save_checkpoint(tmp_path / "one.pt")
