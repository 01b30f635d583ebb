"""One call of an LLM client: a reservation, the requests under it, and what they bring.

Faults before the first content are tried again under the same reservation. Each further
request takes a ticket from the limiter: an acquire of its own for one request, which asks
breaker and retry budget, and whose settle tells how the request before it failed.
"""

import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import httpx
import msgspec

from client_sdk._async.attempts import Attempt
from client_sdk._async.lease import Lease
from client_sdk._async.limiter import Limiter
from client_sdk._provider_http import limits
from client_sdk._shell_async import shielded, sleep
from client_sdk._watch_async import Watch, Woken
from client_sdk.errors import CallFailed, RateLimited, Refused, SluicegateError
from client_sdk.llm import recovering, requests
from client_sdk.llm.anthropic import DEFAULT_MAX_TOKENS
from client_sdk.llm.endpoints import Target
from client_sdk.llm.figures import Figures
from client_sdk.llm.plans import Plan, timeouts_left
from client_sdk.llm.results import Response, Restarted, response_of
from client_sdk.llm.retrying import (
    RetryBudget,
    is_doubtful,
    pause_before,
    pause_to_take_up,
    worth_another,
)
from client_sdk.streaming import StreamAccumulator, StreamChunk, StreamOutcome
from limiter_wire import Meter, Outcome, Usage

if TYPE_CHECKING:
    from client_sdk.estimate import Estimate, Estimator

_DRAIN = 0.1
"""Seconds for the end of a body behind the provider's last word, so that its connection can
be used again."""

_SMALLEST = 1  # token of a ticket


class Tools:
    """What all calls of one client share."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        limiter: Limiter | None,
        estimator: "Estimator",
        figures: Figures,
        budget: RetryBudget,
    ) -> None:
        self.http, self.limiter, self.estimator = http, limiter, estimator
        self.figures, self.budget = figures, budget
        self.clock: Callable[[], float] = time.monotonic
        self.chance = random.Random()  # noqa: S311  # spreads retries, keeps no secret


class Call:
    """Delivers the chunks of one answer, over as many requests as it takes."""

    def __init__(self, plan: Plan, tools: Tools) -> None:
        self._plan, self._tools = plan, tools
        self._began = tools.clock()
        self._watch = Watch(tools.clock)
        self._ready: deque[StreamChunk] = deque()
        self._held: list[StreamChunk] = []
        self._at = 0  # the target that is asked
        self._tries = 1  # requests at this target since content was last delivered
        self._requests = self._recoveries = self._doubts = 0
        self._lease: Lease | None = None
        self._guess: Estimate | None = None
        self._attempt: Attempt | None = None
        self._counted: Attempt | None = None
        self._cut: StreamAccumulator | None = None  # a stream that goes on in the next request
        self._pull: Callable[[], Awaitable[bytes]] | None = None
        self._messages = plan.messages
        self._options = recovering.prepared(plan.recovery if plan.stream else (), plan.options)
        self._before: list[tuple[str, str, Usage]] = []
        self._discarded = ""
        self._seam: recovering.Seam | None = None
        self._ttft: float | None = None
        self._closing = self._over = False
        self._error: BaseException | None = None
        self.result: Response | None = None

    def begin(self) -> None:
        """The caller asks for the first chunk: from now its time runs."""
        self._began = self._tools.clock()

    @property
    def request_id(self) -> str:
        """Our id of the call."""
        return self._plan.request_id

    @property
    def stream(self) -> StreamAccumulator | None:
        """The stream of the request under way, or of the last one."""
        return None if self._attempt is None else self._attempt.stream

    async def next(self) -> StreamChunk | None:
        """The next chunk, None at the end. Raises what ended the call badly, once."""
        while not self._ready:
            if self._over:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                return None
            with self._watch:
                await self._advance()
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Want no more: release the connection and settle. Once.

        While somebody waits for a chunk, that wait is ended, and cleans up behind itself.
        """
        self._closing = True
        if self._watch.busy:
            self._watch.wake()
            await self._watch.idle()
        elif not self._over:
            await self._leave()

    async def _advance(self) -> None:
        """Do the next step."""
        try:
            if self._attempt is None:
                await self._reserve()
                if not (self._over or self._closing):
                    await self._send()
            else:
                await self._read(self._attempt)
        except Woken:
            if not self._closing and self._attempt is not None:
                await self._ended(self._attempt)
        except BaseException as error:
            if not self._over:
                await self._leave(error)
            raise
        if self._closing and not self._over:
            await self._leave()

    # A reservation.

    @property
    def _target(self) -> Target:
        return self._plan.targets[self._at]

    async def _reserve(self) -> None:
        """Take a lease for the target, unless one is held; move on when it is refused."""
        limiter, how = self._tools.limiter, self._plan.options.budgeting
        if limiter is None or self._lease is not None:
            return
        target = self._target
        guess = self._guess = self._tools.estimator.request(
            self._messages, target.model, tools=self._plan.tools, route=how.route or "default"
        )
        count = self._requests
        try:
            self._lease = await self._watch.run(
                lambda: limiter.acquire(
                    target.resource,
                    estimate=guess,
                    max_output_tokens=_most(target, self._plan),
                    tenant=how.tenant,
                    priority=how.priority,
                    max_wait=how.max_wait,
                    request_id=self.request_id if not count else f"{self.request_id}-{count}",
                    worker=how.worker,
                    attempt=self._tries,
                    route=how.route,
                    ttl=how.ttl,
                )
            )
        except Refused as refusal:
            if not self._move_on():
                self._finish("refused", refusal)
        except SluicegateError as error:  # what another model would meet as well
            self._finish("refused", error)

    def _move_on(self) -> bool:
        """Turn to the next target, if there is one."""
        if self._at + 1 >= len(self._plan.targets) or self._before:
            return False  # what one model has begun another cannot go on with
        self._at += 1
        self._tries, self._doubts = 1, 0
        self._attempt = self._cut = None
        self._held.clear()
        self._tools.figures.count("fallbacks")
        return True

    # A request.

    async def _send(self) -> None:
        plan, target, clock = self._plan, self._target, self._tools.clock
        if self._tries == 1 and not self._recoveries:
            self._tools.budget.first(clock())
        attempt = self._attempt = self._new_attempt()
        sent = requests.request(
            target, self._messages, plan.tools, self._options, stream=plan.stream
        )
        if self._cut is not None:
            assert self._cut.response_id is not None
            sent = requests.resumption(
                target, self._cut.response_id, self._cut.position or 0, self._options
            )
        attempt.start()
        self._requests += 1
        self._watch.guard(attempt.deadline)
        nearest = attempt.deadline()
        head = None if nearest is None else max(0.001, nearest - clock())
        request = self._tools.http.build_request(
            sent.method,
            sent.url,
            headers=dict(sent.headers),
            content=sent.body,
            extensions=limits(plan.timeouts, head),
        )
        body: bytes | None = None
        try:
            response = await self._watch.send(self._tools.http, request)
            pieces = response.aiter_bytes()
            attempt.opened(
                response.status_code,
                response.headers,
                lambda: self._release(attempt, response, pieces),
            )
            self._watch.connected(response)
            self._watch.guard(attempt.deadline)
            self._pull = pieces.__anext__
            if attempt.refused or not plan.stream:
                body = await self._watch.run(response.aread)
        except Exception as error:  # noqa: BLE001  # judged, and raised if it is not the transport's
            await self._broken(attempt, error)
            return
        if body is None:
            return
        if attempt.refused:
            await attempt.refuse(body)
        else:
            self._whole(attempt, body)
        await self._ended(attempt)

    def _new_attempt(self) -> Attempt:
        target, plan = self._target, self._plan
        stream = self._cut
        if stream is None:
            spent = self._tools.clock() - self._began
            stream = StreamAccumulator(
                target.endpoint.dialect,
                timeouts=timeouts_left(plan.timeouts, stream=plan.stream, spent=spent),
                clock=self._tools.clock,
            )
        return Attempt(
            stream,
            self._lease,
            provider=target.provider,
            resource=target.resource,
            request_id=self.request_id,
            input_tokens=None if self._guess is None else self._guess.tokens,
            settles=False,
            clock=self._tools.clock,
        )

    async def _release(
        self, attempt: Attempt, response: httpx.Response, pieces: AsyncIterator[bytes]
    ) -> None:
        """Give the connection back, read to its end where that is near."""
        outcome = attempt.stream.outcome
        if outcome is not None and outcome.whole and response.http_version != "HTTP/2":
            await self._watch.brief(pieces.__anext__, _DRAIN)
        await response.aclose()

    def _whole(self, attempt: Attempt, body: bytes) -> None:
        """An answer that is not streamed, read as a stream of one piece."""
        attempt.feed(requests.as_stream(self._target.endpoint, body))
        attempt.stream.finish(self._tools.clock())

    # What it brings.

    async def _read(self, attempt: Attempt) -> None:
        assert self._pull is not None
        attempt.resume()
        fresh = not attempt.committed
        try:
            data = await self._watch.run(self._pull)
        except StopAsyncIteration:
            await attempt.finish()
            await self._ended(attempt)
            return
        except Exception as error:  # noqa: BLE001  # judged below, and raised if it is not the transport's
            await self._broken(attempt, error)
            return
        chunks = attempt.feed(data)
        if attempt.done:
            self._held += chunks
            await self._ended(attempt)
            return
        self._deliver(attempt, chunks)
        if fresh and attempt.committed:
            self._watch.guard(attempt.deadline)  # the clock of content runs from here
        attempt.pause()

    def _deliver(self, attempt: Attempt, chunks: list[StreamChunk]) -> None:
        """Hand over what came; before the first content it is held back, since another attempt
        may say it again.
        """
        self._held += chunks
        if not attempt.committed or not self._held:
            return
        if self._ttft is None:
            self._ttft = self._tools.clock() - self._began
        held, self._held = self._held, []
        if self._seam is not None:
            held = [self._joined(chunk) for chunk in held]
        self._ready.extend(held)

    def _joined(self, chunk: StreamChunk) -> StreamChunk:
        assert self._seam is not None
        if not chunk.content:
            return chunk
        return msgspec.structs.replace(chunk, content=self._seam.joined(chunk.content))

    async def _broken(self, attempt: Attempt, error: Exception) -> None:
        """The transport raised, or was shut since a limit is over."""
        if self._closing:
            raise Woken from error
        if attempt.refused:  # its status is known, if not its words
            await attempt.refuse(b"")
        elif attempt.stalled() or isinstance(error, Woken):
            await attempt.finish()
        else:
            await attempt.fail(error)
            if attempt.stream.outcome is StreamOutcome.CANCELLED:
                raise error  # nothing that a transport raises: a wrong URL, or a fault of ours
        await self._ended(attempt)

    async def _ended(self, attempt: Attempt) -> None:
        """A request is over: deliver the end, or see how it can go on."""
        await attempt.finish()
        stream = attempt.stream
        self._held += stream.drain()
        error = attempt.error()
        if error is None:
            await self._complete(attempt)
            return
        self._count(attempt)
        if stream.outcome is StreamOutcome.CANCELLED:  # its total is over
            await self._give_up(attempt, error)
        elif not attempt.committed or not self._plan.stream:
            await self._again(attempt, error)
        else:
            self._deliver(attempt, [])
            await self._take_up(attempt, error)

    async def _complete(self, attempt: Attempt) -> None:
        stream = attempt.stream
        self._count(attempt)
        await self._settle(attempt)
        if self._guess is not None and stream.usage.input_tokens and not self._before:
            self._tools.estimator.learn(self._guess, stream.usage.input_tokens)
        self.result = self._response(attempt)
        self._held = [
            msgspec.structs.replace(
                chunk, usage=self.result.usage, tool_calls=self.result.tool_calls
            )
            if chunk.type == "end"
            else chunk
            for chunk in self._held
        ]
        if self._ttft is None and attempt.committed:
            self._ttft = self._tools.clock() - self._began
        if self._seam is not None:
            self._held = [self._joined(chunk) for chunk in self._held]
        self._ready.extend(self._held)
        self._held = []
        assert stream.outcome is not None
        self._finish(stream.outcome, None)

    def _response(self, attempt: Attempt) -> Response:
        """The answer so far, over all requests."""
        last = response_of(
            attempt.stream,
            usage=attempt.usage,
            resource=self._target.resource,
            model=self._target.model,
            request_id=self.request_id,
            provider_request_id=attempt.provider_request_id or attempt.stream.response_id,
            attempts=self._requests,
        )
        if self._before and self._seam is not None:
            text = recovering.Seam(self._before[-1][0]).joined(last.text)
            last = msgspec.structs.replace(last, text=text)
        return recovering.joined(self._before, last)

    # What went wrong.

    async def _again(self, attempt: Attempt, error: CallFailed) -> None:
        """Nothing was delivered: try once more here, else elsewhere, else say so."""
        pause = None
        failure = attempt.failure
        if failure is not None and error.retryable:
            self._doubts = self._doubts + 1 if is_doubtful(failure) else 0
            pause = pause_before(
                self._plan.retry, failure, self._tries, self._doubts, self._tools.chance
            )
        if pause is not None and self._in_time(pause) and await self._ticket(attempt):
            self._held.clear()
            await self._watch.run(lambda: sleep(pause))
            self._tries += 1
            self._attempt = None
            self._tools.figures.count("retries")
            return
        await self._settle(attempt)
        if worth_another(attempt.outcome) and self._move_on():
            return
        self._fail(attempt, error)

    def _in_time(self, pause: float) -> bool:
        total = self._plan.timeouts.total
        return total is None or self._tools.clock() + pause < self._began + total

    async def _ticket(self, failed: Attempt) -> bool:
        """Whether one more request may go out; what failed is reported with it."""
        if not self._tools.budget.take(self._tools.clock()):
            return False
        limiter, how = self._tools.limiter, self._plan.options.budgeting
        if limiter is None or self._lease is None:
            return True
        try:
            ticket = await self._watch.run(
                lambda: limiter.acquire(
                    self._target.resource,
                    tokens=_SMALLEST,
                    tenant=how.tenant,
                    priority=how.priority,
                    max_wait=how.max_wait,
                    request_id=f"{self.request_id}-retry-{self._requests}",
                    worker=how.worker,
                    attempt=self._tries + 1,
                    route="retry",
                )
            )
        except RateLimited as refusal:
            return _of_slots(refusal)  # the slot that is missing is the one that we hold
        except SluicegateError:
            return False
        if ticket.granted.probe:  # a probe is for who has not just failed
            await shielded(ticket.settle(Outcome.CANCELLED))
            return False
        told = failed.report()
        ticket.observed(
            told.headers, latency=told.latency, retry_after=told.retry_after, cause=told.cause
        )
        settled = await shielded(ticket.settle(told.outcome))
        return bool(settled.breaker != "open")

    async def _take_up(self, attempt: Attempt, error: CallFailed) -> None:
        """Content was delivered: take the answer up as the client was told to, or say so."""
        plan, failure, stream = self._plan, attempt.failure, attempt.stream
        how = recovering.way(
            plan.recovery,
            self._target.endpoint,
            stream,
            transient=failure is not None and failure.retryable,
        )
        pause = None
        if how is not None and failure is not None:
            done = self._recoveries + 1
            pause = pause_to_take_up(plan.retry, failure, done, self._tools.chance)
        now = self._tools.clock()
        if (
            how is None
            or pause is None
            or not self._in_time(pause)
            or not self._tools.budget.take(now)
        ):
            await self._give_up(attempt, error)
            return
        self._recoveries += 1
        self._tools.figures.count("recoveries")
        if how == "resume":
            await self._watch.run(lambda: sleep(pause))
            stream.reopen(self._tools.clock())
            self._cut = stream
        else:
            await self._settle(attempt)
            self._prepare(how, attempt)
            await self._watch.run(lambda: sleep(pause))
        self._attempt = None

    def _prepare(self, how: str, attempt: Attempt) -> None:
        """Make the next request one that goes on, or begins again, after this one."""
        stream, endpoint = attempt.stream, self._target.endpoint
        self._tries += 1
        self._cut = None
        if how == "restart":
            self._discarded, self._seam = stream.text, None
            self._ready.append(Restarted(discarded=stream.text, reason=stream.outcome))
            return
        so_far = self._response(attempt)
        self._before = [(so_far.text, so_far.reasoning, so_far.usage)]
        self._seam = recovering.Seam(so_far.text)
        self._messages = recovering.begun(endpoint, self._plan.messages, so_far.text)
        self._options = recovering.with_prefill(endpoint, self._plan.options)

    async def _give_up(self, attempt: Attempt, error: CallFailed) -> None:
        await self._settle(attempt)
        self._fail(attempt, error)

    def _fail(self, attempt: Attempt, error: CallFailed) -> None:
        self._ready.extend(self._held if attempt.committed else ())
        self._held.clear()
        error.response = self._response(attempt)
        error.attempts = self._requests
        error.partial = error.response.text or self._discarded
        error.usage = error.response.usage
        if self._before or self._discarded:  # of an earlier request
            error.phase, error.retryable = "mid_content", False
        self._finish(str(error.outcome), error)

    # The end.

    def _count(self, attempt: Attempt) -> None:
        """Add the request to the figures; once."""
        if attempt is not self._counted:
            self._counted = attempt
            self._tools.figures.request(attempt.stream)

    async def _settle(self, attempt: Attempt) -> None:
        """Close the lease; the next request of this call needs another."""
        lease, self._lease = self._lease, None
        await attempt.settle()
        if lease is not None:
            self._tools.figures.spent(lease.charged, lease.settled)

    async def _leave(self, error: BaseException | None = None) -> None:
        """The consumer has gone, or something failed that is no fault of the provider."""
        self._finish("cancelled", None)
        self._ready.clear()
        await shielded(self._clear_up(error))

    async def _clear_up(self, error: BaseException | None) -> Lease | None:
        attempt, lease = self._attempt, self._lease
        if attempt is not None:
            await (attempt.cancel() if error is None else attempt.fail(error))
            self._count(attempt)
            await self._settle(attempt)
        elif lease is not None:
            self._lease = None
            lease.account(Usage())  # nothing was sent
            await _quietly(lease)
        return lease

    def _finish(self, ending: str, error: BaseException | None) -> None:
        if self._over:
            return
        self._over, self._error = True, error
        self._watch.close()
        result = self.result
        usage = result.usage if result is not None else None
        if usage is None and isinstance(error, SluicegateError):
            usage = error.usage
        self._tools.figures.call(
            ending,
            whole=result is not None,
            took=self._tools.clock() - self._began,
            ttft=self._ttft,
            usage=usage,
        )


def _most(target: Target, plan: Plan) -> int | None:
    """The output that is reserved: what the request allows."""
    most = plan.options.generation.max_tokens
    if most is None and target.endpoint.api == "anthropic":
        return DEFAULT_MAX_TOKENS
    return most


def _of_slots(refusal: RateLimited) -> bool:
    """Whether the limit that refused counts calls at once."""
    meters = {limit.name: limit.meter for limit in refusal.limits}
    return refusal.limit is not None and meters.get(refusal.limit) is Meter.CONCURRENCY


async def _quietly(lease: Lease) -> Lease:
    """An unsettled lease expires."""
    try:
        await lease.settle(Outcome.CANCELLED)
    except SluicegateError:
        return lease
    return lease
