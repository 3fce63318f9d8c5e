"""A user's own script: dataset class in it, no `__main__` guard, real rasters."""

import pytest

SCRIPT = '''
import glob, sys
import numpy as np, rasterio, torch
import autotune

print("started")

class Windows(torch.utils.data.Dataset):
    """Written as people write it: rasterio opened in `__getitem__`."""

    def __init__(self, folder, limit):
        self.paths = sorted(glob.glob(f"{folder}/**/*[cC][hH][mM]*.tif", recursive=True))
        self.places = []
        for path in self.paths:
            with rasterio.open(path) as file:
                rows, columns = range(0, file.height - 32, 16), range(0, file.width - 32, 16)
                self.places += [(path, row, column) for row in rows for column in columns]
        self.places = self.places[:: max(1, len(self.places) // limit)][:limit]

    def source_paths(self):
        return self.paths

    def __len__(self):
        return len(self.places)

    def __getitem__(self, index):
        path, row, column = self.places[index]
        with rasterio.open(path) as file:
            pixels = file.read(1, window=((row, row + 32), (column, column + 32)))
        return torch.from_numpy(pixels), index

def epoch(loader):
    return [(pixels.dtype, pixels.numpy().tobytes(), index.tolist()) for pixels, index in loader]

def shuffled(make, **arguments):
    return epoch(make(dataset, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(3), **arguments))

dataset = Windows(sys.argv[1], 40)
summary = autotune.tune(
    dataset, budget="4s", trials=2, progress=False, time_cap_s=0.2, confirm_time_cap_s=0.2, trial_timeout_s=60.0,
    space={"batch_size": 8, "archive": ["files", "npy"], "num_workers": 0, "cache": "none"},
)
print(summary.outcome, summary.process_runs, sum(summary.trials.model_dump().values()))
assert autotune.best_config(dataset, batch_size=8).match == "exact"
loader = autotune.best_loader(dataset, batch_size=8)
assert type(loader) is torch.utils.data.DataLoader
assert epoch(loader) == epoch(torch.utils.data.DataLoader(dataset, batch_size=8))
plain = shuffled(torch.utils.data.DataLoader)
assert len(plain) == 5
assert shuffled(autotune.best_loader) == plain
assert autotune.best_loader(dataset, batch_size=8, num_workers=2).num_workers == 2
assert shuffled(autotune.best_loader, num_workers=2) == plain
assert shuffled(autotune.best_loader, archive="npy") == plain
print("equal", len(dataset))
'''


@pytest.mark.slow
def test_an_unguarded_script_tunes_its_own_class_and_gets_its_samples_bit_for_bit(make_command_line, real_data):
    folder = real_data / "forest_gaps"
    if not list(folder.glob("**/*.tif")):
        pytest.skip("the rasters are absent")
    place = make_command_line("script")
    script = place.folder / "train.py"
    script.write_text(SCRIPT)
    run = place.python(script, folder)
    started, outcome, equal = run.out.splitlines()
    assert started == "started", "the script was imported by a measuring process"
    assert outcome.split()[0] in {"gain", "nothing_to_gain", "undecided"}
    assert outcome.split()[2] == "2"
    assert equal == "equal 40"
    assert "Traceback" not in run.err
    assert (place.home / "registry.db").exists()
