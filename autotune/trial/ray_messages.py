"""What driver and nodes of a Ray cluster send each other, beside requests."""

from __future__ import annotations

from autotune.spec import Failure, Inspection, Profile, TrialRecord, Value


class NodeOrder(Value):
    """Driver to node, before the first request.

    Attributes:
        version: Version of autotune that the driver has.
        purpose: What the machine is held for.
        home: Folder of archives and caches that the driver was told to use; None is the node's own.
        folder: The driver's current folder, which is taken where it is there.
        sys_path: The driver's import path, of which the node takes what it has behind its own.
        emulated_node: Name of the node where those of one host count as machines of their own; None where it does not.
    """

    version: str
    purpose: str
    home: str | None = None
    folder: str
    sys_path: tuple[str, ...] = ()
    emulated_node: str | None = None


class NodeAnswer(Value):
    """Node to driver: what came of a call, or why nothing did.

    Attributes:
        record: What became of a request.
        inspection: What is known of dataset and machine.
        profile: Where time and memory go.
        failure: Why there is no inspection or profile.
        refusal: Why the node does not take part.
        busy: Who holds the machine.
        no_server: Why no process can be started there.
    """

    record: TrialRecord | None = None
    inspection: Inspection | None = None
    profile: Profile | None = None
    failure: Failure | None = None
    refusal: str | None = None
    busy: str | None = None
    no_server: str | None = None
