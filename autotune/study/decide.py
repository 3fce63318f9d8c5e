"""From the confirm phase to a decision: promote only what is beyond noise."""

from __future__ import annotations

from autotune.constants import PROMOTE_RATIO, WORTHWHILE_RATIO
from autotune.spec import Decision, Interval, LoaderConfig, Outcome
from autotune.study.confirm import Confirmed
from autotune.study.ledger import Ledger
from autotune.study.setting import Setting
from autotune.units import format_rate


def outcome_of(ratio: Interval | None) -> Outcome:
    """Name what a ratio of winner to default shows.

    `gain`: the interval lies above 1.01. `nothing_to_gain`: it holds no gain worth a change.
    `undecided`: it reaches up to a worthwhile gain and down to none, or there are too few pairs.
    """
    if ratio is None:
        return "undecided"
    if ratio.low > PROMOTE_RATIO:
        return "gain"
    return "nothing_to_gain" if ratio.high < WORTHWHILE_RATIO else "undecided"


def decide(setting: Setting, ledger: Ledger, confirmed: Confirmed | None, deployed: LoaderConfig | None) -> Decision:
    """Draw the decision of one run.

    Args:
        setting: The run.
        ledger: What the search found.
        confirmed: What the interleaved runs showed; None where there was nothing to compare.
        deployed: What is deployed now; None without.
    """
    if confirmed is None:
        return _without_rival(setting, ledger, deployed)
    against_default = outcome_of(confirmed.ratio(confirmed.challenger))
    old = confirmed.deployed
    beyond_old = old is None or _beyond(confirmed.between(confirmed.challenger, old))
    if against_default == "gain" and beyond_old:
        why = _sentence(confirmed, confirmed.challenger)
        return _decision(setting, confirmed, confirmed.challenger, outcome="gain", why=why)
    if old is not None and outcome_of(confirmed.ratio(old)) == "gain":
        why = f"{_sentence(confirmed, old)}; the winner of this search was not faster beyond noise, so it stays"
        return _decision(setting, confirmed, old, outcome="gain", why=why)
    why = _no_gain(confirmed, against_default)
    outcome: Outcome = against_default if against_default != "gain" else "undecided"
    kept = deployed if deployed and outcome == "undecided" and deployed in confirmed.measured() else confirmed.default
    return _decision(setting, confirmed, kept, outcome=outcome, why=why)


def _beyond(ratio: Interval | None) -> bool:
    return ratio is not None and ratio.low > PROMOTE_RATIO


def _sentence(confirmed: Confirmed, config: LoaderConfig) -> str:
    ratio, rate = confirmed.ratio(config), confirmed.rate(config)
    pairs = len(confirmed.blocks.paired_rates(config, confirmed.default))
    if ratio is None or rate is None:
        return "too few pairs for an interval"
    return (
        f"{format_rate(rate)}, {ratio.mean:.2f} times the PyTorch default at the same batch size "
        f"(95 % interval {ratio.low:.2f} to {ratio.high:.2f}, {pairs} pairs)"
    )


def _no_gain(confirmed: Confirmed, outcome: Outcome) -> str:
    sentence = _sentence(confirmed, confirmed.challenger)
    if outcome == "nothing_to_gain":
        return f"the fastest other configuration reached {sentence}: nothing to gain"
    return f"the fastest other configuration reached {sentence}: no gain can be told from noise in this budget"


def _without_rival(setting: Setting, ledger: Ledger, deployed: LoaderConfig | None) -> Decision:
    best = ledger.best()
    batch = best.config.batch_size if best else min(setting.space.dimensions.batch_size)
    accelerated = setting.inspection.machine.has_accelerator
    default = LoaderConfig.torch_default(batch).canonical(has_accelerator=accelerated)
    if best is None:
        outcome: Outcome = "nothing_feasible"
        why = "no configuration passed the limits; raise memory_limit or allow smaller batches"
    else:
        outcome = "nothing_to_gain" if not setting.space.points - ledger.known() else "undecided"
        why = "no configuration apart from the PyTorch default could be measured"
    return Decision(
        study=setting.spec.name,
        outcome=outcome,
        config=deployed if deployed and outcome != "nothing_feasible" else default,
        default=default,
        workload=setting.spec.workload,
        machine=setting.inspection.machine,
        dataset=setting.inspection.dataset,
        fingerprint=setting.inspection.fingerprint,
        limit_bytes=setting.memory_limit_bytes,
        why=why,
    )


def _decision(setting: Setting, confirmed: Confirmed, config: LoaderConfig, *, outcome: Outcome, why: str) -> Decision:
    compared = config if config != confirmed.default else confirmed.challenger
    peaks = [
        record.measurement.memory.device_peak_bytes or 0
        for record in confirmed.blocks.records(config)
        if record.measurement
    ]
    return Decision(
        study=setting.spec.name,
        outcome=outcome,
        config=config,
        default=confirmed.default,
        samples_per_s=confirmed.rate(config),
        default_samples_per_s=confirmed.rate(confirmed.default),
        ratio=confirmed.ratio(compared),
        pairs=len(confirmed.blocks.paired_rates(compared, confirmed.default)),
        batch_size_gain=confirmed.batch_size_gain,
        workload=setting.spec.workload,
        machine=setting.inspection.machine,
        dataset=setting.inspection.dataset,
        fingerprint=setting.inspection.fingerprint,
        peak_bytes=max(peaks, default=0) or None,
        limit_bytes=setting.memory_limit_bytes,
        why=why,
    )
