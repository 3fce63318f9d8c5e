"""One run of one study: probe, search, race, choose, confirm, decide."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import cast

import optuna

from autotune.constants import (
    CONFIRM_PAIRS_MIN,
    CONFIRM_PAIRS_WANTED,
    FUTILITY_SHARE,
    PLAIN_GAIN_RATIO,
    PROBE_BATCH_SIZES,
    PROCESS_S,
    RACE_BLOCKS_MIN,
    RACE_SHARE,
    SEARCH_SHARE,
    SEARCH_TRIALS_MIN,
    SMALLER_RUNS_KEPT,
)
from autotune.errors import NoMachineError
from autotune.space.priors import REFERENCE_BATCH_SIZE
from autotune.spec import Decision, Failure, LoaderConfig, Profile, StudyEnded, StudySummary, TrialFinished, TrialRecord
from autotune.spec.events import StudyPhase
from autotune.study.at_bound import default_at_bound
from autotune.study.choose import choose
from autotune.study.confirm import Confirm
from autotune.study.decide import Evidence, decide, decide_at_bound
from autotune.study.earlier import deployed_config, interrupted_records, known_records, untold_records
from autotune.study.forecast import Forecast
from autotune.study.guesses import Guesses
from autotune.study.ledger import Ledger
from autotune.study.memory import MemoryModel
from autotune.study.preparation import Preparation
from autotune.study.race import Race, Raced, entrants
from autotune.study.runs import Runs
from autotune.study.search import Search, is_predicted
from autotune.study.setting import Setting
from autotune.study.smaller import SmallerSearch
from autotune.study.summary import summarise
from autotune.study.transfer import Source, carried_over, similar_studies, story

_LOG = logging.getLogger(__name__)


def run_study(setting: Setting, study: optuna.Study) -> StudySummary:
    """Probe, search, race, confirm, decide, and tell everybody.

    Args:
        setting: The run.
        study: Its Optuna study, with stale trials settled.

    Returns:
        How it ended.
    """
    begun = setting.clock()
    earlier = interrupted_records(setting)
    started = begun - _spent_s(earlier)
    ledger = Ledger(known_records(setting, earlier), horizon_epochs=setting.spec.horizon_epochs)
    runs = Runs(setting, ledger, started)
    _tell_again(setting, untold_records(setting))
    decision = _Phases(study, runs, spent=sum(1 for record in earlier if not is_predicted(record))).decide()
    smaller = None if decision.outcome == "nothing_feasible" else SmallerSearch(runs, decision.config.batch_size)
    try:
        if smaller:
            smaller.run()
    except NoMachineError as error:
        _LOG.warning("whether fewer CPUs would do is only predicted: %s", error)
    finally:  # whatever ends these runs, what the ones before them came to is kept
        decision = decision.replace(smaller=smaller.found if smaller else None)
        event = setting.store.save_decision(decision, promotion=setting.spec.promotion)
        setting.notify("on_decision", decision)
    summary = summarise(setting, runs, decision=decision, event=event, wall_s=setting.clock() - begun)
    setting.notify("on_end", StudyEnded(run_key=setting.run_key, summary=summary))
    return summary


def probed_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """Give the batch sizes that a probe looks at: from smallest to largest, evenly by rank, and the second smallest.

    Two small batches are what tells fixed memory from what each sample takes, where the larger ones break the limit.
    """
    ordered = sorted(set(sizes))
    step = max(1.0, (len(ordered) - 1) / (PROBE_BATCH_SIZES - 1))
    places = {min(round(number * step), len(ordered) - 1) for number in range(PROBE_BATCH_SIZES)}
    return tuple(ordered[place] for place in sorted({*places, min(1, len(ordered) - 1)}))


class _Phases:
    """The phases of one run, one after another.

    Args:
        study: Its Optuna study.
        runs: Measures, keeps and tells.
        spent: Trials of the budget that an interrupted run has used.
    """

    def __init__(self, study: optuna.Study, runs: Runs, *, spent: int) -> None:
        self._setting = runs.setting
        self._study = study
        self._runs = runs
        self._spent = spent
        self._deployed = deployed_config(self._setting)
        self._notes: list[str] = []
        self._rates: Mapping[LoaderConfig, float] = {}

    def decide(self) -> Decision:
        """Go through the phases to a decision."""
        setting, ledger = self._setting, self._runs.ledger
        profile = self._probe()
        forecast = self._forecast(profile)
        guesses = Guesses(setting.space, profile, forecast)
        self._rates = guesses.rates
        if found := default_at_bound(self._runs, guesses):
            return decide_at_bound(setting, found, guesses=guesses)
        self._search(guesses, forecast, similar_studies(setting, profile))
        raced = self._race()
        candidates = self._candidates(raced)
        self._runs.begin("confirm", "the choice against the PyTorch default, in fresh interleaved pairs")
        confirm = Confirm(self._runs, kept_s=self._smaller_s())
        confirmed = confirm.run(candidates, self._deployed)
        safe = None if confirmed else confirm.safe_default()
        kept = None if confirmed else confirm.kept()
        self._note_machines()
        evidence = Evidence(
            guesses=guesses, safe_default=safe, kept=kept, notes=tuple(self._notes), hosts=self._runs.hosts
        )
        return decide(setting, ledger, confirmed, self._deployed, evidence=evidence)

    def _note_machines(self) -> None:
        hosts = self._runs.hosts
        if len(hosts) > 1:
            self._notes.append(
                f"{len(hosts)} machines of one class measured ({', '.join(sorted(hosts))}): race and confirmation "
                "compare within a machine alone; rates of the search also differ by what the machines do"
            )

    def _forecast(self, profile: Profile | None) -> Forecast:
        setting, ledger = self._setting, self._runs.ledger
        length = setting.inspection.dataset.length
        forecast = Forecast(
            memory=MemoryModel(setting.inspection, limit_bytes=setting.memory_limit_bytes, profile=profile),
            preparation=Preparation(
                setting.space,
                profile,
                budget_s=setting.spec.budget.time_s,
                samples=min(length, setting.spec.subset or length) if length else None,
            ),
        )
        for record in (*ledger.ranked(), *ledger.failures()):
            forecast.learn(record)
        return forecast

    def _probe(self) -> Profile | None:
        """Look at where the time goes; a study without that knowledge still searches."""
        setting, forecast = self._setting, self._forecast(None)
        sizes = setting.space.dimensions.batch_size
        possible = [size for size in sizes if forecast.breach(LoaderConfig.torch_default(size)) is None]
        if not possible:
            return None
        self._runs.begin("probe", "where the time and memory of a batch go, in one process")
        found = self._runs.probe(probed_sizes(possible))
        if isinstance(found, Failure):
            self._notes.append(f"the probe failed, so nothing was estimated: {found.message}")
            return None
        setting.notify("on_profile", found)
        return found

    def _search(self, guesses: Guesses, forecast: Forecast, similar: Sequence[Source]) -> None:
        setting, ledger = self._setting, self._runs.ledger
        self._runs.begin("search", f"{len(setting.space.points)} configurations are possible")
        search = Search(self._runs, self._study, guesses, forecast)
        deployed = [self._deployed] if self._deployed else []
        carried = carried_over(setting, similar, forecast)
        search.enqueue([LoaderConfig.torch_default(REFERENCE_BATCH_SIZE), *deployed], carried)
        reason = search.run(
            until_s=lambda: self._runs.started + self._search_s(),
            spent=self._spent,
            least_trials=max(0, SEARCH_TRIALS_MIN - self._spent),
        )
        tried = len(ledger.known())
        self._notes.append(f"search: {tried} of {len(setting.space.points)} configurations; it ended because {reason}")
        self._notes += story(similar, carried, ledger)
        if left_out := forecast.preparation.left_out():
            self._notes.append(
                f"{len(left_out)} configurations were left out, as building archives or filling caches for them alone "
                "would take too much of the budget; a longer one lets them in, or measuring on a subset"
            )

    def _race(self) -> Raced | None:
        """Race the best of the search as far as the time allows; None where it allows no race."""
        racing = entrants(self._runs.ledger)
        until_s = self._runs.started + self._setting.spec.budget.time_s - self._confirm_s()
        best_two = racing[:2]
        racing = racing[: self._affordable(racing, until_s, RACE_BLOCKS_MIN)]
        if len(racing) < 2 and self._close(best_two) and self._affordable(best_two, until_s, 1) == 2:
            self._runs.begin("race", "the best two once more, as the time allows no race")
            self._notes.append("race: the best two ran once more, as the time allowed no further blocks")
            return Race(self._runs, seed=self._setting.spec.seed).rematch(best_two)
        if len(racing) < 2:
            self._notes.append("race: none, as fewer than two configurations were fast enough or the time was over")
            return None
        self._runs.begin("race", f"{len(racing)} configurations side by side, in blocks of random order")
        raced = Race(self._runs, seed=self._setting.spec.seed).run(racing, until_s=until_s)
        self._notes.append(
            f"race: {len(racing)} configurations in {raced.blocks} blocks; {len(raced.survivors)} could not be told "
            f"apart from the fastest, {len(raced.equivalent)} of them shown to be within 2 %"
        )
        return raced

    def _close(self, best_two: Sequence[LoaderConfig]) -> bool:
        """Tell whether single runs leave open which of two is faster."""
        ledger = self._runs.ledger
        worth = [ledger.worth(record) for config in best_two if (record := ledger.get(config))]
        return len(worth) == 2 and worth[1] >= FUTILITY_SHARE * worth[0]

    def _candidates(self, raced: Raced | None) -> list[LoaderConfig]:
        """Give what is confirmed, best first: the choice of the race, then what else is left, then the search's."""
        ranked = [record.config for record in self._runs.ledger.ranked()]
        choice = choose(raced, self._setting.spec.consumer) if raced else None
        if choice is None:
            return ranked
        self._notes.append(f"choice: {choice.config.label()}, as {choice.why}")
        return [choice.config, *choice.others, *ranked]

    def _run_s(self, phase: StudyPhase) -> float:
        """Give what a run takes: as those that were measured did, if that is more than was planned."""
        planned_s = self._setting.time_cap_s(phase) + PROCESS_S
        walls = [_wall_s(record) for record in self._runs.ledger.ranked()]
        return max(planned_s, median(walls)) if walls else planned_s

    def _confirm_s(self) -> float:
        """Give the time that is kept for the confirm phase: its share, at least what verifying and its pairs need."""
        pairs = CONFIRM_PAIRS_MIN if self._gain_seen() >= PLAIN_GAIN_RATIO else CONFIRM_PAIRS_WANTED
        wanted_s = 2 * (self._rounds(pairs) + 1) * self._run_s("confirm")
        return max((1 - SEARCH_SHARE - RACE_SHARE) * self._setting.spec.budget.time_s, wanted_s + self._smaller_s())

    def _smaller_s(self) -> float:
        """Give the time that is kept for runs with fewer CPUs, which tell what a consumer needs to be kept fed."""
        told = self._setting.spec.consumer.kind != "loader" and self._setting.inspection.machine.cpu_count > 1
        return SMALLER_RUNS_KEPT * self._run_s("smaller") if told else 0.0

    def _gain_seen(self) -> float:
        """Give the best rate of the search over PyTorch's default at its batch size; 1 where that is unknown.

        A default that was measured at batch size 32 alone is taken to another size by the estimate.
        """
        ledger, rates = self._runs.ledger, self._rates
        accelerated = self._setting.inspection.machine.has_accelerator
        best = ledger.best()
        if best is None or best.measurement is None:
            return 1.0
        wanted, usual = (
            LoaderConfig.torch_default(size).canonical(has_accelerator=accelerated)
            for size in (best.config.batch_size, REFERENCE_BATCH_SIZE)
        )
        for default, scale in ((wanted, 1.0), (usual, rates.get(wanted, 0.0) / rates.get(usual, math.inf))):
            known = ledger.get(default)
            if known is not None and known.measurement is not None and scale:
                return best.measurement.samples_per_s / (known.measurement.samples_per_s * scale)
        return 1.0

    def _search_s(self) -> float:
        """Give the search's part of the time: short budgets shrink it first."""
        budget_s = self._setting.spec.budget.time_s
        race_s = max(RACE_SHARE * budget_s, 2 * self._rounds(RACE_BLOCKS_MIN) * self._run_s("race"))
        return min(SEARCH_SHARE * budget_s, max(0.0, budget_s - self._confirm_s() - race_s))

    def _affordable(self, racing: Sequence[LoaderConfig], until_s: float, blocks: int) -> int:
        """Give how many entrants a number of blocks can be run with."""
        known = [self._runs.ledger.get(config) for config in racing]
        walls = [_wall_s(record) for record in known if record and record.measurement]
        if not walls:
            return 0
        left_s = until_s - self._runs.clock()
        each_s = self._rounds(blocks) * max(fmean(walls), 1e-9)
        return max(0, min(len(racing), int(left_s / each_s)))

    def _rounds(self, blocks: int) -> int:
        """Give how many blocks run one after another, where each machine runs one at a time."""
        return math.ceil(blocks / self._runs.capacity)


def _wall_s(record: TrialRecord) -> float:
    """Give what a run took, without what it did for all later ones."""
    return record.wall_s - (record.measurement.phases.archive_build_s if record.measurement else 0.0)


def _spent_s(earlier: Iterable[TrialRecord]) -> float:
    """Give the time that an interrupted run took: that of the machine that measured longest, whoever measures now."""
    by_host: dict[str, float] = {}
    for record in earlier:
        host = record.machine.host if record.machine else ""
        by_host[host] = by_host.get(host, 0.0) + record.wall_s
    return max(by_host.values(), default=0.0)


def _tell_again(setting: Setting, untold: Iterable[TrialRecord]) -> None:
    """Tell the listeners of records that a killed tuner may have saved without telling them."""
    for record in untold:
        event = TrialFinished(
            run_key=setting.run_key,
            phase=cast("StudyPhase", record.phase),
            record=record,
            budget_s=setting.spec.budget.time_s,
            replayed=True,
        )
        setting.notify("on_trial", event)
