"""CPU per event of the streaming core, beside the provider SDKs and other decoders.

    python benchmarks/stream_speed.py [--rounds 9] [--events 2000] [--peers DIRECTORY]

The peers (openai, anthropic, httpx-sse, launchdarkly-eventsource) are installed into a
virtual environment of their own, which is thrown away unless --peers names where to keep
it. Everything runs there in one process, on the same bytes, interleaved round by round;
each variant has to deliver the whole text. Machines are noisy: read the ratios, each the
median of those within a round.

decode  bytes to events
typed   bytes to typed chunks, and their text
full    bytes to the accumulated answer, with clocks, figures and tool calls
"""

import argparse
import codecs
import gc
import importlib.metadata
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEERS = ["openai", "anthropic", "httpx-sse", "launchdarkly-eventsource"]
OURS = ["httpx", "jiter", "msgspec", "websockets"]
WORDS = ["Die ", "Wörter ", "fließen, ", "one ", "by ", "one: ", "木 ", "tree "]
INSIDE = "--inside"
US = 1e6

Run = Callable[[list[bytes]], str]
TARGETS = {
    ("openai", "decode"): ("openai SSEDecoder", 4),
    ("openai", "typed"): ("openai Stream", 30),
    ("openai", "full"): ("openai .stream()", 50),
    ("anthropic", "typed"): ("anthropic Stream", 6),
}


def openai_body(events: int) -> tuple[list[bytes], str]:
    """One frame per event, and the text that they add up to."""
    frames, text = [], ""
    for n in range(events):
        piece = WORDS[n % len(WORDS)]
        text += piece
        frames.append(
            {
                "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012",
                "object": "chat.completion.chunk",
                "created": 1767225600,
                "model": "gpt-4o-2024-08-06",
                "service_tier": "default",
                "system_fingerprint": "fp_0123456789",
                "choices": [
                    {"index": 0, "delta": {"content": piece}, "logprobs": None}
                    | {"finish_reason": None}
                ],
                "usage": None,
                "obfuscation": "x" * (12 - len(piece) % 8),
            }
        )
    frames.append(frames[-1] | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    body = [f"data: {json.dumps(frame)}\n\n".encode() for frame in frames]
    return [*body, b"data: [DONE]\n\n"], text


def anthropic_body(events: int) -> tuple[list[bytes], str]:
    """The same in the events of Anthropic."""
    usage = {"input_tokens": 12, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x"}
    message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    frames: list[dict[str, object]] = [{"type": "message_start", "message": message}]
    block = {"type": "text", "text": ""}
    frames.append({"type": "content_block_start", "index": 0, "content_block": block})
    text = ""
    for n in range(events):
        piece = WORDS[n % len(WORDS)]
        text += piece
        delta = {"type": "text_delta", "text": piece}
        frames.append({"type": "content_block_delta", "index": 0, "delta": delta})
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    frames.append({"type": "content_block_stop", "index": 0})
    frames.append({"type": "message_delta", "delta": stop, "usage": {"output_tokens": events}})
    frames.append({"type": "message_stop"})
    body = [f"event: {f['type']}\ndata: {json.dumps(f)}\n\n".encode() for f in frames]
    return body, text


def cut(frames: list[bytes], size: int | None) -> list[bytes]:
    """The body in chunks of *size*, or one per event."""
    if size is None:
        return frames
    body = b"".join(frames)
    return [body[at : at + size] for at in range(0, len(body), size)]


def ours(dialect: str) -> dict[str, Run]:
    """What we have, layer by layer."""
    from client_sdk.streaming import SSEDecoder, StreamAccumulator  # noqa: PLC0415
    from client_sdk.streaming.answer import Answer  # noqa: PLC0415
    from client_sdk.streaming.dialects import DIALECTS  # noqa: PLC0415

    def feed(chunks: list[bytes]) -> str:
        decoder = SSEDecoder()
        for chunk in chunks:
            for _event in decoder.feed(chunk):
                pass
        return ""

    def iterate(chunks: list[bytes]) -> str:
        for _event in SSEDecoder().iter_events(chunks):
            pass
        return ""

    def typed(chunks: list[bytes]) -> str:
        decoder, answer, parts = SSEDecoder(), Answer(), []
        read = DIALECTS[dialect](answer).read
        for chunk in chunks:
            for event in decoder.feed(chunk):
                read(event)  # type: ignore[arg-type]  # the body has no comments
                parts += [found.content for found in answer.chunks]
                answer.chunks.clear()
        return "".join(parts)

    def full(chunks: list[bytes]) -> str:
        accumulator = StreamAccumulator(dialect, clock=time.monotonic)
        for chunk in chunks:
            accumulator.feed(chunk, time.monotonic())
        accumulator.finish(time.monotonic())
        assert accumulator.outcome == "completed"
        assert accumulator.statistics.gaps is not None
        return accumulator.text

    return {
        "decode sluicegate feed": feed,
        "decode sluicegate iter_events": iterate,
        "typed sluicegate": typed,
        "full sluicegate": full,
    }


def decoders() -> dict[str, Run]:
    """Other decoders of server-sent events."""
    from anthropic._streaming import SSEDecoder as AnthropicDecoder  # noqa: PLC0415
    from httpx_sse._decoders import SSEDecoder as HttpxDecoder  # noqa: PLC0415
    from httpx_sse._decoders import SSELineDecoder  # noqa: PLC0415
    from ld_eventsource.reader import _BufferedLineReader, _SSEReader  # noqa: PLC0415
    from openai._streaming import SSEDecoder as OpenAIDecoder  # noqa: PLC0415

    def drain(events: Iterable[object]) -> str:
        for _event in events:
            pass
        return ""

    def httpx_sse(chunks: list[bytes]) -> str:

        text, lines, events = (
            codecs.getincrementaldecoder("utf-8")(),
            SSELineDecoder(),
            HttpxDecoder(),
        )
        for chunk in chunks:
            for line in lines.decode(text.decode(chunk)):
                events.decode(line)
        return ""

    def launchdarkly(chunks: list[bytes]) -> str:
        return drain(_SSEReader(_BufferedLineReader.lines_from(chunks)).events_and_comments())

    return {
        "decode openai SSEDecoder": lambda chunks: drain(OpenAIDecoder().iter_bytes(iter(chunks))),
        "decode anthropic SSEDecoder": lambda chunks: drain(
            AnthropicDecoder().iter_bytes(iter(chunks))
        ),
        "decode httpx-sse": httpx_sse,
        "decode launchdarkly": launchdarkly,
    }


def sdk(provider: str) -> dict[str, Run]:
    """The SDK's own streams, over a transport that hands out the chunks."""
    import anthropic  # noqa: PLC0415
    import httpx2  # noqa: PLC0415
    import openai  # noqa: PLC0415

    class Chunks(httpx2.SyncByteStream):
        def __init__(self, chunks: list[bytes]) -> None:
            self.chunks = chunks

        def __iter__(self) -> Iterator[bytes]:
            return iter(self.chunks)

    class Transport(httpx2.BaseTransport):
        chunks: list[bytes]

        def handle_request(self, request: httpx2.Request) -> httpx2.Response:  # noqa: ARG002
            headers = {"content-type": "text/event-stream"}
            return httpx2.Response(200, headers=headers, stream=Chunks(self.chunks))

    transport = Transport()
    http = httpx2.Client(transport=transport)
    say = [{"role": "user", "content": "go"}]
    if provider == "openai":
        client = openai.OpenAI(api_key="none", base_url="http://peer/v1", http_client=http)

        def typed(chunks: list[bytes]) -> str:
            transport.chunks = chunks
            stream = client.chat.completions.create(model="m", messages=say, stream=True)
            return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)

        def full(chunks: list[bytes]) -> str:
            transport.chunks = chunks
            with client.chat.completions.stream(model="m", messages=say) as stream:
                for _event in stream:
                    pass
                return stream.get_final_completion().choices[0].message.content or ""

    else:
        other = anthropic.Anthropic(api_key="none", base_url="http://peer", http_client=http)

        def typed(chunks: list[bytes]) -> str:
            transport.chunks = chunks
            stream = other.messages.create(model="m", messages=say, max_tokens=9, stream=True)
            return "".join(e.delta.text for e in stream if e.type == "content_block_delta")

        def full(chunks: list[bytes]) -> str:
            transport.chunks = chunks
            with other.messages.stream(model="m", messages=say, max_tokens=9) as stream:
                for _event in stream:
                    pass
                return stream.get_final_text()

    return {f"typed {provider} Stream": typed, f"full {provider} .stream()": full}


def clocks(events: int) -> float:
    """Microseconds that both clocks cost per chunk."""
    from client_sdk.streaming.liveness import Liveness, StreamTimeouts  # noqa: PLC0415

    live = Liveness(StreamTimeouts())
    live.byte(0.0)
    before = time.process_time()
    for n in range(events):
        live.last_byte = n
        live.last_content = n
    return (time.process_time() - before) / events * US


def compare(provider: str, size: int | None, events: int, rounds: int) -> None:
    """Print one table."""
    frames, text = (openai_body if provider == "openai" else anthropic_body)(events)
    chunks = cut(frames, size)
    dialect = "openai-chat" if provider == "openai" else "anthropic"
    runs = {**ours(dialect), **decoders(), **sdk(provider)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()  # of what the variant before has left
            before = time.process_time()
            delivered = run(chunks)
            times[name].append((time.process_time() - before) / len(frames) * US)
            assert name.startswith("decode") or delivered == text, name
    label = "one event" if size is None else f"{size:,} bytes"
    print(f"\n{provider}: {len(frames)} events, {len(b''.join(frames)) // len(frames)} bytes each,")
    print(f"chunks of {label}{'us/event':>29}{'x ours':>9}")
    for layer in ("decode", "typed", "full"):
        mine = next(name for name in runs if name.startswith(f"{layer} sluicegate"))
        for name in sorted(
            (n for n in runs if n.startswith(layer)), key=lambda n: statistics.median(times[n])
        ):
            pairs = zip(times[name], times[mine], strict=True)
            ratio = statistics.median(peer / own for peer, own in pairs)
            target = ""
            peer, wanted = TARGETS.get((provider, layer), ("", 0))
            if size is None and name == f"{layer} {peer}":
                target = f"   target {wanted}"
            print(f"  {name:36}{statistics.median(times[name]):10.2f}{ratio:9.1f}{target}")


def inside(options: argparse.Namespace) -> None:
    """Measure, where the peers are installed."""
    versions = {name: importlib.metadata.version(name) for name in [*PEERS, *OURS]}
    print(sys.version.split()[0], " ".join(f"{k} {v}" for k, v in versions.items()))
    for provider in ("openai", "anthropic"):
        for size in (None, 65_536, 17):
            events = options.events if size != 17 else max(100, options.events // 8)
            compare(provider, size, events, options.rounds)
    print(f"\nboth clocks: {clocks(200_000):.2f} us per chunk")


def outside(options: argparse.Namespace, home: Path) -> int:
    """Make the environment of the peers and measure there."""
    python = home / "bin" / "python"
    if not python.exists():
        venv.create(home, with_pip=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *PEERS, *OURS], check=True)
    command = [str(python), __file__, INSIDE]
    command += ["--rounds", str(options.rounds), "--events", str(options.events)]
    # The checkout itself needs no installing, only its dependencies: OURS.
    return subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=False).returncode


def main() -> None:
    """Run in the environment of the peers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--peers", type=Path, help="directory of the peers' environment to keep")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options)
    elif options.peers:
        sys.exit(outside(options, options.peers))
    else:
        with tempfile.TemporaryDirectory() as home:
            sys.exit(outside(options, Path(home)))


if __name__ == "__main__":
    main()
