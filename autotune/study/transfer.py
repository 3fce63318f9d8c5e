"""What other studies found, on other machines or of other datasets, as the first things to try in this one.

It is a prior, never an answer: what is carried over is measured here before anything is said of it, and a misleading
one costs the few runs that `CARRIED_MAX` allows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from autotune.constants import CARRIED_MAX, CARRIED_OF_A_STUDY, GUESS_SHARE, SIMILARITY_MIN
from autotune.similarity import Circumstances, Similarity, similarity
from autotune.space.adapting import adapted
from autotune.space.priors import REFERENCE_BATCH_SIZE
from autotune.spec import Decision, LoaderConfig, Profile
from autotune.study.earlier import other_majors
from autotune.study.forecast import Forecast
from autotune.study.ledger import Ledger
from autotune.study.setting import Setting


@dataclass(frozen=True, kw_only=True)
class Source:
    """Another study that is like this one.

    Attributes:
        decision: What it came to.
        similarity: How like its circumstances are to those here.
        rates: What it measured, the median of each configuration in samples/s, fastest first.
    """

    decision: Decision
    similarity: Similarity
    rates: Mapping[LoaderConfig, float]

    @property
    def title(self) -> str:
        """The study with its similarity, for people."""
        return f"study {self.decision.study!r} ({self.similarity})"


@dataclass(frozen=True, kw_only=True)
class Carried:
    """A configuration of another study, as it is tried here.

    Attributes:
        config: The point of the space here.
        source: Where it comes from.
    """

    config: LoaderConfig
    source: Source

    @property
    def name(self) -> str:
        """Why it is tried, as Optuna's trial says it."""
        return self.source.title


def similar_studies(setting: Setting, profile: Profile | None) -> list[Source]:
    """Give the studies whose circumstances are like those of this one, the most similar first.

    Args:
        setting: The run.
        profile: What the probe found here; None without one.
    """
    here = _here(setting, profile)
    found = []
    for decision in setting.store.deployed_anywhere(here.dataset.type_name):
        if decision.outcome == "nothing_feasible" or _is_own(decision, setting):
            continue
        alike = similarity(here, _there(decision))
        if alike.value >= SIMILARITY_MIN:
            found.append((alike, decision))
    ranked = sorted(found, key=lambda one: (-one[0].value, -one[1].decided_at.timestamp(), one[1].key))
    chosen = ranked[:CARRIED_MAX]  # more could not have a say
    return [Source(decision=one, similarity=alike, rates=_rates(setting, one)) for alike, one in chosen]


def carried_over(setting: Setting, sources: Iterable[Source], forecast: Forecast) -> list[Carried]:
    """Give the best few configurations of similar studies that are possible here, what is most promising first.

    What a study is expected to be worth here is its rate there, as a share of the best one there, times the similarity.
    """
    offered = [
        (share * source.similarity.value, Carried(config=config, source=source))
        for source in sources
        for share, config in _offers(source, setting, forecast)
    ]
    first: dict[LoaderConfig, Carried] = {}
    for _, carried in sorted(offered, key=lambda one: -one[0]):
        first.setdefault(carried.config, carried)
    return list(first.values())[:CARRIED_MAX]


def _offers(source: Source, setting: Setting, forecast: Forecast) -> Iterator[tuple[float, LoaderConfig]]:
    """Give what a study has to offer here: what it chose, then its fastest, each with its share of the best rate."""
    best = next(iter(source.rates.values()), None)
    chosen = [] if source.decision.outcome == "undecided" else [source.decision.config]
    given: set[LoaderConfig] = set()
    for config in dict.fromkeys([*chosen, *source.rates]):
        # what was confirmed there is held against no single run
        share = 1.0 if config in chosen or best is None else source.rates[config] / best
        if len(given) >= CARRIED_OF_A_STUDY or share < GUESS_SHARE:
            return
        point = adapted(config, there=source.decision.machine, space=setting.space)
        fitting = None if point is None else _within_limits(point, setting, forecast)
        if fitting is None or fitting in given:
            continue
        given.add(fitting)
        yield share, fitting


def _within_limits(config: LoaderConfig, setting: Setting, forecast: Forecast) -> LoaderConfig | None:
    """Give the configuration with the largest batch, of its own size at most, that is forecast to keep all limits."""
    sizes = sorted((size for size in setting.space.dimensions.batch_size if size <= config.batch_size), reverse=True)
    smaller = (config.replace(batch_size=size) for size in sizes)
    return next((one for one in smaller if one in setting.space.points and forecast.breach(one) is None), None)


def story(sources: Sequence[Source], carried: Sequence[Carried], ledger: Ledger) -> list[str]:
    """Say what was carried over from where, and what became of it here: a sentence for each study.

    Args:
        sources: The similar studies.
        carried: What was tried first on their account.
        ledger: What the search found.
    """
    return [_sentence(source, [one for one in carried if one.source is source], ledger) for source in sources]


def _sentence(source: Source, carried: Sequence[Carried], ledger: Ledger) -> str:
    begin, best = f"priors: {source.title}", ledger.best()
    tried = [record for one in carried if (record := ledger.get(one.config)) is not None]
    if not carried:
        return f"{begin} had no further configuration that is possible here"
    if not tried:
        return f"{begin}: there was no time for its {len(carried)} configurations"
    worth = [ledger.worth(record) for record in tried if record.measurement is not None]
    if best is None or not worth:
        return f"{begin}: none of its {len(tried)} configurations that were tried first gave a rate here"
    share = max(worth) / ledger.worth(best)
    told = f"{begin}: of its {len(tried)} tried first, the best came to {share:.0%} of the fastest run of the search"
    agreement = order_agreement(source, ledger)
    return told if agreement is None else f"{told}; {agreement}"


def order_agreement(source: Source, ledger: Ledger) -> str | None:
    """Say for how many pairs of configurations, measured in both, the order was the same; None with fewer than 3."""
    here = {record.config: ledger.worth(record) for record in ledger.ranked()}
    both = [config for config in source.rates if config in here]
    pairs = list(combinations(both, 2))
    if len(pairs) < 3:
        return None
    same = sum((source.rates[one] > source.rates[two]) == (here[one] > here[two]) for one, two in pairs)
    return f"{same} of {len(pairs)} pairs of configurations had the same order there"


def _rates(setting: Setting, decision: Decision) -> dict[LoaderConfig, float]:
    runs: dict[LoaderConfig, list[float]] = {}
    for one in setting.store.measured(decision):
        runs.setdefault(one.config, []).append(one.samples_per_s)
    rates = {config: median(found) for config, found in runs.items()}
    return dict(sorted(rates.items(), key=lambda item: -item[1]))


def _is_own(decision: Decision, setting: Setting) -> bool:
    """Whether a decision is one of this very study, whose records are known, or remembered, anyway."""
    here = setting.inspection.machine
    return (
        decision.study == setting.spec.name
        and decision.workload == setting.spec.workload
        and decision.dataset == setting.inspection.dataset
        and decision.machine.machine_class == here.machine_class
        and not other_majors(decision.machine, here)
    )


def _here(setting: Setting, profile: Profile | None) -> Circumstances:
    return Circumstances(
        machine=setting.inspection.machine,
        dataset=setting.inspection.dataset,
        workload=setting.spec.workload,
        consume_s_per_sample=profile.consume.at(REFERENCE_BATCH_SIZE) / REFERENCE_BATCH_SIZE if profile else None,
    )


def _there(decision: Decision) -> Circumstances:
    """Give the circumstances of a decision; what its step took is in the stages of the configuration it chose."""
    label = decision.config.label()
    stages = next((found.stages for found in decision.bottlenecks if found.config == label), {})
    consume_ms = stages.get("consume")
    return Circumstances(
        machine=decision.machine,
        dataset=decision.dataset,
        workload=decision.workload,
        consume_s_per_sample=None if consume_ms is None else consume_ms / 1000 / decision.config.batch_size,
    )
