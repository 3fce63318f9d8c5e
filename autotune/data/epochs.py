"""The epoch that something random is drawn for, which loaders count until the caller sets it."""

from __future__ import annotations

from autotune.data.shared_memory import SharedNumbers

_NUMBER, _KEPT, _SLOTS = range(3)


class Epoch(SharedNumbers):
    """Number of the current epoch, seen by running workers however they were started; 0 at first."""

    def __init__(self) -> None:
        super().__init__(_SLOTS)

    @property
    def number(self) -> int:
        """The epoch."""
        return int(self.values[_NUMBER])

    def set(self, number: int) -> None:
        """Set the epoch as a caller does: passes of loaders leave it as it is."""
        self.values[_NUMBER] = number
        self.values[_KEPT] = 1

    def begin(self, number: int, *, steered: bool) -> bool:
        """Enter the epoch of a pass that begins, and tell whether it was entered.

        Args:
            number: The epoch.
            steered: Whether the caller set it where the pass begins, which wins over what was set here before.
        """
        if self.values[_KEPT] and not steered:
            return False
        self.values[_NUMBER] = number
        self.values[_KEPT] = 0
        return True


__all__ = ["Epoch"]
