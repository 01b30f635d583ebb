"""The heap of the service: what is free in it goes back to the system."""

import asyncio
import subprocess
import sys

import pytest

from limiter_service.heap import Heap, of_this_process, tended

MIB = 1 << 20


class Memory:
    """A process that holds so much, and keeps so much of it when it is trimmed."""

    def __init__(self, size: int, kept: int) -> None:
        self.size, self.kept, self.trims = size, kept, 0
        self.trimmed = asyncio.Event()

    def trim(self) -> None:
        """Give back what is free."""
        self.trims += 1
        self.size = min(self.size, self.kept)
        self.trimmed.set()

    def heap(self) -> Heap:
        """What looks at it."""
        return Heap(lambda: self.size, self.trim)


def test_what_is_free_is_given_back_once():
    """The second look finds nothing new."""
    memory = Memory(200 * MIB, 100 * MIB)
    heap = memory.heap()
    assert heap.look()
    assert memory.size == 100 * MIB
    assert not heap.look()
    assert memory.trims == 1


def test_a_process_that_grows_is_looked_at_again_and_again():
    """A little more is left alone: it is in use, most likely."""
    memory = Memory(100 * MIB, 100 * MIB)
    heap = memory.heap()
    heap.look()
    memory.size = memory.kept = 101 * MIB - 1
    assert not heap.look()
    memory.size = 120 * MIB
    assert heap.look()
    assert memory.size == 101 * MIB - 1


def test_of_a_small_process_a_mib_is_little():
    """Whatever part of it that is."""
    memory = Memory(10 * MIB, 10 * MIB)
    heap = memory.heap()
    heap.look()
    memory.size = 11 * MIB - 1
    assert not heap.look()


def test_growth_counts_from_the_least_that_it_was():
    """A process that has become smaller by itself may have grown since."""
    memory = Memory(100 * MIB, 100 * MIB)
    heap = memory.heap()
    heap.look()
    memory.size = 50 * MIB
    assert not heap.look()
    memory.size = 60 * MIB
    assert heap.look()


async def test_a_heap_is_tended_until_the_service_ends():
    """And no longer."""
    memory = Memory(200 * MIB, 100 * MIB)
    async with tended(memory.heap(), 0.001):
        async with asyncio.timeout(45):
            await memory.trimmed.wait()
    trims, memory.size = memory.trims, 300 * MIB
    for _ in range(10):
        await asyncio.sleep(0)
    assert memory.trims == trims


async def test_where_nothing_can_be_given_back_nothing_is_done():
    """Another C library."""
    async with tended(None, 0.0):
        await asyncio.sleep(0)


@pytest.mark.skipif(of_this_process() is None, reason="no glibc")
def test_a_real_process_becomes_smaller():
    """What lives on lies scattered above what is free: nothing would be given back by itself."""
    code = """
from limiter_service.heap import of_this_process
heap = of_this_process()
heap.look()
many = [bytes(5000 + n % 3000) for n in range(10_000)]
full = heap._size()
some = many[::7]
del many
held = heap._size()
assert heap.look()
print(full - held, held - heap._size())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    by_itself, given_back = map(int, done.stdout.split())
    assert given_back > 20 * MIB > by_itself
