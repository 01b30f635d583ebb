"""Coverage-guided fuzzing of the streaming core.

    python scripts/fuzz_streams.py --seconds 120 [--corpus DIRECTORY] [--dialect NAME]

Needs atheris, which is no dependency of the project: install it next to the checkout's own
dependencies. Each input is read as a stream of one dialect in two chunkings; whatever
raises, does not add up, or means something else when it is cut, stops the run with the
input in build/. The streams of the conformance table are the first inputs.
"""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
PARTS = ("client_sdk.streaming", "client_sdk.outcomes")


def load(atheris: ModuleType) -> tuple[ModuleType, ModuleType]:
    """What is fuzzed, instrumented, and the table."""
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    importlib.import_module("client_sdk")
    for name in [name for name in sys.modules if name.startswith(PARTS)]:
        del sys.modules[name]
    with atheris.instrument_imports(include=[*PARTS]):
        importlib.import_module("client_sdk.streaming")
    hostile = importlib.import_module("tests_support.hostile")
    return hostile, importlib.import_module("tests_support.stream_cases")


def main() -> None:
    """Fuzz for as long as asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="directory of inputs to keep")
    parser.add_argument("--dialect", help="only this one")
    options = parser.parse_args()
    try:
        atheris = importlib.import_module("atheris")
    except ModuleNotFoundError:
        sys.exit("atheris is not installed here: nothing was fuzzed")
    hostile, table = load(atheris)
    dialects = [options.dialect] if options.dialect else list(hostile.DIALECTS)

    def one(data: bytes) -> None:
        """The first bytes choose dialect, cut and what happens to bad frames."""
        if len(data) < 2:  # noqa: PLR2004  # the head
            return
        dialect = dialects[data[0] % len(dialects)]
        size, skip, body = 1 + data[1] % 64, data[1] >= 128, data[2:]  # noqa: PLR2004  # a bit
        whole = hostile.examine(dialect, body, max(1, len(body)), skip=skip)
        if dialect != "unknown":
            cut = hostile.examine(dialect, body, size, skip=skip)
            assert hostile.meaning(cut) == hostile.meaning(whole)

    with tempfile.TemporaryDirectory() as scratch:
        corpus = options.corpus or Path(scratch)
        corpus.mkdir(parents=True, exist_ok=True)
        for n, case in enumerate(table.CASES):
            if case.dialect in dialects:
                head = bytes([dialects.index(case.dialect), n % 256])
                (corpus / f"case-{n}").write_bytes(head + case.body)
        found = ROOT / "build"
        found.mkdir(exist_ok=True)
        limits = [f"-max_total_time={options.seconds}", "-timeout=10", "-rss_limit_mb=1500"]
        limits.append(f"-artifact_prefix={found}/")
        atheris.Setup([sys.argv[0], *limits, "-max_len=4096", str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
