"""Every exception that autotune raises on purpose.

```
AutotuneError
├── SpecError            a value breaks a rule (also a ValueError)
│   ├── StudyFileError   the same, with file and line
│   └── FactoryError     a dotted path names nothing that can be called
├── DatasetError         the user's dataset cannot be built, read or trusted
│   └── SampleError      one sample cannot be read; carries its path
├── ArchiveError         an archive or cache cannot be built or used
│   ├── ArchiveMissingError   it was never built, or was removed
│   ├── ArchiveDamagedError   stored bytes fail their check
│   └── ArchiveStaleError     the source changed since the archive was built
├── RandomSamplesError   random samples were about to be stored
├── CapacityError        something does not fit; carries needed and available bytes
├── RegistryError        the registry is missing, damaged or locked
│   ├── StorageMixedError   two programs were pointed at one database
│   └── LeaseLostError   a lease was lost, so that what is written under it is refused
├── ConflictError        somebody else decided meanwhile; says who, what and when
├── MachineBusyError     another tuning job holds this machine
├── MachineLostError     one of several machines is gone; its trial is measured on another
├── NoMachineError       none of several machines is left to measure on
├── TrialServerError     the trial server cannot be started or reached
├── NonFiniteLossError   a loss of training is NaN or infinite; carries epoch, batch and learning rate
├── CheckpointError      a checkpoint of a training cannot be written, read or continued from
└── MissingExtraError    an optional dependency is not installed
```

A configuration that does not work is not an exception but a `autotune.spec.Failure`.
"""

from __future__ import annotations


class AutotuneError(Exception):
    """Base of everything that autotune raises on purpose."""


class SpecError(AutotuneError, ValueError):
    """A value breaks a rule; the message gives the rule, the value and the way out."""


class StudyFileError(SpecError):
    """A study file breaks a rule; the message starts with `file:line: key`."""


class FactoryError(SpecError):
    """A dotted path names nothing that can be called."""


class DatasetError(AutotuneError):
    """The user's dataset cannot be built, read or trusted."""


class SampleError(DatasetError):
    """One sample cannot be read.

    Args:
        message: What went wrong.
        path: The file behind the sample, where there is one.
    """

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(message if path is None or path in message else f"{path}: {message}")
        self.message = message
        self.path = path

    def __reduce__(self) -> tuple[type[SampleError], tuple[str, str | None]]:
        """Pickle with both arguments, as workers hand their exceptions to the parent."""
        return type(self), (self.message, self.path)


class ArchiveError(AutotuneError):
    """An archive or cache cannot be built or used."""


class ArchiveMissingError(ArchiveError):
    """There is no such archive: it was never built, or was removed."""


class ArchiveDamagedError(ArchiveError):
    """Stored bytes fail their check; the archive must not be read."""


class ArchiveStaleError(ArchiveError):
    """The source has changed since the archive was built."""


class RandomSamplesError(AutotuneError):
    """A dataset gives random samples, so storing them would freeze them."""


class CapacityError(AutotuneError):
    """Something does not fit into memory or onto disk.

    Args:
        message: What does not fit.
        needed_bytes: How much it needs; 0 is unknown.
        available_bytes: How much there is.
    """

    def __init__(self, message: str, needed_bytes: int = 0, available_bytes: int = 0) -> None:
        # the defaults let torch rebuild it from its message alone when it comes out of a loader's worker
        super().__init__(message)
        self.message = message
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes

    def __reduce__(self) -> tuple[type[CapacityError], tuple[str, int, int]]:
        """Pickle with all arguments, as workers hand their exceptions to the parent."""
        return type(self), (self.message, self.needed_bytes, self.available_bytes)


class RegistryError(AutotuneError):
    """The registry is missing, damaged or locked."""


class StorageMixedError(RegistryError):
    """Two programs that both own a table `alembic_version` were pointed at one database."""


class LeaseLostError(RegistryError):
    """A lease has expired or changed hands, so that nothing is written under it any more."""


class ConflictError(AutotuneError):
    """Somebody else decided meanwhile; the message says who, what and when."""


class MachineBusyError(AutotuneError):
    """Another tuning job holds this machine; the message names it."""


class MachineLostError(AutotuneError):
    """One of several machines is gone, or cannot be reached any more; its trial is measured on another."""


class NoMachineError(AutotuneError):
    """None of several machines is left to measure on, or there never was one; the message says why."""


class TrialServerError(AutotuneError):
    """The trial server cannot be started or reached."""


class NonFiniteLossError(AutotuneError):
    """A loss of training is NaN or infinite, so no update can follow from it.

    Args:
        message: What happened, and what helps.
        epoch: Epoch, counted from 0.
        batch: Batch of the epoch, counted from 0.
        learning_rate: Learning rate of the update that would have followed.
    """

    def __init__(self, message: str, *, epoch: int, batch: int, learning_rate: float) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.batch = batch
        self.learning_rate = learning_rate


class CheckpointError(AutotuneError):
    """A checkpoint of a training cannot be written, read or continued from."""


class MissingExtraError(AutotuneError, ImportError):
    """An optional dependency is not installed; the message names the extra."""
