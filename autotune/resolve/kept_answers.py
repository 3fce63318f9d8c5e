"""The last answers of the service, kept in the home folder for the time when it does not answer."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from autotune.errors import SpecError
from autotune.resolve.question import Question
from autotune.resolve.resolution import Resolution

_LOG = logging.getLogger(__name__)

FOLDER = "answers"
"""Name of the folder in the home folder."""
KEPT_MAX = 512
"""Answers that are kept, of about 3 kB each: a machine that trains asks few questions."""


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """An answer that the service gave before.

    Attributes:
        resolution: The answer.
        etag: The service's tag of it; None where it gave none.
        age_s: Seconds since the service last gave or confirmed it; never negative, whatever clocks do.
    """

    resolution: Resolution
    etag: str | None
    age_s: float


class KeptAnswers:
    """Keeps one file a question; whatever is wrong with the folder, training goes on without it.

    Args:
        home: Home folder.
        service: Address of the service: each one's answers are kept apart.
    """

    def __init__(self, home: Path, service: str) -> None:
        self._folder = home / FOLDER
        self._service = service

    def find(self, question: Question, *, now_s: float) -> KeptAnswer | None:
        """Give the last answer to a question; None where there is none that can be read.

        Args:
            question: The question, as it is sent.
            now_s: Time in seconds since 1970.
        """
        try:
            document = json.loads(self._file(question).read_text())
            etag, at_s = document["etag"], float(document["at_s"])
            resolution = Resolution.from_json(json.dumps(document["resolution"]))
        except (OSError, ValueError, KeyError, TypeError, SpecError) as error:
            if not isinstance(error, FileNotFoundError):
                _LOG.info("the last answer of %s cannot be read: %s", self._service, error)
            return None
        tag = etag if isinstance(etag, str) and etag.isascii() and etag.isprintable() else None
        return KeptAnswer(resolution=resolution, etag=tag, age_s=max(0.0, now_s - at_s))

    def keep(self, question: Question, resolution: Resolution, *, etag: str | None, now_s: float) -> None:
        """Keep an answer in place of the one before; what is read at the same time is the one or the other."""
        document = {"etag": etag, "at_s": now_s, "resolution": json.loads(resolution.to_json())}
        file = self._file(question)
        written = file.with_suffix(f".{os.getpid()}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            written.write_text(json.dumps(document))
            written.replace(file)
            self._prune()
        except OSError as error:
            _LOG.info("the answer of %s cannot be kept: %s", self._service, error)
            with suppress(OSError):
                written.unlink(missing_ok=True)

    def _file(self, question: Question) -> Path:
        text = f"{self._service}\n{question.to_json()}"
        return self._folder / f"{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:32]}.json"

    def _prune(self) -> None:
        """Remove the oldest answers where there are too many."""
        files = list(self._folder.glob("*.json"))
        if len(files) > KEPT_MAX:
            for file in sorted(files, key=lambda each: each.stat().st_mtime)[: len(files) - KEPT_MAX]:
                file.unlink(missing_ok=True)
