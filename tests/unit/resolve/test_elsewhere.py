"""Where nothing answers, what similar studies found is told as a prior, with how far to trust it."""

from registry_values import Numbers, decision_here, machine

from autotune import explain
from autotune.machine import machine_facts
from autotune.registry import open_registry
from autotune.spec import LoaderConfig


def saved(home, *decisions):
    with open_registry(home) as registry:
        for decision in decisions:
            registry.save_decision(decision)


def test_another_machine_class_is_told_as_a_prior_and_not_served(tmp_path):
    here = machine_facts()
    there = here.replace(cpu_count=2 * here.cpu_count)
    config = LoaderConfig(num_workers=2).canonical(has_accelerator=False)
    saved(tmp_path, decision_here(Numbers(), config, machine=there))
    found = explain(Numbers(), home=tmp_path)
    assert found.resolution.match == "default"
    assert found.resolution.config.num_workers == 0
    (prior,) = [line for line in found.lines if line.startswith("prior: ")]
    assert f"study 's' found {config.label()}, 2.00 times the PyTorch default on {there.machine_class}" in prior
    assert "(similarity 0.87: " in prior
    assert f"{here.cpu_count} instead of {there.cpu_count} CPUs" in prior
    assert prior.endswith("a study here may begin with it, adapted to this machine, and until then it is not served")


def test_an_answer_needs_no_prior_and_what_is_too_far_is_none(tmp_path):
    config = LoaderConfig(num_workers=2).canonical(has_accelerator=False)
    far = machine(cpu_count=512, system="Darwin arm64", accelerator="H100", accelerator_count=8)
    saved(tmp_path, decision_here(Numbers(), config, machine=far))
    assert explain(Numbers(), home=tmp_path).priors == ()
    saved(tmp_path, decision_here(Numbers(), config))
    found = explain(Numbers(), home=tmp_path)
    assert (found.resolution.match, found.priors) == ("exact", ())
