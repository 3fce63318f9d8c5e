"""`Runs`: one place where configurations are measured, kept and told of, whatever the phase."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import cast

from autotune.spec import (
    Failure,
    Interval,
    LoaderConfig,
    PhaseStarted,
    Profile,
    TrialFinished,
    TrialRecord,
    TrialRequest,
)
from autotune.spec.events import StudyPhase
from autotune.study.ledger import Ledger
from autotune.study.setting import Setting
from autotune.trial import Records


@dataclass(frozen=True)
class Order:
    """A block that is to be measured.

    Attributes:
        phase: The part of the study that asks for it.
        configs: Its configurations, in their order.
        cpus: CPUs that each trial gets; None is all of its machine.
    """

    phase: StudyPhase
    configs: Sequence[LoaderConfig]
    cpus: int | None = None


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
        self._taken: set[str] = set()

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

    @property
    def capacity(self) -> int:
        """Machines that can measure now."""
        return self.setting.pool.capacity

    @property
    def hosts(self) -> frozenset[str]:
        """Machines that measured until now."""
        return frozenset(record.machine.host for record in self.records if record.machine is not None)

    def begin(self, phase: StudyPhase, note: str) -> None:
        """Tell that a phase begins."""
        self.setting.notify("on_phase", PhaseStarted(run_key=self.setting.run_key, phase=phase, note=note))

    def probe(self, batch_sizes: tuple[int, ...]) -> Profile | Failure:
        """Look at where time and memory go at some batch sizes, in a fresh process."""
        self._probes += 1
        request = self.setting.request(LoaderConfig.torch_default(batch_sizes[0]), phase="probe")
        return self.setting.pool.probe(request.replace(probe_batch_sizes=batch_sizes))

    def run(self, config: LoaderConfig, phase: StudyPhase, *, cpus: int | None = None) -> TrialRecord:
        """Measure a configuration outside the search, in a fresh process, with all CPUs or fewer; keep and tell it."""
        (block,) = self.blocks([Order(phase, [config], cpus)])
        return block[0]

    def blocks(
        self,
        orders: Iterable[Order],
        *,
        ratio: Callable[[], Interval | None] = lambda: None,
    ) -> Generator[list[TrialRecord], None, None]:
        """Measure blocks outside the search, each on one machine, as many at once as there are machines.

        Every record is kept and told once it is final. Closing the iterator waits for the blocks that have begun.

        Args:
            orders: The blocks; one is asked for when a machine is free for it.
            ratio: Gives the ratio that is told with a record.

        Yields:
            The records of each block, in the order of the blocks.
        """
        begun: deque[Future[Records]] = deque()

        def take(record: TrialRecord) -> None:
            self._take(record, ratio=ratio())

        def first() -> list[TrialRecord]:
            """Give the block that is next in order; it may have ended while the records of others were kept."""
            records = list(begun[0].result())
            for record in records:
                take(record)
            begun.popleft()
            return records

        try:
            for order in orders:
                begun.append(self.setting.pool.submit(self._requests(order), on_record=take))
                _wait(begun, take, at_most=self.capacity - 1)
                while begun and begun[0].done():
                    yield first()
            while begun:
                if begun[0].done():
                    yield first()
                else:
                    _wait(begun, take, at_most=max(0, sum(not future.done() for future in begun) - 1))
        except GeneratorExit:
            _wait(begun, take, at_most=0)
            raise
        except Exception:  # no machine is left, say
            _wait(begun, take, at_most=len(begun))
            raise

    def _requests(self, order: Order) -> list[TrialRequest]:
        request = self.setting.request
        return [request(config, phase=order.phase).replace(cpus=order.cpus) for config in order.configs]

    def _take(self, record: TrialRecord, *, ratio: Interval | None) -> None:
        """Keep and tell a record, once."""
        if record.key in self._taken:
            return
        self.setting.store.save_record(record)
        self._taken.add(record.key)
        self.records.append(record)
        self.tell(record, cast("StudyPhase", record.phase), ratio=ratio)

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


def _wait(begun: Collection[Future[Records]], take: Callable[[TrialRecord], None], *, at_most: int) -> None:
    """Wait until at most so many still run, and take the records of all that ended well."""
    while True:
        running = [future for future in begun if not future.done()]
        for future in begun:
            if future not in running and future.exception() is None:
                for record in future.result():
                    take(record)
        if len(running) <= at_most:
            return
        wait(running, return_when=FIRST_COMPLETED)
