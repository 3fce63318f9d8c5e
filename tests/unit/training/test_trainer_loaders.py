"""A trainer resolves datasets, says where the loader's configuration comes from, and tells MLflow."""

import json
import time

import pytest
import torch
from registry_values import decision_here, facts, machine, record
from torch.utils.data import BatchSampler, WeightedRandomSampler
from training_parts import Jittered, config, losses, model, own_loader, pairs, torch_loader, trainer

import autotune
from autotune.data.facts import dataset_facts
from autotune.errors import SpecError
from autotune.machine import machine_facts
from autotune.registry import open_registry
from autotune.resolve.online import online_loader
from autotune.resolve.provenance import note_resolution, resolution_of, trial_of
from autotune.spec import LoaderConfig
from autotune.training import Callback, Trainer
from autotune.training.callbacks import CheckpointingCallback, LoggingCallback, MlflowCallback, VisualizationCallback
from autotune.training.loading import loader_params

TUNED = LoaderConfig(batch_size=4, num_workers=1, prefetch_factor=2).canonical(has_accelerator=False)
ALONE = LoaderConfig(batch_size=4).canonical(has_accelerator=False)


@pytest.fixture
def home(tmp_path):
    """Give the folder of a registry in which the datasets of these tests were tuned."""
    folder = tmp_path / "home"
    with open_registry(folder) as registry:
        here = {"machine": machine_facts(), "dataset": dataset_facts(Jittered()), "study": "heights", "kind": "step"}
        registry.save_record(record("a" * 32, minute=1, config=TUNED, **here))
        registry.save_record(record("b" * 32, minute=2, config=TUNED, **here))
        registry.save_record(record("c" * 32, minute=3, config=ALONE, **here))
        elsewhere = [{"machine": machine(cpu_count=999)}, {"dataset": facts()}, {"kind": "loader"}]
        for number, other in enumerate(elsewhere):
            registry.save_record(record(f"{number}" * 32, minute=4 + number, config=TUNED, **{**here, **other}))
        registry.save_decision(decision_here(Jittered(), TUNED, study="heights", key="d" * 32, kind="step"))
    return folder


def resolved(home, **settings):
    return Trainer(
        model(), config(epochs=1), Jittered(), Jittered(), callbacks=(), loader_settings={"home": home}, **settings
    )


def test_a_dataset_is_trained_with_the_tuned_loader_which_names_study_decision_and_trial(home):
    made = resolved(home)
    assert made.batch_size == TUNED.batch_size
    assert made.train_loader.num_workers == 1
    tags = made.loader_tags
    assert tags["autotune.study"] == "heights"
    assert tags["autotune.decision_key"] == "d" * 32
    assert tags["autotune.trial_key"] == "b" * 32, "the trial that last measured this configuration"
    assert tags["autotune.match"] == "exact"
    assert tags["autotune.loader"] == TUNED.label()
    assert made.loader_params["batch_size"] == "4"
    assert len(made.train()["train_loss"]) == 1


def test_a_loader_of_best_loader_says_the_same(home):
    loader = autotune.best_loader(Jittered(), home=home, shuffle=True)
    assert Trainer(model(), config(), loader, callbacks=(), loader_settings={"home": home}).loader_tags[
        "autotune.trial_key"
    ] == ("b" * 32)


@pytest.mark.parametrize(("workers", "trial"), [(1, "b" * 32), (0, "c" * 32), (2, None)])
def test_a_loader_that_found_another_setting_names_the_trial_that_measured_that_one(workers, trial, home):
    loader = online_loader(Jittered(), home=home)
    loader.load_state_dict({"setting": {"num_workers": workers}})
    tags = Trainer(model(), config(), loader, callbacks=(), loader_settings={"home": home}).loader_tags
    assert f"workers {workers}" in tags["autotune.loader"]
    assert tags.get("autotune.trial_key") == trial


def test_validation_has_the_batch_size_of_training_and_its_own_order(home):
    made = resolved(home)
    assert made.val_loader.batch_size == 4
    assert type(made.train_loader.sampler).__name__ == "EpochSampler"
    assert type(made.val_loader.sampler).__name__ == "InOrderSampler"


def test_the_order_of_a_dataset_follows_the_seed_of_the_configuration(home):
    def order(seed):
        made = Trainer(
            model(), config(seed=seed), pairs(), callbacks=(), loader_settings={"home": home, "num_workers": 0}
        )
        return torch.cat([images for images, _ in made.train_loader])

    assert torch.equal(order(1), order(1))
    assert not torch.equal(order(1), order(2))


def of_settings(home, batch_size=None, **settings):
    loading = {"home": home, "num_workers": 0, **settings}
    return Trainer(model(), config(batch_size=batch_size), pairs(), pairs(4), callbacks=(), loader_settings=loading)


def test_two_batch_sizes_that_differ_are_refused(home):
    loading = {"home": home, "batch_size": 5}
    for said in (None, 5):
        assert Trainer(model(), config(batch_size=said), pairs(), callbacks=(), loader_settings=loading).batch_size == 5
    with pytest.raises(SpecError, match=r"batch_size=2 in the configuration and 5 in loader_settings"):
        Trainer(model(), config(batch_size=2), pairs(), callbacks=(), loader_settings=loading)


def test_a_sampler_among_the_settings_orders_training_alone(home):
    sampler = WeightedRandomSampler([1.0] * 10, 10)
    made = of_settings(home, batch_size=2, sampler=sampler)
    assert made.train_loader.sampler is sampler
    assert made.val_loader.sampler is not sampler
    batches = BatchSampler(range(10), 5, drop_last=False)
    made = of_settings(home, batch_sampler=batches)
    assert made.train_loader.batch_sampler is batches
    assert (made.batch_size, made.val_loader.batch_size, len(made.val_loader)) == (5, 5, 1)


def test_a_loader_that_was_made_by_hand_is_described_and_has_no_study():
    made = trainer(torch_loader(num_workers=1))
    assert made.loader_tags["autotune.match"] == "given"
    assert "num_workers 1" in made.loader_tags["autotune.loader"]
    assert "autotune.study" not in made.loader_tags
    assert made.loader_params["persistent_workers"] == "False"
    assert loader_params([1, 2]) == {}


def test_resolutions_are_noted_on_loaders_that_take_attributes(home):
    loader = autotune.best_loader(Jittered(), home=home)
    assert resolution_of(loader).study == "heights"
    assert resolution_of([]) is None
    note_resolution([], resolution_of(loader))  # lists take no attributes


def test_a_registry_that_is_gone_leaves_the_trial_unknown(home, tmp_path):
    resolution = resolution_of(autotune.best_loader(Jittered(), home=home))
    assert trial_of(resolution, home=home) == "b" * 32
    assert trial_of(resolution, home=tmp_path / "elsewhere") is None
    assert trial_of(resolution.replace(decision_key=None), home=home) is None


def test_epochs_of_augmentation_are_those_of_the_training_whatever_ran_before():
    dataset = Jittered()
    used = own_loader(dataset)
    for _ in range(3):
        list(used)
    assert losses(trainer(used, network=model()).train()) != {}
    seen = []

    class Watching(Callback):
        def on_batch_end(self, batch, logs=None):
            seen.append(dataset._epoch.number)

    trainer(own_loader(dataset), callbacks=[Watching()]).train()
    assert sorted(set(seen)) == [0, 1, 2]


def test_a_loader_that_tunes_itself_trains_and_resumes_as_a_plain_one(tmp_path, home):
    def online():
        generator = torch.Generator().manual_seed(5)
        return online_loader(
            Jittered(40), batch_size=2, shuffle=True, generator=generator, home=home, segment_batches=1,
            settings=[{"num_workers": 1}],
        )  # fmt: skip

    plain = trainer(own_loader(Jittered(40), batch_size=2, seed=5))
    made = trainer(online(), callbacks=[CheckpointingCallback(tmp_path)])
    assert losses(made.train()) == losses(plain.train())
    assert made.loader_tags["autotune.match"] != "given"
    resumed = trainer(online(), network=model(seed=9))
    resumed.load_checkpoint(tmp_path / "model_epoch_0000.pt")
    assert losses(resumed.train()) == losses(made.history)


class Slow(Jittered):
    """Takes long enough that workers are worth it, and little enough for a test."""

    def decode(self, raw):
        time.sleep(0.002)
        return super().decode(raw)


class Told(Callback):
    """Notes tags and settings of the loader as callbacks are told them."""

    def on_train_begin(self, logs=None):
        self.first = self.trainer.loader_tags, self.trainer.loader_params


def test_what_a_loader_has_found_out_by_itself_is_told_once_it_has(home, tmp_path):
    loader = online_loader(
        Slow(60), batch_size=2, home=home, segment_batches=2, settings=[{"num_workers": 2}], segments=1
    )
    mlflow, told = MlflowCallback(home=home, environ={}), Told()
    made = trainer(loader, callbacks=[told, mlflow, LoggingCallback(tmp_path)], epochs=4)
    made.train()
    assert loader.report.outcome != "trying"
    tags, params = told.first
    assert tags["autotune.online"].startswith("still trying")
    assert "num_workers" not in params
    found = made.loader_tags
    assert f"workers {loader.num_workers}" in found["autotune.loader"]
    assert found["autotune.online"] == loader.report.decision()
    lines = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert [line["loader"] for line in lines if line["event"] == "loader"] == [found]
    run = client_of(home).get_run(mlflow.run_id)
    assert run.data.tags["autotune.online"] == found["autotune.online"][:500]
    assert run.data.tags["autotune.loader"] == found["autotune.loader"]
    assert run.data.params["loader.num_workers"] == str(loader.num_workers)


# MLflow


@pytest.fixture
def client(home, make_mlflow_database):
    make_mlflow_database(home / "mlflow.db")
    return client_of(home)


def client_of(home):
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")


def test_a_training_tells_mlflow_its_figures_files_and_the_loaders_study_and_trial(home, client, tmp_path):
    mlflow = MlflowCallback(home=home, environ={}, tags={"team": "forest"})
    made = Trainer(
        model(), config(epochs=2), Jittered(), Jittered(), Jittered(),
        [VisualizationCallback(tmp_path / "pictures"), mlflow], loader_settings={"home": home},
    )  # fmt: skip
    made.train()
    made.test()
    run = client.get_run(mlflow.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["autotune.study"] == "heights"
    assert run.data.tags["autotune.trial_key"] == "b" * 32
    assert run.data.tags["team"] == "forest"
    assert run.data.params["learning_rate"] == "0.01"
    assert run.data.params["loader.batch_size"] == "4"
    for name in ("data_wait_share", "train_loss", "val_iou"):
        told = [entry.value for entry in client.get_metric_history(mlflow.run_id, name)]
        assert told == pytest.approx(made.history[name])
    assert run.data.metrics["test_loss"] == pytest.approx(made.history["test_loss"][0])
    assert len(client.list_artifacts(mlflow.run_id, "pictures")) == 2


def test_a_training_that_failed_and_went_on_is_one_run(home, client, tmp_path):
    class Fails(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyError("mine")

    first = MlflowCallback(home=home, environ={})
    with pytest.raises(KeyError):
        trainer(callbacks=[Fails(), first, CheckpointingCallback(tmp_path)]).train()
    assert client.get_run(first.run_id).info.status == "FAILED"
    second = MlflowCallback(home=home, environ={})
    resumed = trainer(callbacks=[second])
    resumed.load_checkpoint(tmp_path / "model_last.pt")
    resumed.train()
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "FINISHED"
    steps = [entry.step for entry in client.get_metric_history(first.run_id, "train_loss")]
    assert steps == [0, 1, 2]


def test_training_is_the_same_where_mlflow_cannot_be_reached(home):
    callback = MlflowCallback(tracking_uri="http://127.0.0.1:9", home=home, environ={})
    assert losses(trainer(callbacks=[callback], epochs=1).train()) == losses(trainer(epochs=1).train())
    assert callback.run_id is None
