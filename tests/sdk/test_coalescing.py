"""Concurrent calls share requests; an idle limiter sends at once. And tasks are cancelled."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from tests_support.waiting import until

from client_sdk import Limiter, RateLimited, SluicegateError

Left = Callable[..., float]


class Counting(httpx.AsyncHTTPTransport):
    """Counts requests by path, holds back those on closed paths, and drops some."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.dropped = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        gate = self.gates.get(request.url.path)
        if gate is not None:
            await gate.wait()
            if self.dropped:
                self.dropped -= 1
                raise httpx.ConnectError("dropped on the way", request=request)
        return await super().handle_async_request(request)

    def close_gate(self, path: str) -> asyncio.Event:
        """Hold requests on *path* until the event is set."""
        self.gates[path] = asyncio.Event()
        return self.gates[path]


@pytest.fixture
def network() -> Counting:
    """The way to the service."""
    return Counting()


@pytest.fixture
async def limiter(url: str, network: Counting) -> AsyncIterator[Limiter]:
    """A limiter that uses it."""
    async with Limiter(url, http_transport=network) as connected:
        yield connected
        for gate in network.gates.values():  # a test that failed may have left one closed
            gate.set()


async def test_a_single_call_is_a_single_request(limiter: Limiter, network: Counting):
    """Nothing is held back to see whether more will come."""
    lease = await limiter.acquire("p/m", tokens=1)
    await lease.renew()
    await lease.settle()
    await limiter.check("p/m", tokens=1)
    assert network.paths == ["/v1/acquire", "/v1/renew", "/v1/settle", "/v1/check"]


async def test_calls_of_one_moment_travel_together(limiter: Limiter, network: Counting, left: Left):
    """Thirty acquires are one request, and each caller gets its own lease."""
    leases = await asyncio.gather(*(limiter.acquire("p/m", tokens=3) for _ in range(30)))
    assert len({lease.id for lease in leases}) == 30
    assert network.paths == ["/v1/batch"]
    await asyncio.gather(*(lease.settle() for lease in leases))
    assert network.paths == ["/v1/batch"] * 2
    assert left() == 910


async def test_of_very_many_some_are_sent_while_the_others_still_come(
    limiter: Limiter, network: Counting
):
    """So that they, the service and the store are at work at the same time."""
    await asyncio.gather(*(limiter.check("p/m", tokens=1) for _ in range(64)))
    assert network.paths == ["/v1/batch"] * 2


async def test_a_thousand_calls_are_a_few_requests(limiter: Limiter, network: Counting):
    """Batches are as large as the service takes them."""
    answers = await asyncio.gather(
        *(limiter.acquire("p/m", tokens=1) for _ in range(1000)), return_exceptions=True
    )
    granted = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len(granted) == 50
    assert all(isinstance(a, RateLimited) for a in answers if isinstance(a, BaseException))
    assert len(network.paths) <= 8


async def test_calls_that_come_while_others_are_under_way_share_the_next_request(
    limiter: Limiter, network: Counting
):
    """With all flights in the air, newcomers gather until one lands."""
    gate = network.close_gate("/v1/check")
    tasks = []
    for _ in range(3):
        tasks.append(asyncio.create_task(limiter.check("p/m", tokens=1)))
        await until(lambda: _sent(network, len(tasks)), "an idle limiter holds back")
    for _ in range(60):
        tasks.append(asyncio.create_task(limiter.check("p/m", tokens=1)))
        for _ in range(5):  # each in a moment of its own, with time to be sent
            await asyncio.sleep(0)
    assert network.paths == ["/v1/check"] * 3
    gate.set()
    await asyncio.gather(*tasks)
    assert network.paths == [*["/v1/check"] * 3, "/v1/batch"]


async def _sent(network: Counting, count: int) -> bool:
    return len(network.paths) == count


async def test_one_refusal_in_a_batch_is_one_exception(limiter: Limiter, left: Left):
    """Its neighbours are served."""
    answers = await asyncio.gather(
        limiter.acquire("p/m", tokens=10),
        limiter.acquire("p/m", tokens=5000),
        limiter.acquire("p/nobody", tokens=1),
        limiter.acquire("p/m", tokens=20),
        return_exceptions=True,
    )
    assert [type(answer).__name__ for answer in answers] == [
        *("Lease", "NeverFits", "UnknownResource", "Lease")
    ]
    assert left() == 970


async def test_a_caller_that_gave_up_before_sending_is_not_sent(
    limiter: Limiter, network: Counting, left: Left
):
    """Its operation stays behind, those of the others go."""
    tasks = [asyncio.create_task(_hold(limiter, 10)) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert tasks[1].cancelled()
    assert network.paths.count("/v1/batch") >= 1
    assert left() == 980


async def _hold(limiter: Limiter, tokens: int) -> str:
    return (await limiter.acquire("p/m", tokens=tokens)).id


async def test_a_cancelled_block_settles_anyway(limiter: Limiter, left: Left):
    """The slot returns, and what was used so far is on the books."""
    inside = asyncio.Event()

    async def work() -> None:
        async with limiter.acquire("p/m", tokens=100) as lease:
            lease.used(output_tokens=15)
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (left(), left("m.slots")) == (985, 50)


async def test_a_second_cancellation_does_not_stop_the_settle(
    url: str, network: Counting, left: Left
):
    """The task ends at once; the report is sent again if need be, and closing waits for it."""
    network.dropped = 2
    gate = network.close_gate("/v1/settle")
    inside = asyncio.Event()
    async with Limiter(url, http_transport=network) as limiter:

        async def work() -> None:
            async with limiter.acquire("p/m", tokens=100) as lease:
                lease.used(output_tokens=15)
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        await until(lambda: _settling(network), "the settle is not sent")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
    assert (left(), left("m.slots")) == (985, 50)


async def _settling(network: Counting) -> bool:
    return "/v1/settle" in network.paths


async def test_a_timeout_around_a_block_settles_as_a_timeout(limiter: Limiter, left: Left):
    """`asyncio.timeout` inside the block becomes a TimeoutError; the slot returns."""
    with pytest.raises(TimeoutError):
        async with limiter.acquire("p/m", tokens=100), asyncio.timeout(0):
            await asyncio.Event().wait()
    assert left("m.slots") == 50


async def test_leases_of_a_broken_task_group_are_all_settled(limiter: Limiter, left: Left):
    """One failure cancels the siblings; no slot stays behind."""
    all_hold = asyncio.Barrier(10)

    async def work(number: int) -> None:
        async with limiter.acquire("p/m", tokens=10):
            await all_hold.wait()
            if number == 4:
                raise KeyError(number)
            await asyncio.Event().wait()

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(work(number))

    with pytest.raises(ExceptionGroup):
        await together()
    assert (left("m.slots"), left()) == (50, 900)


async def test_a_failure_of_the_network_reaches_every_caller(network: Counting):
    """Nobody of a batch is left waiting, and each error is one of the tree."""
    async with Limiter("http://127.0.0.1:1", http_transport=network) as limiter:
        answers = await asyncio.gather(
            *(limiter.acquire("p/m", tokens=1) for _ in range(5)), return_exceptions=True
        )
    assert all(isinstance(answer, SluicegateError) for answer in answers)


async def test_whatever_the_transport_raises_reaches_every_caller():
    """An exception that is not one of the network neither hangs nor vanishes."""

    def broken(request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError(request.url.path)

    network = httpx.MockTransport(broken)
    async with Limiter("http://broken", http_transport=network) as limiter:
        answers = await asyncio.gather(
            *(limiter.check("p/m", tokens=1) for _ in range(3)), return_exceptions=True
        )
    assert [type(answer) for answer in answers] == [ZeroDivisionError] * 3


async def test_callers_that_give_up_at_once_cost_nothing(limiter: Limiter, left: Left):
    """Whenever that is: before it is sent, on its way, or when the grant has just come."""
    for moments in range(12):
        tasks = [asyncio.create_task(_hold(limiter, 10)) for _ in range(2)]
        for _ in range(moments):
            await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [False, True]
    await limiter.aclose()
    assert (left(), left("m.slots")) == (880, 38)


async def test_a_grant_that_comes_too_late_is_given_back(
    limiter: Limiter, network: Counting, left: Left
):
    """Its caller had gone while it was on its way."""
    gate = network.close_gate("/v1/acquire")
    task = asyncio.create_task(_hold(limiter, 10))
    await until(lambda: _sent(network, 1), "it is not sent")
    task.cancel()
    await asyncio.wait({task})
    gate.set()
    await limiter.aclose()
    assert (left(), left("m.slots")) == (1000, 50)
