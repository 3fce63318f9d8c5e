"""`Question`: everything that an answer of the resolver depends on, apart from the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field, field_serializer

from autotune.errors import SpecError
from autotune.resolve.pins import checked_pins, with_pins
from autotune.spec import DatasetFacts, LoaderConfig, MachineFacts, Value

NUMBER_MAX = 2**63 - 1
"""Largest number of a question: what a column of a database holds."""


class Question(Value):
    """Everything that an answer depends on, apart from the registry.

    Attributes:
        dataset: The dataset.
        machine: The machine.
        pins: Fields that the caller fixes.
        study: Only this study; None is any.
        consumer: Only studies with this kind of consumer; None is any.
        loader_class: Dotted path of the class that loads; None is torch's DataLoader.
        archives: Archives that can be had, as `<format>-<form>`; None is any. Plain files always can.
        ranks_on_node: Training processes that share the machine.
    """

    dataset: DatasetFacts
    machine: MachineFacts
    pins: Mapping[str, Any] = {}
    study: str | None = None
    consumer: str | None = None
    loader_class: str | None = None
    archives: frozenset[str] | None = None
    ranks_on_node: int = Field(default=1, ge=1, strict=True)

    @field_serializer("archives")
    def _sorted(self, archives: frozenset[str] | None) -> list[str] | None:
        return None if archives is None else sorted(archives)

    @property
    def streams(self) -> bool:
        """Whether samples in the order of an archive are asked for."""
        return self.pins.get("order") == "streaming"

    def sendable(self) -> Question:
        """Give the question as it is sent and kept: equal for machines that get the same answer.

        Pins become plain values, as NumPy's numbers have no JSON form; the machine loses its name.
        """
        pinned = with_pins(LoaderConfig(), self.pins)
        machine = self.machine.replace(host="", cpu_inputs={})
        return self.replace(machine=machine, pins={name: getattr(pinned, name) for name in self.pins})

    @classmethod
    def received(cls, text: str) -> Question:
        """Read a question that somebody sent, and check all that `checked_pins` checks where it is asked.

        Raises:
            SpecError: It is no question, its pins contradict each other, or no database takes what it holds.
        """
        question = cls.from_json(text)
        # first of all: what is nested deeply cannot even be dumped
        odd = [name for name, value in question.pins.items() if not isinstance(value, str | int | float | None)]
        if odd:
            raise SpecError(f"a pin is a text, a number, true, false or null, got another value for {', '.join(odd)}")
        for value in _leaves(question.model_dump(mode="json")):
            if isinstance(value, str) and "\0" in value:
                raise SpecError(f"a text of a question must hold no NUL, got {value[:40]!r}; leave it out")
            if isinstance(value, int) and abs(value) > NUMBER_MAX:
                raise SpecError(
                    f"a number of a question must be at most 2**63 - 1, got one of {len(str(value))} digits"
                )
        checked_pins(question.pins)
        return question


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value
