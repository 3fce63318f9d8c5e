"""A registry as a team has it after some nights: studies with evidence, a decision that waits, nights and a queue."""

from datetime import timedelta

from registry_values import GIB, START, decision, facts, machine, measurement, record

from autotune.spec import (
    Bottleneck,
    Headroom,
    Interval,
    LoaderConfig,
    MemoryUse,
    NightlyReport,
    Phases,
    QueuedStudy,
    StudyNight,
    Window,
)
from autotune.study.optuna_store import open_storage

STUDY, OTHER = "forest_gaps", "street_scenes"
DEFAULT = LoaderConfig().canonical(has_accelerator=False)
FIRST = LoaderConfig(num_workers=2).canonical(has_accelerator=False)
SECOND = LoaderConfig(num_workers=4, prefetch_factor=4, archive="npy").canonical(has_accelerator=False)
RATES = {DEFAULT: 510.0, FIRST: 930.0, SECOND: 1450.0}
GROUP = {"machine": machine(host="spruce", cpu_count=8, memory_bytes=32 * GIB), "dataset": facts(length=1200)}


def gain(config, *, minute, mean, **changes):
    """A decision for a configuration whose evidence is in the registry too."""
    fields = {
        "study": STUDY,
        "config": config,
        "default": DEFAULT,
        "minute": minute,
        "samples_per_s": RATES[config],
        "default_samples_per_s": RATES[DEFAULT],
        "ratio": Interval(mean=mean, low=mean * 0.95, high=mean * 1.05),
        "pairs": 6,
        "headroom": Headroom(bound_samples_per_s=1800.0, share=RATES[config] / 1800.0),
        "bottlenecks": (
            Bottleneck(config=config.label(), stage="read", limit="workers", stages={"read": 3.0, "decode": 1.5}),
        ),
        "why": f"{config.label()} reads {mean:.2f} times as fast as the PyTorch default, beyond noise.",
        "notes": ("The search tried 24 configurations.", "2 windows were set aside as disturbed."),
        **GROUP,
    }
    return decision(**{**fields, **changes})


def save_evidence(registry, *, minute, chosen):
    """Save a search, and confirm runs that take turns."""
    for number, (workers, batch) in enumerate((w, b) for w in (0, 1, 2, 4) for b in (8, 16, 32)):
        rate = 300.0 + 180 * workers + 6 * batch
        config = LoaderConfig(num_workers=workers, batch_size=batch).canonical(has_accelerator=False)
        _save(registry, f"{chosen.label()} {number}", rate, minute + number, config=config, number=number)
    for number in range(12):
        config = chosen if number % 2 else DEFAULT
        rate = RATES[config] * (1 + 0.01 * (number % 5 - 2))
        _save(registry, f"{chosen.label()} c{number}", rate, minute + 20 + number, config=config, phase="confirm")


def _save(registry, key, rate, minute, **changes):
    memory = MemoryUse(device_peak_bytes=GIB, device_limit_bytes=8 * GIB, host_pss_bytes=int(rate * 2**20))
    phases = Phases(build_s=0.4, first_batch_s=0.3, ramp_s=0.2, measured_s=2.0)
    windows = (Window(seconds=0.5, samples=max(1, int(rate / 2)), batches=20, wait_s=0.1),)
    measured = measurement(rate, memory=memory, windows=windows, phases=phases)
    registry.save_record(record(key, study=STUDY, minute=minute, measurement=measured, **{**GROUP, **changes}))


def fill(registry):
    """Fill a registry; give the decisions by what they are: deployed, waiting, other."""
    deployed, waiting = gain(FIRST, minute=60, mean=1.82), gain(SECOND, minute=1500, mean=2.84)
    save_evidence(registry, minute=0, chosen=FIRST)
    registry.save_decision(deployed)
    other = decision(
        study=OTHER, outcome="nothing_to_gain", minute=90, config=DEFAULT, default=DEFAULT, ratio=None, pairs=0,
        dataset=facts(type_name="pack.Streets"), why="the default reaches what any loader could here",
    )  # fmt: skip
    registry.save_decision(other)
    save_evidence(registry, minute=1440, chosen=SECOND)
    registry.save_decision(waiting, promotion="review")
    registry.save_night(night(deployed, waiting))
    queue(registry)
    return {"deployed": deployed, "waiting": waiting, "other": other}


def night(deployed, waiting):
    """A night in which one study found something and another one failed."""
    began = START + timedelta(days=1)
    studies = (
        StudyNight(
            study=STUDY, file="forest_gaps.yaml", task="search", why="the dataset has changed since", outcome="waiting",
            told=("searched anew: 2.84 times the default, beyond noise", "waits, as its promotion is review"),
            searched=True, recorded=deployed.ratio, measured=waiting.ratio, before_key=deployed.key,
            after_key=deployed.key, new_key=waiting.key, result="gain", wall_s=1620.0,
        ),
        StudyNight(
            study=OTHER, file="street_scenes.yaml", task="check", why="nothing has changed", outcome="failed",
            told=("the data set cannot be opened: no such folder",), wall_s=2.5,
        ),
    )  # fmt: skip
    return NightlyReport(
        machine="spruce", started_at=began, ended_at=began + timedelta(minutes=28), budget_s=7200.0, spent_s=1680.0,
        studies=studies, exit_code=1,
    )  # fmt: skip


def queue(registry):
    """Queue two studies, of which one has run."""
    for number, name in enumerate((STUDY, OTHER)):
        asked = START + timedelta(days=2, minutes=number)
        entry = registry.queue_study(QueuedStudy(study=name, requested_by="ada", requested_at=asked))
        if number == 0:
            registry.take_queued_study(entry.key, machine="spruce", at=asked)
            registry.end_queued_study(entry.key, "done", message="waits for review", at=asked + timedelta(hours=1))


def make_optuna_study(home, name=STUDY, *, of=None):
    """Put a study into Optuna's database as a run leaves it, by its name behind one of ours; give its number."""
    import optuna

    storage = open_storage(f"sqlite:///{home / 'optuna.db'}")
    study = optuna.create_study(storage=storage, study_name=name, direction="maximize")
    study.set_user_attr("autotune:name", of or name)
    for number in range(6):
        study.add_trial(
            optuna.trial.create_trial(
                params={"num_workers": number},
                distributions={"num_workers": optuna.distributions.IntDistribution(0, 8)},
                value=100.0 + number,
            )
        )
    storage.engine.dispose()
    return study._study_id
