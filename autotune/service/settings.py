"""What an operator decides about the service, and the figures that nobody has asked to change."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_PORT = 8642
"""Port of the service; the dashboard's is the next one."""
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
"""Names under which the machine itself reaches the service."""
DEFAULT_RATE = "120000/minute"
"""Requests of one token: four times what 16 clients are promised to get, so that only a program gone wild meets it."""

STUDY_ENDINGS = (".yaml", ".yml")
"""Endings of the study files of a folder."""
FAILED_LOGINS = "60/minute"
"""Requests of one address without a token that opens: guesses at 256 bits are hopeless, this keeps the log readable."""
DEFAULT_CHANGES = "60/minute"
"""Changes that one token may ask for: people and nightly jobs stay far below."""
BODY_LIMIT_BYTES = 64 * 1024
"""Largest body: what is sent is a name or a reason."""
QUESTION_LIMIT = 32 * 1024
"""Characters of a question: the declared structure of samples is the longest part, and has some hundred."""
CONNECTIONS_LIMIT = 512
"""Connections at a time; more are answered 503 rather than let memory grow."""
ADDRESS_CONNECTIONS_LIMIT = CONNECTIONS_LIMIT // 2
"""Connections of one address at a time: no single machine keeps the others out, and a proxy before the service, which
all clients come through, has enough of them."""
CLIENT_LIMIT_S = 30.0
"""Longest time that a client may take for its whole request, and for reading so much of an answer:"""
READ_LEAST_BYTES = 64 * 1024
"""A line that is slower than this in that time is as good as none; pages and the script that draws have megabytes."""

REFRESH_S = 0.5
"""How long the service goes by what it last read of tokens and deployments."""
HONOURED_S = 60.0
"""How long it goes by that while the registry cannot be read: from then on nobody knows who was let in."""
PAUSE_S = 1.0
"""Pause after a failed look at the registry, so that requests do not wait one by one for what is away."""
LOOK_LIMIT_S = 1.0
"""Longest wait of a request for the look at the registry."""
WORK_LIMIT_S = 5.0
"""Longest wait for an answer from the registry; then it is 503, and the client has its own way out."""
ANSWER_AGE_S = 60.0
"""How long an answer is kept: measured records, which pinned fields are answered by, come without an event, and of two
decisions at the same moment PostgreSQL may show the one with the higher number first."""
ANSWERS_LIMIT = 4096
"""Answers that are kept, of about 3 kB each."""
PAGE_LIMIT_S = 30.0
"""Longest wait for a page: people wait longer than programs, and the first figures of a process load plotly."""
PAGE_THREADS = 2
"""Threads that put pages together, so that they take the registry's from nobody who trains."""
THREADS = 4
"""Threads that talk to the registry: what they do is mostly Python, so more of them only hold up kept answers."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator decides.

    Attributes:
        allowed_hosts: Names and addresses under which clients reach the service, without ports.
        studies: Folder of study files that may be queued; None queues none.
        rate: Most requests of one token, such as `120000/minute`.
        changes: Most of them that may change something: queue a study, decide.
        service_url: Address under which people reach the service; None where it is only known here.
        mlflow_url: Address under which people reach MLflow; None links to nothing.
        signing_key: What the cookies of logins are signed with; one that is drawn ends them with the process.
    """

    allowed_hosts: tuple[str, ...] = LOOPBACK_HOSTS
    studies: Path | None = None
    rate: str = DEFAULT_RATE
    changes: str = DEFAULT_CHANGES
    service_url: str | None = None
    mlflow_url: str | None = None
    signing_key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def is_secure(self) -> bool:
        """Whether people reach the service over TLS, as by a proxy before it."""
        return (self.service_url or "").startswith("https://")

    def study_files(self) -> Mapping[str, Path]:
        """Give the study files that may be queued, by their names without ending, as they are now."""
        if self.studies is None:
            return {}
        files = (path for path in sorted(self.studies.glob("*")) if path.suffix in STUDY_ENDINGS and path.is_file())
        return {path.stem: path for path in files}
