"""Fault 28: a study file that means harm, or was written in haste, gives a message with line and key."""

from pathlib import Path

import pytest

from autotune.errors import StudyFileError
from autotune.spec.study_file import read_study

pytestmark = pytest.mark.fault(28)

THREE_LINES = "name: a\ndataset: my_package.data:make\nbudget: 2m\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(97 + level)}: &{chr(97 + level)} [{', '.join([f'*{chr(96 + level)}'] * 9)}]\n" for level in range(1, 12)
)

HOSTILE = {
    "object to build": (
        THREE_LINES + "subset: !!python/object/apply:os.system ['touch {canary}']",
        4,
        "tags are not read",
    ),
    "object as a key": (
        THREE_LINES + "? !!python/object/apply:os.system ['touch {canary}']\n: 1",
        4,
        "keys must be text",
    ),
    "name of a function": (THREE_LINES + "seed: !!python/name:os.system ''", 4, "tags are not read"),
    "nested object": (
        "name: a\nbudget: 2m\ndataset:\n  factory: a:b\n  arguments:\n    x: !!python/tuple [1]",
        6,
        "tags are not read",
    ),
    "tag of its own": (THREE_LINES + "seed: !mine 4", 4, "tags are not read, got '!mine'"),
    "date": (THREE_LINES + "subset: 2024-01-01", 4, "tags are not read, got 'timestamp'"),
    "merge key": (THREE_LINES + "space: {<<: {batch_size: [1]}}", 4, "keys must be text"),
    "alias bomb": (THREE_LINES + BOMB, 5, "aliases are not read"),
    "alias of itself": ("name: &x [*x]", 1, "aliases are not read"),
    "deep nesting": (THREE_LINES + "space: " + "[" * 5000 + "]" * 5000, 4, "at most 20 levels deep"),
    "duplicate key": (THREE_LINES + "name: b", 4, "must stand once, stands on line 1 too"),
    "duplicate key within": (THREE_LINES + "space:\n  cache: none\n  cache: disk", 6, "must stand once"),
    "several documents": (THREE_LINES + "---\nname: b", 4, "must hold one document"),
    "a list": ("- name: a", 1, "must be a mapping of at least name, dataset and budget, got a list"),
    "a single value": ("name", 1, "got a single value"),
    "nothing": ("", 1, "got nothing"),
    "comment only": ("# name: a\n", 1, "got nothing"),
    "broken syntax": (THREE_LINES + "space: [1, 2\nseed: 3", 5, "must be YAML"),
    "tab as indentation": (THREE_LINES + "space:\n\tcache: none", 5, "must be YAML"),
    "control character": (THREE_LINES + "seed: \x07", 4, "must be printable text, got character 0x7"),
    "number without end": (THREE_LINES + "seed: " + "9" * 6000, 4, "must be a value of its kind"),
    "not a number": (THREE_LINES + "time_cap_s: .nan", 4, "must be a finite number"),
    "huge duration": ("name: a\ndataset: a:b\nbudget: " + "9" * 400 + "s", 3, "budget"),
    "huge size": (THREE_LINES + "memory_limit: " + "9" * 400 + "GiB", 4, "memory_limit"),
    "number as a key": (THREE_LINES + "1: 2", 4, "keys must be text, got 1"),
    "unknown key": (THREE_LINES + "workers: 4", 4, "workers: must be a known key"),
    "wrong unit": (THREE_LINES + "memory_limit: 2 lightyears", 4, "memory_limit: a size is a number"),
    "negative size": (THREE_LINES + "memory_limit: -1GiB", 4, "memory_limit: a size is a number"),
    "negative number": (THREE_LINES + "memory_limit: -5", 4, "memory_limit: a memory limit's share"),
    "negative workers": (
        THREE_LINES + "space: {num_workers: [-1]}",
        4,
        "space.num_workers: must be at least 0, got -1",
    ),
    "no factory": ("name: a\nbudget: 2m\ndataset: {arguments: {}}", 3, "dataset: a dataset needs a factory"),
    "factory without a callable": ("name: a\nbudget: 2m\ndataset: my_package.data", 3, "package.module:callable"),
    "factory with a command": ("name: a\nbudget: 2m\ndataset: 'os:system(\"x\")'", 3, "package.module:callable"),
    "factory with a path": ("name: a\nbudget: 2m\ndataset: ../evil:make", 3, "package.module:callable"),
    "name with a path": ("name: ../../etc/passwd\ndataset: a:b\nbudget: 2m", 1, "name: has a form that is not allowed"),
    "name with markup": ("name: <script>\ndataset: a:b\nbudget: 2m", 1, "name: has a form that is not allowed"),
    "escape sequence in a key": (THREE_LINES + '"\\e[31mred": 1', 4, "'\\x1b[31mred'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_study_file_is_refused_with_line_and_key_and_runs_nothing(case, tmp_path):
    text, line, words = HOSTILE[case]
    canary = tmp_path / "canary"
    path = tmp_path / "study.yaml"
    path.write_text(text.replace("{canary}", str(canary)))
    with pytest.raises(StudyFileError) as caught:
        read_study(path)
    message = str(caught.value)
    (found,) = [row for row in message.splitlines() if words in row][:1] or [message]
    assert found.startswith(f"{path}:{line}: ")
    assert words in found
    assert message.isprintable() or "\n" in message
    assert "\x1b" not in message
    assert not canary.exists()


def test_message_stays_short_when_the_file_is_full_of_problems(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(THREE_LINES + "".join(f"key_{number}_{'x' * 200}: 1\n" for number in range(3000)))
    with pytest.raises(StudyFileError) as caught:
        read_study(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 51
    assert lines[-1].endswith("and 2950 further problems")
    assert max(map(len, lines)) < 1000


def test_endless_file_is_refused_after_its_first_megabyte():
    with pytest.raises(StudyFileError, match="at most 1048576 bytes"):
        read_study(Path("/dev/zero"))
