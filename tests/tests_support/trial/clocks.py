"""Servers whose clock a test moves, where there is a compiler; elsewhere clocks stay."""

import shutil
import struct
import subprocess
from pathlib import Path

_SOURCE = Path(__file__).parent / "ahead.c"
_STARTER = """#!/bin/sh
for word; do
  if [ "$before" = --dir ] && [ -f "$word/ahead" ]; then
    export CLOCK_AHEAD="$word/ahead" LD_PRELOAD={library}
  fi
  before=$word
done
exec {binary} "$@"
"""


class Clocks:
    """`binary` starts a server whose clock stands in the file `ahead` of its directory."""

    def __init__(self, binary: str, home: Path) -> None:
        self.binary = binary
        compiler = shutil.which("cc")
        self.movable = compiler is not None
        if compiler is None:
            return
        library = home / "ahead.so"
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE)]
        self.movable = subprocess.run(command, check=False).returncode == 0
        if self.movable:
            starter = home / "start"
            starter.write_text(_STARTER.format(library=library, binary=binary))
            starter.chmod(0o700)
            self.binary = str(starter)

    def set(self, home: Path, seconds: float) -> int:
        """Move the clock of the server in *home*; how far ahead it is now, in microseconds."""
        by = round(seconds * 1_000_000) if self.movable else 0
        with (home / "ahead").open("r+b" if (home / "ahead").exists() else "wb") as file:
            file.write(struct.pack("<q", by))
        return by
