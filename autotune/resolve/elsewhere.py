"""What other studies found on machines or for datasets like the ones that are asked for, where nothing answers."""

from __future__ import annotations

from autotune.constants import SIMILARITY_MIN
from autotune.registry import Registry
from autotune.resolve.question import Question
from autotune.similarity import Circumstances, Similarity, similarity
from autotune.spec import Decision

SHOWN = 3
"""Studies that are named."""


def found_elsewhere(registry: Registry, question: Question) -> tuple[str, ...]:
    """Say what similar studies gained with which configuration, most similar first: what a study here may begin with.

    What consumes the batches here is not known, and taken to be what did there.
    """
    alike = [
        (_similarity(question, decision), decision)
        for decision in registry.deployed_anywhere(question.dataset.type_name)
        if decision.outcome == "gain"
    ]
    near = sorted((one for one in alike if one[0].value >= SIMILARITY_MIN), key=lambda one: -one[0].value)
    return tuple(_sentence(decision, found) for found, decision in near[:SHOWN])


def _similarity(question: Question, decision: Decision) -> Similarity:
    here = Circumstances(machine=question.machine, dataset=question.dataset, workload=decision.workload)
    there = Circumstances(machine=decision.machine, dataset=decision.dataset, workload=decision.workload)
    return similarity(here, there)


def _sentence(decision: Decision, found: Similarity) -> str:
    gain = f", {decision.ratio.mean:.2f} times the PyTorch default" if decision.ratio else ""
    place = decision.machine.machine_class
    return (
        f"study {decision.study!r} found {decision.config.label()}{gain} on {place} ({found}); "
        "a study here may begin with it, adapted to this machine, and until then it is not served"
    )
