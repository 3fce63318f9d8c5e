"""`ReplayRunner`: answers from recorded rates instead of measuring; the fake that tests of studies use."""

from __future__ import annotations

from autotune.constants import RETRY_LIMIT, SEARCH_TIME_CAP_S
from autotune.spec import (
    Failure,
    Inspection,
    Interval,
    LoaderConfig,
    Measurement,
    MemoryUse,
    Profile,
    TrialRecord,
    TrialRequest,
    Window,
)
from autotune.trial.landscape import Landscape, RecordedConfig
from autotune.trial.noise import Noise, NoiseSource

_WINDOWS = 4
"""Windows that an answer pretends to have, all at its rate."""


class ReplayRunner:
    """Answers requests from a landscape; a `autotune.trial.TrialRunner`.

    All of it follows from the seed and the order of the requests. The clock is that of the recording: each
    answer takes the wall time of a trial there, and the first one of each archive its build, too.

    Args:
        landscape: The recorded rates.
        seed: Seed of the noise.
        noise: What is done to the rates; None leaves the noise of the recording.
        host: Name of the machine that answers; None is that of the recording.
        speed: Rates of this machine over those of the recording.
    """

    def __init__(
        self,
        landscape: Landscape,
        *,
        seed: int = 0,
        noise: Noise | None = None,
        host: str | None = None,
        speed: float = 1.0,
    ) -> None:
        self.runs = 0
        self.elapsed_s = 0.0
        self._landscape = landscape
        self._noise = NoiseSource(noise or Noise(), landscape.residuals, seed=seed)
        self._built: set[tuple[str, str | None]] = set()
        self._machine = landscape.inspection.machine.replace(**({} if host is None else {"host": host}))
        self._speed = speed

    def run(self, request: TrialRequest) -> TrialRecord:
        """Answer with the configuration's rate as the noise has it; an unknown one is `invalid`."""
        self.runs += 1
        entry = self._landscape.entry(request.config)
        failure = self._unknown(request.config) if entry is None else entry.failure
        if request.cpus is not None:
            message = f"a replay knows runs with all CPUs, got a request for {request.cpus}; measure on the machine"
            failure = Failure(kind="invalid", phase="start", message=message)
        measurement = None
        if entry is not None and failure is None:
            rate, factor = entry.truth, self._noise.factor()
            if rate is None or factor is None:
                failure = Failure(kind="senseless", phase="report", message=f"a rate is above 0, got {entry.rates}")
            else:
                measurement = self._measurement(request, entry, rate * factor * self._speed)
        wall_s = self._wall_s(entry, measurement)
        self.elapsed_s += wall_s
        return TrialRecord(
            key=request.key,
            study=request.study,
            number=request.number,
            phase=request.phase,
            workload=request.workload,
            config=request.config,
            measurement=measurement,
            failure=failure,
            machine=self._machine,
            dataset=self._landscape.inspection.dataset,
            wall_s=wall_s,
            attempts=1 + RETRY_LIMIT if failure is not None and failure.retryable else 1,
        )

    def inspect(self, request: TrialRequest) -> Inspection | Failure:  # noqa: ARG002 - the protocol's
        """Answer with dataset and machine of the recording."""
        return self._landscape.inspection.replace(machine=self._machine)

    def probe(self, request: TrialRequest) -> Profile | Failure:  # noqa: ARG002 - the protocol's
        """Answer with the profile of the recording, or that there was none."""
        if self._landscape.profile is None:
            return Failure(
                kind="invalid", phase="start", message=f"{self._landscape.name} was recorded without a probe"
            )
        self.elapsed_s += self._landscape.profile.wall_s
        return self._landscape.profile.replace(host=self._machine.host)

    def close(self) -> None:
        """Do nothing: nothing was started."""

    def clock(self) -> float:
        """Give the seconds that the recorded trials took, one after another."""
        return self.elapsed_s

    def _unknown(self, config: LoaderConfig) -> Failure:
        known = len(self._landscape.entries)
        message = f"a replay knows {known} recorded configurations, got another one: {config.label()}"
        return Failure(kind="invalid", phase="start", message=message)

    def _wall_s(self, entry: RecordedConfig | None, measurement: Measurement | None) -> float:
        if entry is None:
            return 0.0
        form = (entry.config.archive, entry.config.stored)
        if measurement is None or measurement.archive is None or form in self._built:
            return entry.wall_s
        self._built.add(form)
        return entry.wall_s + measurement.archive.build_s

    def _measurement(self, request: TrialRequest, entry: RecordedConfig, rate: float) -> Measurement:
        seconds = (self._landscape.time_cap_s or SEARCH_TIME_CAP_S) / _WINDOWS
        samples = max(1, round(rate * seconds))
        batches = max(1, samples // request.config.batch_size)
        waiting = entry.example.data_wait_share if entry.example else 0.0
        wait_s = waiting * samples / rate
        window = Window(seconds=samples / rate, samples=samples, batches=batches, wait_s=wait_s)
        answered = {
            "samples_per_s": rate,
            "steady": Interval(mean=rate, low=rate, high=rate),
            "windows": (window,) * _WINDOWS,
            "seed": request.workload.seed,
        }
        if entry.example is not None:
            return entry.example.replace(**answered)
        return Measurement(
            **answered,
            whole_epochs=False,
            epoch_samples=self._landscape.inspection.dataset.length or samples,
            wait_p50_s=0.0,
            wait_p95_s=0.0,
            data_wait_share=0.0,
            stopped="time_cap",
            memory=MemoryUse(device_limit_bytes=self._landscape.limit_bytes),
        )
