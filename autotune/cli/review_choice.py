"""Which decision words on the command line mean: the start of a key, or the name of a study as it was seen.

Of a study another decision may wait, or be deployed, than the person saw: so its name needs the version beside it. What
a key meant, and means no more, is left to the registry, which says who decided what meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence

from autotune.errors import SpecError
from autotune.registry import SAFE_DEFAULT, Registry
from autotune.spec import Decision, Deployment

Seen = tuple[str, int]
"""Key of a decision, and the version of the deployment beside it."""


def waiting(registry: Registry, word: str, version: int | None) -> Seen:
    """Give the waiting decision that a word means.

    Args:
        registry: The registry.
        word: Start of a key, or name of a study.
        version: Version of the deployment that was seen; None is the present one.

    Raises:
        SpecError: It means none, or several, or a name came without a version.
    """
    found = [(one.decision, one.deployment.version) for one in registry.waiting()]
    return _seen(registry, word, version, found, what="decision that waits")


def deployed(registry: Registry, word: str, version: int | None) -> Seen:
    """Give the deployed decision that a word means; arguments and errors are those of `waiting`."""
    found = [(one.decision, one.version) for one in registry.deployments() if one.decision is not None]
    return _seen(registry, word, version, found, what="decision that is deployed")


def served(registry: Registry, word: str, version: int | None) -> Seen:
    """Give the decision that a word means among those that pins are about; arguments and errors are as above.

    Besides those that are deployed these are the ones that stand for PyTorch's default.
    """
    deployments = registry.deployments()
    keys = stand_ins(registry, deployments)
    decisions = {one.key: one for one in registry.decisions_of(keys.values())}
    known = ((one.decision or decisions.get(keys.get(one.group, "")), one.version) for one in deployments)
    found = [(decision, now) for decision, now in known if decision is not None]
    return _seen(registry, word, version, found, what="decision that is deployed, or stands for the default")


def stand_ins(registry: Registry, deployments: Sequence[Deployment]) -> dict[str, str]:
    """Give the decisions that stand for PyTorch's default, by the groups that deploy nothing: what waits does not."""
    idle = {one.group for one in deployments if one.decision is None}
    waiting = {one.decision.key for one in registry.waiting()} if idle else set()
    events = registry.events() if idle else []
    past = [one for one in events if one.group in idle and one.decision_key not in waiting]
    return {one.group: one.decision_key for one in reversed(past)}  # of each the newest


def earlier(registry: Registry, key: str, word: str) -> str:
    """Give the key of the decision of the same study that a word is the start of; `default` is no decision.

    Raises:
        SpecError: It means none, or several.
    """
    if word == SAFE_DEFAULT:
        return SAFE_DEFAULT
    decision = registry.decision(key)
    found = [] if decision is None else registry.decisions(decision.study)
    return _single(word, found, what="decision of this study")


def _seen(
    registry: Registry, word: str, version: int | None, found: Sequence[tuple[Decision, int]], *, what: str
) -> Seen:
    if version is None and word in registry.studies():
        raise SpecError(
            "the name of a study needs the version that was seen, as another decision may be meant by now, "
            f"got {word!r} alone; give --version too, or the start of a key instead: autotune review list shows both"
        )
    decisions = [decision for decision, _ in found]
    past = None if _matching(word, decisions) else _past(registry, word)
    if past is not None:
        return past, registry.deployment_of(past).version if version is None else version
    key = _single(word, decisions, what=what)
    present = next(now for one, now in found if one.key == key)
    return key, present if version is None else version


def _past(registry: Registry, word: str) -> str | None:
    """Give the key of what a word meant once, the newest of a study; None where that is nothing, or several."""
    of_study = registry.events(word, limit=1) if word else []
    if of_study:
        return of_study[0].decision_key
    keys = {event.decision_key for event in registry.events() if word and event.decision_key.startswith(word)}
    return keys.pop() if len(keys) == 1 else None


def _matching(word: str, decisions: Sequence[Decision]) -> list[str]:
    return [one.key for one in decisions if word and (one.key.startswith(word) or one.study == word)]


def _single(word: str, decisions: Sequence[Decision], *, what: str) -> str:
    keys = _matching(word, decisions)
    if len(keys) == 1:
        return keys[0]
    shown = ", ".join(f"{one.key[:8]} ({one.study})" for one in decisions if not keys or one.key in keys) or "none"
    raise SpecError(f"{word!r} must mean one {what}, got {len(keys)}; there are: {shown}")
