"""`device_transform` where another framework moves batches: Lightning runs it, Keras cannot and says so."""

import warnings

import pytest
import torch
from registry_values import Numbers

from autotune.resolve.resolution import AutotuneWarning

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Shifted(Numbers):
    """Numbers that are far from 0 after the transfer."""

    def __init__(self, by, count=8):
        super().__init__(count)
        self.by = by

    def device_transform(self, batch):
        images, indices = batch
        return images + self.by, indices


@pytest.fixture
def lightning():
    return pytest.importorskip("lightning.pytorch")


@pytest.fixture
def trained(lightning, tmp_path):
    """Train for an epoch, and give what the steps of each stage saw."""
    from autotune.integrations.lightning import TunedDataModule

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)
            self.seen = {"train": [], "val": [], "predict": []}
            self.hooked = 0

        def on_after_batch_transfer(self, batch, dataloader_idx):
            self.hooked += 1
            return batch

        def training_step(self, batch, _):
            parts = batch if isinstance(batch[0], list | tuple) else [batch]
            self.seen["train"].append([round((images[0, 0] - indices[0]).item()) for images, indices in parts])
            return sum(self.layer(images).mean() for images, _ in parts)

        def validation_step(self, batch, _, dataloader_idx=0):
            self.seen["val"].append((dataloader_idx, round((batch[0][0, 0] - batch[1][0]).item())))

        def predict_step(self, batch, _):
            self.seen["predict"].append(round((batch[0][0, 0] - batch[1][0]).item()))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-9)

    def run(**datasets):
        model = Model()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AutotuneWarning)
            module = TunedDataModule(**datasets, batch_size=4, num_workers=0, home=tmp_path)
            trainer = lightning.Trainer(
                max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False,
            )  # fmt: skip
            trainer.fit(model, datamodule=module)
            if "predict" in datasets:
                trainer.predict(model, datamodule=module)
        return model

    return run


def test_every_stage_of_lightning_gets_what_its_dataset_makes_of_batches(trained):
    model = trained(train=Shifted(100), val=Shifted(200), predict=Shifted(300))
    assert model.seen["train"] == [[100]] * 2
    assert set(model.seen["val"]) == {(0, 200)}
    assert model.seen["predict"] == [300] * 2
    batches = sum(len(seen) for seen in model.seen.values())
    assert model.hooked == batches, "the hook of the model runs too"


def test_several_datasets_of_a_stage_have_their_own(trained):
    model = trained(train=[Shifted(100), Numbers(8), Shifted(50)], val=[Numbers(8), Shifted(200)])
    assert model.seen["train"] == [[100, 0, 50]] * 2
    assert set(model.seen["val"]) == {(0, 0), (1, 200)}


def test_a_module_without_any_leaves_the_hooks_to_lightning(lightning):
    from autotune.integrations.lightning import TunedDataModule

    hook = "on_after_batch_transfer"
    assert hook not in vars(TunedDataModule(train=Numbers(8), val=[Numbers(8)]))
    assert hook in vars(TunedDataModule(train=Numbers(8), val=[Numbers(8), Shifted(1)]))


def test_keras_says_that_it_is_left_out(tmp_path):
    keras = pytest.importorskip("autotune.integrations.keras", exc_type=ImportError)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AutotuneWarning)
        data = keras.TunedPyDataset(Shifted(100), batch_size=4, workers=0, home=str(tmp_path))
        keras.TunedPyDataset(Numbers(8), batch_size=4, workers=0, home=str(tmp_path))
    told = [str(one.message) for one in caught if "device_transform of Shifted is left out" in str(one.message)]
    assert len(told) == 1
    assert data[0][0][0, 0] == 0
