"""Memory of one process is found by another that is no child of it, as ranks of one machine are to each other."""

import pickle
import subprocess
import sys

import pytest
from registry_values import Numbers

from autotune.data.caches.memory import MemoryCacheMode
from autotune.data.shared_memory import SharedMemory, adopted

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes see each other's memory by /proc")

OTHER = """
import pickle, sys
from pathlib import Path
from registry_values import Numbers
from autotune.data.caches.memory import MemoryCacheMode
from autotune.data.shared_memory import SharedMemory, adopted
folder = Path(sys.argv[1])
address, memory = pickle.loads((folder / "memory").read_bytes()), (folder / "pickled").read_bytes()
held = adopted(address)
assert held is not None
shared = pickle.loads(memory)
assert bytes(shared.array(0, 5)) == b"first"
with shared.locked():
    shared.array(0, 5)[:] = list(b"other")
cache = MemoryCacheMode().wrap(Numbers(40))
assert cache.accept(pickle.loads((folder / "offer").read_bytes()))
assert cache.filled == 10
for index in range(10, 20):
    values, number = cache[index]
    assert (values[0], number) == (index, index)
assert cache.filled == 20
"""


def test_memory_and_cache_are_shared_with_a_process_of_its_own(tmp_path):
    memory = SharedMemory(100)
    memory.array(0, 5)[:] = list(b"first")
    cache = MemoryCacheMode().wrap(Numbers(40))
    for index in range(10):
        assert cache[index][1] == index
    for name, value in (("memory", memory.address()), ("pickled", memory), ("offer", cache.offer())):
        (tmp_path / name).write_bytes(pickle.dumps(value))
    script = f"import sys; sys.path[:0] = {sys.path!r}\n{OTHER}"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120)
    assert bytes(memory.array(0, 5)) == b"other"
    assert cache.filled == 20
    assert [cache[index][1] for index in range(40)] == list(range(40))
    assert (cache.hits, cache.misses) == (20, 40)


def test_memory_that_is_gone_is_not_had(tmp_path):
    script = (
        f"import sys; sys.path[:0] = {sys.path!r}; import pickle; from pathlib import Path\n"
        "from autotune.data.shared_memory import SharedMemory\n"
        "Path(sys.argv[1]).write_bytes(pickle.dumps(SharedMemory(100).address()))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "gone")], check=True, timeout=120)
    address = pickle.loads((tmp_path / "gone").read_bytes())
    assert adopted(address) is None
    cache = MemoryCacheMode().wrap(Numbers(40))
    assert not cache.accept(cache.offer()._replace(addresses=(address,)))
    assert cache[3][1] == 3


def test_a_file_that_is_another_one_is_not_taken(tmp_path):
    memory = SharedMemory(100)
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(100)
        wrong = memory.address()._replace(token="unknown", descriptor=file.fileno())
        assert adopted(wrong) is None
    assert adopted(memory.address()) is not None
