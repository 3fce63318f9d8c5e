"""Asking the service over HTTP, for a bounded time; then its last answer counts, and then the safe default."""

from __future__ import annotations

import json
import logging
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path

from autotune.errors import RegistryError
from autotune.resolve.exchange import ExchangeError, Reply, get
from autotune.resolve.kept_answers import KeptAnswer, KeptAnswers
from autotune.resolve.question import Question
from autotune.resolve.resolution import Resolution, warn_caller
from autotune.service_address import URL_VARIABLE
from autotune.spec import Decision
from autotune.units import format_seconds

_LOG = logging.getLogger(__name__)

TOKEN_VARIABLE = "AUTOTUNE_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable with the token that it is asked with."""
ASK_S = 2.0
"""Longest time that all questions of one `best_loader` take together: an answer takes milliseconds, and a training
job that waits longer for advice on how to load faster has lost more than most advice brings."""

_ADDRESS = re.compile(r"https?://[\x21-\x7e]+")
_TOKEN = re.compile(r"[\x21-\x7e]{1,512}")
_DETAIL_MAX = 200
_WORKERS_PER_CPU_MAX = 32
"""No study comes near it: its range goes to twice the CPUs, and what was fastest with so many is served."""
_FIELDS = frozenset({"schema_version", *Resolution.model_fields})


class Remote:
    """A service, as one call of `best_loader` or `best_config` asks it.

    Once it has failed it is not asked again, and all questions together take at most `ASK_S`.

    Args:
        address: Where the service is, such as `http://tuner:8642`.
        token: The token; None asks without one, and is refused.
        ask_s: Longest time of all questions together, in seconds.
        clock: Time in seconds since 1970, by which answers get old.
    """

    def __init__(
        self, address: str, token: str | None, *, ask_s: float = ASK_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._address = address.strip().rstrip("/")
        self._token = token.strip() if token else None
        self._left_s = ask_s
        self._clock = clock
        self._failed: str | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Remote | None:
        """Give the service that the environment names; None where it names none."""
        address = environ.get(URL_VARIABLE, "").strip()
        return cls(address, environ.get(TOKEN_VARIABLE)) if address else None

    def answer(self, question: Question, *, home: Path) -> Resolution:
        """Answer by the service, else by its last answer; warns with `AutotuneWarning` where it is the last one.

        Args:
            question: The question.
            home: Home folder, where answers are kept.

        Raises:
            RegistryError: The service gave no answer, and there is none from before.
        """
        sent = question.sendable()
        kept = KeptAnswers(home, self._address)
        before = kept.find(sent, now_s=self._clock())
        if before is not None and misfit(before.resolution, sent) is not None:
            before = None
        try:
            found, etag = self._ask(sent, before)
        except _NoAnswerError as error:
            if before is None:
                raise RegistryError(f"the service {self.place} cannot be used: {error}") from None
            return self._last(before, str(error))
        kept.keep(sent, found, etag=etag, now_s=self._clock())
        return found

    @property
    def place(self) -> str:
        """Where the service is, without a password that an address may hold."""
        return self._address.rpartition("@")[2]

    def decision(self, key: str) -> Decision | None:
        """Give the decision with this key; None where the service does not tell."""
        try:
            reply = self._get(f"/v1/decisions/{urllib.parse.quote(key, safe='')}")
            return Decision.model_validate(json.loads(reply.body)["decision"]) if reply.status == 200 else None
        except (_NoAnswerError, ValueError, KeyError, TypeError, RecursionError) as error:
            _LOG.info("the service %s does not tell of decision %s: %s", self.place, key, error)
            return None

    def _ask(self, question: Question, before: KeptAnswer | None) -> tuple[Resolution, str | None]:
        known = {} if before is None or before.etag is None else {"If-None-Match": before.etag}
        query = urllib.parse.urlencode({"question": question.to_json()})
        try:
            reply = self._get(f"/v1/best?{query}", known)
            return _answered(reply, question, before)
        except _NoAnswerError as error:
            self._failed = str(error)
            raise

    def _get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        """Send a request within the time that is left, unless one has failed before."""
        if self._failed is not None:
            raise _NoAnswerError(self._failed)
        address, authorization = self._checked_address(), self._authorization()
        started = time.monotonic()
        try:
            return get(
                f"{address}{path}",
                headers={"Accept": "application/json", **(headers or {}), **authorization},
                timeout_s=self._left_s,
            )
        except ExchangeError as error:
            raise _NoAnswerError(str(error)) from error
        finally:
            self._left_s = max(0.0, self._left_s - (time.monotonic() - started))

    def _checked_address(self) -> str:
        if not _ADDRESS.fullmatch(self._address):
            raise _NoAnswerError(f"{URL_VARIABLE} must be an address such as http://tuner:8642")
        return self._address

    def _authorization(self) -> dict[str, str]:
        if self._token is None:
            return {}
        if not _TOKEN.fullmatch(self._token):
            raise _NoAnswerError(f"{TOKEN_VARIABLE} holds no token; `autotune token create` prints one")
        return {"Authorization": f"Bearer {self._token}"}

    def _last(self, before: KeptAnswer, failure: str) -> Resolution:
        age = format_seconds(before.age_s)
        reason = f"the service {self.place} cannot be used ({failure}); this is its last answer, {age} old"
        warn_caller(f"{reason}. Going on with it.")
        resolution = before.resolution
        return resolution.replace(why=(*resolution.why, reason))


class _NoAnswerError(Exception):
    """The service gave no answer that can be used; the message says why, and never holds the token."""


def _answered(reply: Reply, question: Question, before: KeptAnswer | None) -> tuple[Resolution, str | None]:
    """Read the answer and its tag, or find that the one from before still holds."""
    if reply.status == 304 and before is not None:
        return before.resolution, before.etag
    if reply.status != 200:
        raise _NoAnswerError(_refusal(reply))
    resolution = _read(reply.body)
    wrong = misfit(resolution, question)
    if wrong is not None:
        raise _NoAnswerError(f"its answer is to another question: {wrong}")
    return resolution, reply.etag


def misfit(resolution: Resolution, question: Question) -> str | None:
    """Say why a configuration cannot be an answer to a question, as it is sent; None where it can be.

    The resolver keeps to this wherever it runs. What breaks it comes from something else, and might start a thousand
    workers.
    """
    config = resolution.config
    for name, value in question.pins.items():
        if getattr(config, name) != value:
            return f"{name} is {getattr(config, name)!r}, and {value!r} was asked for"
    if "num_workers" not in question.pins and config.num_workers > _workers_max(resolution, question):
        return f"{config.num_workers} workers for {question.machine.cpu_count} CPUs"
    if config.order == "streaming" and not question.streams:
        return "samples in another order than was asked for"
    if (resolution.ranks_on_node, resolution.world_size) != (question.ranks_on_node, 1):
        return f"{resolution.ranks_on_node} processes on the machine, which has {question.ranks_on_node}"
    return None


def _workers_max(resolution: Resolution, question: Question) -> int:
    """Give the most workers: those of the CPUs, unless more were measured for a process that is alone."""
    cpus = question.machine.cpu_count
    measured = resolution.decision_key is not None and question.ranks_on_node == 1
    return cpus * _WORKERS_PER_CPU_MAX if measured else cpus


def _read(body: bytes) -> Resolution:
    """Read an answer; fields that a newer service may add are left out.

    Raises:
        _NoAnswerError: It is none.
    """
    try:
        document = json.loads(body)
        known = {name: document[name] for name in document if name in _FIELDS}
        return Resolution.from_json(json.dumps(known))
    except (ValueError, TypeError, RecursionError) as error:
        told = str(error).partition("\n")[0][:_DETAIL_MAX]
        raise _NoAnswerError(f"what it answered is no configuration: {told}") from error


def _refusal(reply: Reply) -> str:
    """Say what the service refused and why, as far as it told."""
    try:
        detail = json.loads(reply.body)["detail"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"it answered with status {reply.status}"
    told = " ".join(str(detail).split())[:_DETAIL_MAX]
    return f"it answered with status {reply.status}: {told}"
