"""What every registry promises, over SQLite and a real PostgreSQL."""

import multiprocessing

import optuna
import pytest
from registry_values import decision, facts, machine, record
from sqlalchemy import create_engine, text

from autotune.errors import RegistryError, SpecError, StorageMixedError
from autotune.registry import Candidate, make_schema_of, open_existing, open_registry, optuna_url
from autotune.spec import LoaderConfig
from autotune.study.optuna_store import open_storage


@pytest.fixture
def registry(address):
    with open_registry(*address, wait_s=10) as opened:
        yield opened


def _url(address):
    home, url = address
    if url is None:
        return f"sqlite:///{home / 'registry.db'}"
    return f"{url.replace('postgresql://', 'postgresql+psycopg://')}?options=-csearch_path%3Dautotune"


def test_record_comes_back_as_it_was_saved_when_asked_by_key(registry):
    saved = record("a", config=LoaderConfig(num_workers=2, prefetch_factor=4, cache="memory", cache_fraction=0.3))
    registry.save_record(saved)
    assert registry.record("a") == saved
    assert registry.record("b") is None


def test_record_is_kept_once_when_saved_twice(registry):
    first = record("a", rate=1.0)
    registry.save_record(first, outbox=[("mlflow", "a", "{}")])
    registry.save_record(record("a", rate=2.0), outbox=[("mlflow", "a", "{}")])
    assert registry.records("s") == [first]
    assert len(registry.outbox_pending("mlflow")) == 1


def test_records_come_in_order_of_start_and_filtered(registry):
    late, early = record("a", minute=2), record("b", minute=1, phase="confirm")
    other = record("c", study="other")
    failed = record("d", minute=3, failure="crashed", machine=None, dataset=None)
    for one in (late, early, other, failed):
        registry.save_record(one)
    assert registry.records("s") == [early, late, failed]
    assert registry.records("s", phase="confirm") == [early]
    assert registry.records("s", workload_digest=late.workload.digest()) == [early, late, failed]
    assert registry.records("s", workload_digest="0" * 16) == []
    assert registry.studies() == ["other", "s"]


def test_newest_records_behind_a_decision_are_read_and_the_others_counted(registry):
    behind = [record(f"t{minute}", minute=minute) for minute in range(4)]
    unknown = record("u", minute=5, failure="crashed", machine=None, dataset=None)
    foreign = [
        record("m", minute=5, machine=machine(cpu_count=64)),
        record("d", minute=5, dataset=facts(length=7)),
        record("w", minute=5, kind="emulated"),
        record("c", minute=5, phase="confirm"),
        record("late", minute=61),
        record("s", minute=5, study="other"),
    ]
    for one in (*behind, unknown, *foreign):
        registry.save_record(one)
    asked = decision(minute=60)
    assert registry.records_behind(asked, ["search"], limit=2) == ([behind[3], unknown], 3)
    assert registry.records_behind(asked, ["search"], limit=9) == ([*behind, unknown], 0)
    assert registry.records_behind(asked, ["race", "confirm"], limit=9) == ([foreign[3]], 0)


def test_record_and_its_outbox_rows_are_written_together_or_not_at_all(registry):
    with pytest.raises(RegistryError):
        registry.save_record(record("a"), outbox=[("mlflow", "a", "{}"), ("mlflow", "b", None)])
    assert registry.record("a") is None
    assert registry.outbox_pending("mlflow") == []


def test_measured_gives_records_with_the_pins_fastest_first(registry):
    two = LoaderConfig(num_workers=2).canonical(has_accelerator=False)
    registry.save_record(record("slow", rate=10.0, config=two))
    registry.save_record(record("fast", rate=30.0, config=two, minute=1))
    registry.save_record(record("none", rate=90.0))
    registry.save_record(record("failed", failure="crashed", config=two))
    registry.save_record(record("elsewhere", rate=99.0, config=two, machine=machine(cpu_count=64)))
    registry.save_record(record("step", rate=99.0, config=two, kind="step"))
    registry.save_record(record("changed", rate=99.0, config=two, dataset=facts(structure="size=4")))
    found = registry.measured(decision(), {"num_workers": 2, "cache": "none", "pin_memory": False})
    assert [(one.samples_per_s, one.config) for one in found] == [(30.0, two), (10.0, two)]
    older = machine(versions={"torch": "1.13.1"})
    registry.save_record(record("older", rate=20.0, config=two, machine=older))
    found = registry.measured(decision(), {"num_workers": 2})
    assert [one.versions for one in found] == [machine().versions, older.versions, machine().versions]
    with pytest.raises(SpecError, match="body"):
        registry.measured(decision(), {"body": "x"})


def test_decisions_come_back_newest_first(registry):
    old, new, other = decision(), decision(minute=1), decision(study="other", minute=2)
    for one in (old, other, new):
        registry.save_decision(one)
    registry.save_decision(old)
    assert registry.decisions() == [other, new, old]
    assert registry.decisions("s") == [new, old]
    assert registry.decisions(limit=1) == [other]
    assert registry.decision(old.key) == old
    assert registry.decision("x") is None


def test_decisions_of_keys_are_those_that_there_are(registry):
    first, second, third = (decision(study=study, minute=minute) for minute, study in enumerate(("a", "b", "b")))
    for saved in (first, second, third):
        registry.save_decision(saved)
    assert registry.decisions_of({first.key, third.key, "none"}) == [third, first]
    assert registry.decisions_of(()) == []


def test_candidates_are_the_newest_decision_of_each_group(registry):
    newest = decision(minute=9)
    variants = [
        decision(study="t", minute=1),
        decision(dataset=facts(length=7), minute=2),
        decision(machine=machine(cpu_count=8), minute=3),
        decision(kind="step", minute=4),
        decision(machine=machine(versions={"python": "3.11.7", "torch": "3.0"}), minute=5),
    ]
    older = [decision(minute=0), decision(minute=8, machine=machine(versions={"python": "3.12.0", "torch": "2.9"}))]
    for one in (*older, newest, *variants, decision(dataset=facts(type_name="pack.Other"), minute=10)):
        registry.save_decision(one)
    late_arrival = decision(minute=7)
    registry.save_decision(late_arrival)
    expected = [Candidate.of(one) for one in (newest, *reversed(variants))]
    found = registry.candidates("pack.Data")
    assert found == expected
    assert registry.candidates("pack.Data", length=7)[0] == Candidate.of(variants[1])
    here = registry.candidates("pack.Data", machine_class=machine().machine_class)
    assert Candidate.of(variants[2]) not in here
    assert len(here) == len(expected) - 1
    assert registry.candidates("pack.Data", study="t") == [Candidate.of(variants[0])]
    assert registry.candidates("pack.Data", limit=1) == [expected[0]]
    assert registry.candidates_of_study("t") == [Candidate.of(variants[0])]
    assert registry.candidates("pack.Unknown") == []


def test_newest_of_two_decisions_of_one_moment_does_not_change_when_saved_again(registry):
    one, two = decision(), decision()
    for saved in (one, two, two):
        registry.save_decision(saved)
    assert [candidate.key for candidate in registry.candidates("pack.Data")] == [two.key]


def test_outbox_keeps_order_counts_failures_and_never_takes_a_settled_key_again(registry):
    for key in ("run", "b", "a"):
        registry.outbox_add(key, "mlflow", f'{{"key": "{key}"}}')
    registry.outbox_add("run", "other", "{}")
    assert [entry.key for entry in registry.outbox_pending("mlflow")] == ["run", "b", "a"]
    assert [entry.key for entry in registry.outbox_pending("mlflow", limit=2)] == ["run", "b"]
    registry.outbox_failed("mlflow", "run", "no route\0 to host")
    registry.outbox_failed("mlflow", "run", "again")
    entry = registry.outbox_pending("mlflow")[0]
    assert (entry.attempts, entry.message, entry.body) == (2, "again", '{"key": "run"}')
    registry.outbox_settle("mlflow", "run")
    registry.outbox_add("run", "mlflow", "{}")
    assert [entry.key for entry in registry.outbox_pending("mlflow")] == ["b", "a"]
    assert [entry.key for entry in registry.outbox_pending("other")] == ["run"]


@pytest.mark.parametrize("word", ["x'; DROP TABLE decisions; --", 'quo"te', "Ω 漢字 🦀", "a%sb:c?d", "\\"])
def test_odd_text_comes_back_unchanged(registry, word):
    registry.save_record(record("a", study=word))
    registry.save_decision(decision(study=word, dataset=facts(type_name=word, structure=word), why=word))
    assert registry.records(word)[0].study == word
    assert registry.candidates(word)[0].structure == word
    assert registry.decisions(word)[0].why == word


def test_reopened_registry_has_everything_and_reading_writes_nothing(address):
    with open_registry(*address) as registry:
        registry.save_record(record("a"))
    with open_existing(*address) as registry:
        assert registry.records("s") == [record("a")]
        if address[1] is None:
            with pytest.raises(RegistryError, match="cannot be written"):
                registry.save_record(record("b"))
    with open_existing(*address, access="write") as registry:
        registry.save_record(record("b"))
        assert registry.record("b") is not None


def test_existing_is_refused_when_the_database_holds_no_registry(address):
    if address[1] is None:
        create_engine(_url(address)).connect().close()
    with pytest.raises(RegistryError, match="holds no registry"):
        open_existing(*address)


def test_registry_is_refused_when_a_newer_program_wrote_it(address):
    open_registry(*address).close()
    engine = create_engine(_url(address))
    with engine.begin() as connection:
        connection.execute(text("UPDATE autotune_alembic_version SET version_num = '9999'"))
    engine.dispose()
    for opener in (open_registry, open_existing):
        with pytest.raises(RegistryError, match="newer autotune"):
            opener(*address)


def test_registry_is_refused_before_anything_is_written_when_optuna_or_mlflow_owns_the_database(address):
    engine = create_engine(_url(address))
    with engine.begin() as connection:
        if address[1]:
            connection.execute(text("CREATE SCHEMA autotune"))
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
    engine.dispose()
    file = address[0] / "registry.db"
    before = file.read_bytes() if address[1] is None else b""
    with pytest.raises(StorageMixedError, match="alembic_version"):
        open_registry(*address)
    if address[1] is None:
        assert file.read_bytes() == before
    with create_engine(_url(address)).connect() as connection:
        present = connection.dialect.get_table_names(connection)
    assert present == ["alembic_version"]


def test_registry_and_optuna_live_beside_another_program_in_one_postgresql_database(address):
    if address[1] is None:
        pytest.skip("SQLite has no schemas")
    bare = create_engine(address[1].replace("postgresql://", "postgresql+psycopg://"))
    with bare.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
    make_schema_of(optuna_url(address[1]))
    make_schema_of(optuna_url(address[1]))
    storage = open_storage(optuna_url(address[1]))
    optuna.create_study(storage=storage, study_name="s")
    with open_registry(*address) as registry:
        registry.save_record(record("a"))
    with bare.connect() as connection:
        found = connection.execute(
            text("SELECT table_schema, table_name FROM information_schema.tables WHERE table_name LIKE '%alembic%'")
        ).all()
    bare.dispose()
    assert sorted(found) == [
        ("autotune", "autotune_alembic_version"), ("optuna", "alembic_version"), ("public", "alembic_version"),
    ]  # fmt: skip


def _write_many(address, name, count):
    with open_registry(*address) as registry:
        for number in range(count):
            registry.save_record(record(f"{name}{number}"), outbox=[("mlflow", f"{name}{number}", "{}")])
            registry.save_record(record(f"shared{number}"), outbox=[("mlflow", f"shared{number}", "{}")])


def test_processes_that_start_at_once_create_the_tables_once_and_lose_no_record(address):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(address, name, 10)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    with open_existing(*address) as registry:
        assert len(registry.records("s")) == 30
        assert len(registry.outbox_pending("mlflow", limit=100)) == 30
