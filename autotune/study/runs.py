"""`Runs`: one place where configurations are measured, kept and told of, whatever the phase."""

from __future__ import annotations

from autotune.spec import Failure, Interval, LoaderConfig, PhaseStarted, Profile, TrialFinished, TrialRecord
from autotune.spec.events import StudyPhase
from autotune.study.ledger import Ledger
from autotune.study.setting import Setting


class Runs:
    """Runs of one study, over all of its phases.

    Args:
        setting: The run of the study.
        ledger: What its search found.
        started: Clock reading at which it began.
    """

    def __init__(self, setting: Setting, ledger: Ledger, started: float) -> None:
        self.setting = setting
        self.ledger = ledger
        self.started = started
        self.records: list[TrialRecord] = []
        self._probes = 0

    def clock(self) -> float:
        """Give the clock's reading in seconds."""
        return self.setting.clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the study began."""
        return self.clock() - self.started

    @property
    def processes(self) -> int:
        """Processes that were spent until now."""
        return self._probes + sum(record.attempts for record in self.records)

    def begin(self, phase: StudyPhase, note: str) -> None:
        """Tell that a phase begins."""
        self.setting.notify("on_phase", PhaseStarted(run_key=self.setting.run_key, phase=phase, note=note))

    def probe(self, batch_sizes: tuple[int, ...]) -> Profile | Failure:
        """Look at where time and memory go at some batch sizes, in a fresh process."""
        self._probes += 1
        request = self.setting.request(LoaderConfig.torch_default(batch_sizes[0]), phase="probe")
        return self.setting.runner.probe(request.replace(probe_batch_sizes=batch_sizes))

    def run(
        self, config: LoaderConfig, phase: StudyPhase, *, ratio: Interval | None = None, cpus: int | None = None
    ) -> TrialRecord:
        """Measure a configuration outside the search, in a fresh process, with all CPUs or fewer; keep and tell it."""
        record = self.setting.runner.run(self.setting.request(config, phase=phase).replace(cpus=cpus))
        self.setting.store.save_record(record)
        self.records.append(record)
        self.tell(record, phase, ratio=ratio)
        return record

    def tell(self, record: TrialRecord, phase: StudyPhase, *, ratio: Interval | None = None) -> None:
        """Tell the listeners of a finished trial."""
        event = TrialFinished(
            run_key=self.setting.run_key,
            phase=phase,
            record=record,
            best=self.ledger.best(),
            counts=self.ledger.counts(),
            elapsed_s=self.elapsed_s,
            budget_s=self.setting.spec.budget.time_s,
            ratio=ratio,
        )
        self.setting.notify("on_trial", event)
