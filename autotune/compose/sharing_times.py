"""How long the parts of a shared study wait for each other."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.constants import (
    CLAIM_RENEWED_SHARE,
    CLAIM_S,
    MACHINES_AWAITED_S,
    ORDER_POLL_S,
    STUDY_LOOKED_AT_EVERY_S,
)


@dataclass(frozen=True, kw_only=True)
class SharingTimes:
    """How long the parts of a shared study wait for each other, in seconds.

    Attributes:
        claim_s: Life of a worker's claim on an order, and of its presence, by the database's clock.
        poll_s: Time between two looks at the registry.
        awaited_s: How long a driver waits for a machine that can measure.
    """

    claim_s: float = CLAIM_S
    poll_s: float = ORDER_POLL_S
    awaited_s: float = MACHINES_AWAITED_S

    @property
    def renewed_every_s(self) -> float:
        """Time between two renewals of a claim."""
        return CLAIM_RENEWED_SHARE * self.claim_s

    @property
    def looked_every_s(self) -> float:
        """Time after which an idle machine says that it is there, and looks whether the study goes on."""
        return min(STUDY_LOOKED_AT_EVERY_S, self.renewed_every_s)
