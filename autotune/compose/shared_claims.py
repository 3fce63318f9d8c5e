"""Measuring one order under a claim that is kept alive meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from autotune.compose.sharing_times import SharingTimes
from autotune.errors import AutotuneError, RegistryError
from autotune.registry import Registry
from autotune.spec import Failure, OrderAnswer, TrialClaim, TrialRequest
from autotune.trial import TrialRunner

_LOG = logging.getLogger(__name__)
_LAST_RENEWAL_S = 1.0


@contextmanager
def claim_kept(registry: Registry, claim: TrialClaim, times: SharingTimes) -> Iterator[None]:
    """Renew a claim while the block runs, and give the order back at once where the block fails.

    The renewals come from a thread, and take milliseconds each. Where they fail the block goes on: whether somebody
    else has taken the order over shows when it is answered.
    """
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(registry, claim, ended, times), daemon=True)
    renewing.start()
    try:
        yield
    except BaseException:
        ended.set()
        with suppress(AutotuneError):  # it expires by itself
            registry.give_back(claim)
        raise
    finally:
        ended.set()
        renewing.join(_LAST_RENEWAL_S)


def answered(runner: TrialRunner, claim: TrialClaim, requests: tuple[TrialRequest, ...]) -> OrderAnswer:
    """Measure what an order asks for.

    Args:
        runner: Measures here.
        claim: The claim.
        requests: Its order's requests, as this machine accepts them.
    """
    if claim.order.task == "run":
        return OrderAnswer(records=tuple(runner.run(request) for request in requests))
    found = runner.probe(requests[0])
    return OrderAnswer(failure=found) if isinstance(found, Failure) else OrderAnswer(profile=found)


def _renew(registry: Registry, claim: TrialClaim, ended: threading.Event, times: SharingTimes) -> None:
    while not ended.wait(times.renewed_every_s):
        try:
            if not registry.renew_claim(claim, times.claim_s):
                return
        except RegistryError as error:
            _LOG.warning("the claim of an order could not be renewed, which is tried again: %s", error)
