"""What a study tells its listeners, and its summary."""

from __future__ import annotations

from typing import Literal, Protocol

from autotune.spec.base import Value
from autotune.spec.config import LoaderConfig
from autotune.spec.facts import Inspection
from autotune.spec.measurement import Interval
from autotune.spec.profile import Headroom, Profile
from autotune.spec.record import Decision, Outcome, TrialRecord
from autotune.spec.smaller import SmallerMachine
from autotune.spec.study import StudySpec

StudyPhase = Literal["probe", "search", "race", "verify", "confirm", "smaller"]


class StudyStarted(Value):
    """A study begins or goes on.

    Attributes:
        run_key: Key of this run of the study; one MLflow parent run each study, one child run each trial.
        spec: The study.
        resumed: Finished trials that were there already.
    """

    run_key: str
    spec: StudySpec
    resumed: int = 0


class Preparing(Value):
    """Something slow goes on before anything is timed: samples are generated, an archive is built, a cache filled.

    Attributes:
        phase: `build`, `archive` or `cache`.
        done: Samples that are ready.
        total: All samples.
    """

    phase: str
    done: int
    total: int


class PhaseStarted(Value):
    """A phase of a study begins.

    Attributes:
        run_key: Key of the study's run.
        phase: Which.
        note: What it is about to do, and why, in a sentence.
    """

    run_key: str
    phase: StudyPhase
    note: str


class Counts(Value):
    """Trials by what became of them.

    Attributes:
        complete: Measured to the end.
        infeasible: A limit was passed.
        failed: Failed for another reason.
        stopped_early: Measured, and given up as futile; not counted in `complete`.
    """

    complete: int = 0
    infeasible: int = 0
    failed: int = 0
    stopped_early: int = 0

    @property
    def total(self) -> int:
        """All trials."""
        return self.complete + self.infeasible + self.failed + self.stopped_early


class TrialFinished(Value):
    """A trial came to an end and was saved and told.

    Attributes:
        run_key: Key of the study's run.
        phase: Which part of the study.
        record: What became of it.
        best: Best feasible record of the search so far.
        counts: Trials of the search so far.
        elapsed_s: Wall time since the study's start.
        budget_s: Its budget.
        ratio: Running ratio of best to default, in the confirm phase.
        replayed: Whether it ended in an earlier run that may not have told of it.
    """

    run_key: str
    phase: StudyPhase
    record: TrialRecord
    best: TrialRecord | None = None
    counts: Counts = Counts()
    elapsed_s: float = 0.0
    budget_s: float
    ratio: Interval | None = None
    replayed: bool = False


class Rates(Value):
    """Rates of best and default in samples/s, from the confirm runs."""

    best: float | None = None
    default: float | None = None


class MemorySummary(Value):
    """Device memory of the best configuration against its limit."""

    peak_bytes: int | None = None
    limit_bytes: int | None = None


class StudySummary(Value):
    """How a study ended; its JSON form is what `autotune tune --json` prints.

    Attributes:
        study: Name.
        decision_key: Key of the decision.
        outcome: What it came to.
        best: The configuration that was chosen.
        default: PyTorch's default at the same batch size.
        samples_per_s: Rates of both in the confirm runs.
        ratio: Best over default, paired.
        pairs: Pairs behind it.
        headroom: Distance from the bound.
        resolution_share: Smallest difference that the confirm runs could tell, as a share; None with too few.
        memory: Peak and limit.
        trials: Trials of the search.
        process_runs: Processes that measured, confirm runs and retries included.
        wall_s: Wall time of this run of the study.
        overhead_share: Share of `wall_s` outside build, warm-up and windows.
        batch_size_gain: What the batch size adds, apart from the ratio; None where not measured.
        break_even_epochs: Epochs after which build and fill time are won back; None without such cost.
        smaller: The smallest machine that keeps the consumer fed; None where that cannot be said.
        why: One or two sentences.
        notes: Further remarks, one sentence each.
    """

    study: str
    decision_key: str
    outcome: Outcome
    best: LoaderConfig
    default: LoaderConfig
    samples_per_s: Rates = Rates()
    ratio: Interval | None = None
    pairs: int = 0
    headroom: Headroom = Headroom()
    resolution_share: float | None = None
    memory: MemorySummary = MemorySummary()
    trials: Counts = Counts()
    process_runs: int = 0
    wall_s: float = 0.0
    overhead_share: float | None = None
    batch_size_gain: float | None = None
    break_even_epochs: float | None = None
    smaller: SmallerMachine | None = None
    why: str = ""
    notes: tuple[str, ...] = ()


class StudyEnded(Value):
    """A study ended.

    Attributes:
        run_key: Key of the study's run.
        summary: Its summary.
    """

    run_key: str
    summary: StudySummary


class StudyListener(Protocol):
    """Somebody who is told how a study goes.

    A listener that raises is logged and skipped for that event; it never stops the study.
    No call happens while a window is timed.
    """

    def on_start(self, event: StudyStarted) -> None:
        """Take note that a study begins or goes on."""

    def on_preparing(self, event: Preparing) -> None:
        """Take note of how far a preparation is."""

    def on_inspected(self, inspection: Inspection) -> None:
        """Take note of what was found out about dataset and machine."""

    def on_phase(self, event: PhaseStarted) -> None:
        """Take note that a phase begins."""

    def on_profile(self, profile: Profile) -> None:
        """Take note of what the probe found."""

    def on_trial(self, event: TrialFinished) -> None:
        """Take note of a trial that ended."""

    def on_decision(self, decision: Decision) -> None:
        """Take note of the decision."""

    def on_end(self, event: StudyEnded) -> None:
        """Take note of the end."""
