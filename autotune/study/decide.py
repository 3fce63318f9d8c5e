"""From the confirm phase to a decision: promote only what is beyond noise."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from autotune.constants import HEADROOM_PAIRS, PROMOTE_RATIO, WORTHWHILE_RATIO
from autotune.spec import Bottleneck, Decision, Headroom, Interval, LoaderConfig, Outcome
from autotune.study.at_bound import AtBound
from autotune.study.confirm import Confirmed
from autotune.study.contrasts import pooled_variance, resolution_share
from autotune.study.guesses import Guesses
from autotune.study.ledger import Ledger
from autotune.study.setting import Setting
from autotune.units import format_rate


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the phases before the confirm phase found out.

    Attributes:
        guesses: Estimates and bounds.
        safe_default: PyTorch's default where it was verified to keep its limits; None where nothing was.
        kept: What was verified to keep its limits apart from the defaults; None where nothing was.
        notes: What the phases came to, a sentence each.
        hosts: Machines that measured.
    """

    guesses: Guesses
    safe_default: LoaderConfig | None = None
    kept: LoaderConfig | None = None
    notes: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()


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


def decide(
    setting: Setting,
    ledger: Ledger,
    confirmed: Confirmed | None,
    deployed: LoaderConfig | None,
    *,
    evidence: Evidence,
) -> Decision:
    """Draw the decision of one run.

    Args:
        setting: The run.
        ledger: What the search found.
        confirmed: What the interleaved runs showed; None where there was nothing to compare.
        deployed: What is deployed now; None without.
        evidence: What was found out before.
    """
    if confirmed is None:
        return _without_rival(setting, ledger, deployed, evidence)
    config, outcome, why = _verdict(confirmed, deployed)
    return _decision(setting, confirmed, config, outcome=outcome, why=why, evidence=evidence)


def decide_at_bound(setting: Setting, found: AtBound, *, guesses: Guesses) -> Decision:
    """Draw the decision where the default was shown to reach the bound, so that nothing was searched."""
    share, rate = found.share, fmean(found.rates)
    return Decision(
        **_circumstances(setting),
        outcome="nothing_to_gain",
        config=found.default,
        default=found.default,
        samples_per_s=rate,
        default_samples_per_s=rate,
        peak_bytes=found.peak_bytes,
        headroom=Headroom(bound_samples_per_s=fmean(found.bounds), share=share.mean),
        bottlenecks=_bottlenecks(guesses, (found.default,)),
        why=f"the PyTorch default reaches {share.mean:.1%} (95 % interval {share.low:.1%} to {share.high:.1%}, "
        f"{HEADROOM_PAIRS} interleaved pairs) of what any loader could here, so nothing was searched",
    )


def _verdict(confirmed: Confirmed, deployed: LoaderConfig | None) -> tuple[LoaderConfig, Outcome, str]:
    """Give what is deployed from now on, the outcome, and why."""
    against_default = outcome_of(confirmed.ratio(confirmed.challenger))
    old = confirmed.deployed
    beyond_old = old is None or _beyond(confirmed.between(confirmed.challenger, old))
    if against_default == "gain" and beyond_old:
        return confirmed.challenger, "gain", _sentence(confirmed, confirmed.challenger)
    if old is not None and outcome_of(confirmed.ratio(old)) == "gain":
        why = f"{_sentence(confirmed, old)}; the winner of this search was not faster beyond noise, so it stays"
        return old, "gain", why
    outcome: Outcome = against_default if against_default != "gain" else "undecided"
    kept = deployed if deployed and outcome == "undecided" and deployed in confirmed.measured() else confirmed.default
    return kept, outcome, _no_gain(confirmed, against_default)


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


def _without_rival(setting: Setting, ledger: Ledger, deployed: LoaderConfig | None, evidence: Evidence) -> Decision:
    accelerated = setting.inspection.machine.has_accelerator
    smallest = LoaderConfig.torch_default(min(setting.space.dimensions.batch_size))
    default = evidence.safe_default or smallest.canonical(has_accelerator=accelerated)
    known = ledger.get(deployed) if deployed else None
    kept = deployed if deployed and (known is None or known.failure is None) else None
    if evidence.safe_default is None and evidence.kept is not None:
        outcome: Outcome = "undecided"
        kept = evidence.kept
        why = (
            f"{kept.label()} kept its limits, the PyTorch default broke them at every batch size that was tried, "
            "so there is nothing to compare with"
        )
    elif evidence.safe_default is None:
        outcome = "nothing_feasible"
        why = "no configuration passed the limits; raise memory_limit or allow smaller batches"
    else:
        outcome = "nothing_to_gain" if not setting.space.points - ledger.known() else "undecided"
        why = "no configuration apart from the PyTorch default could be measured within its limits"
    return Decision(
        **_circumstances(setting, evidence.hosts),
        outcome=outcome,
        config=kept if kept and outcome != "nothing_feasible" else default,
        default=default,
        notes=evidence.notes,
        why=why,
    )


def _decision(
    setting: Setting,
    confirmed: Confirmed,
    config: LoaderConfig,
    *,
    outcome: Outcome,
    why: str,
    evidence: Evidence,
) -> Decision:
    compared = config if config != confirmed.default else confirmed.challenger
    peaks = [
        record.measurement.memory.device_peak_bytes or 0
        for record in confirmed.blocks.records(config)
        if record.measurement
    ]
    pairs = len(confirmed.blocks.paired_rates(compared, confirmed.default))
    return Decision(
        **_circumstances(setting, evidence.hosts),
        outcome=outcome,
        config=config,
        default=confirmed.default,
        samples_per_s=confirmed.rate(config),
        default_samples_per_s=confirmed.rate(confirmed.default),
        ratio=confirmed.ratio(compared),
        pairs=pairs,
        batch_size_gain=confirmed.batch_size_gain,
        peak_bytes=max(peaks, default=0) or None,
        headroom=_headroom(evidence.guesses, config, confirmed),
        resolution_share=resolution_share(_noise(confirmed), pairs),
        bottlenecks=_bottlenecks(evidence.guesses, (config, confirmed.default)),
        notes=evidence.notes,
        why=why,
    )


def _circumstances(setting: Setting, hosts: Iterable[str] = ()) -> dict[str, Any]:
    """Give the fields that every decision of this run has."""
    return {
        "other_hosts": tuple(sorted({*hosts} - {setting.inspection.machine.host})),
        "study": setting.spec.name,
        "workload": setting.spec.workload,
        "machine": setting.inspection.machine,
        "dataset": setting.inspection.dataset,
        "fingerprint": setting.inspection.fingerprint,
        "limit_bytes": setting.memory_limit_bytes,
    }


def _headroom(guesses: Guesses, config: LoaderConfig, confirmed: Confirmed) -> Headroom:
    bound, rate = guesses.bound(config.batch_size), confirmed.rate_on(config, guesses.host)
    if bound is None or rate is None:
        return Headroom()
    return Headroom(bound_samples_per_s=bound, share=rate / bound)


def _bottlenecks(guesses: Guesses, configs: Iterable[LoaderConfig]) -> tuple[Bottleneck, ...]:
    found = (guesses.bottleneck(config) for config in dict.fromkeys(configs))
    return tuple(one for one in found if one is not None)


def _noise(confirmed: Confirmed) -> float:
    """Give the standard deviation of a log rate from run to run, block effects taken off."""
    logs = {
        config: [math.log(record.measurement.samples_per_s) if record.measurement else None for record in records]
        for config in confirmed.blocks.configs
        if (records := confirmed.blocks.records(config))
    }
    return math.sqrt(pooled_variance(logs)[0])
