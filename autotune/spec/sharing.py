"""What travels between the driver of a shared study and the machines that measure for it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from autotune.spec.base import Value
from autotune.spec.facts import Inspection
from autotune.spec.measurement import Failure
from autotune.spec.profile import Profile
from autotune.spec.record import TrialRecord, TrialRequest, new_key
from autotune.spec.study import StudySpec

OrderTask = Literal["run", "probe"]


class SharedStudy(Value):
    """A study that many machines measure for.

    Attributes:
        name: Name of the study.
        run: Key of this run of it; each start of a driver begins another one.
        spec: The study as its driver reads it.
        ended: Whether this run came to its decisions.
        driven: Whether a driver holds the study now.
    """

    name: str
    run: str
    spec: StudySpec
    ended: bool = False
    driven: bool = False


class StudyMachine(Value):
    """A machine that has joined a run of a shared study.

    Attributes:
        key: Unique key of the worker there.
        study: Name of the study.
        run: The run that it joined.
        holder: Host and process, for people.
        inspection: What it found out about itself and the dataset.
    """

    key: str = Field(default_factory=new_key)
    study: str
    run: str
    holder: str
    inspection: Inspection

    @property
    def machine_class(self) -> str:
        """Class of the machine."""
        return self.inspection.machine.machine_class


class TrialOrder(Value):
    """Requests that one machine measures, one after another.

    Attributes:
        key: Unique key.
        task: Whether they are run, or one is probed.
        requests: In the order in which they are measured.
    """

    key: str = Field(default_factory=new_key)
    task: OrderTask = "run"
    requests: tuple[TrialRequest, ...] = Field(min_length=1)


class TrialClaim(Value):
    """The right of one worker to answer an order, until somebody else has taken it over.

    Attributes:
        order: The order.
        token: Grows with each change of hands; an answer under an older token is refused.
        worker: Key of the worker.
    """

    order: TrialOrder
    token: int = Field(ge=1)
    worker: str


class OrderAnswer(Value):
    """What an order came to: a record for each request, or what a probe found.

    Attributes:
        records: In the order of the requests.
        profile: What a probe found.
        failure: Why a probe found nothing.
    """

    records: tuple[TrialRecord, ...] = ()
    profile: Profile | None = None
    failure: Failure | None = None

    @model_validator(mode="after")
    def _check_one(self) -> Self:
        if sum((bool(self.records), self.profile is not None, self.failure is not None)) != 1:
            raise ValueError("an answer has records, a profile or a failure, exactly one of them")
        return self
