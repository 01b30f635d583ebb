"""The streaming core: bytes and times in, events out. No I/O, no clock of its own."""
