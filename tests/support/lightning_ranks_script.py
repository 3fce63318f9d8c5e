"""Training on two ranks that Lightning starts; each writes what it saw."""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from registry_values import Numbers

from autotune.integrations.lightning import TunedDataModule, TuningCallback


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)
        self.seen = []
        self.epochs = []

    def training_step(self, batch, _):
        self.seen += batch[1].tolist()
        return self.layer(batch[0]).mean()

    def on_train_epoch_end(self):
        self.epochs.append(self.seen)
        self.seen = []

    def predict_step(self, batch, _):
        return batch[1]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-4)


def main():
    home, folder, injected = sys.argv[1:]
    model = Model()
    module = TunedDataModule(train=Numbers(40), predict=Numbers(40), home=home, batch_size=5)
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=2,
        use_distributed_sampler=injected == "injected",
        callbacks=[TuningCallback()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=module)
    loader = trainer.train_dataloader
    told = {
        "epochs": model.epochs,
        "num_workers": loader.num_workers,
        "resolved_workers": module.resolution().config.num_workers,
        "sampler": type(loader.sampler).__name__,
        "predicted": torch.cat(trainer.predict(model, datamodule=module)).tolist(),
    }
    (Path(folder) / f"rank-{trainer.global_rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
