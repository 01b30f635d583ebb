"""The scripts of acquire and settle as they would be without a breaker, for comparison.

They are made from the sources by cutting out what belongs to the gate, so both decide and
store the same of everything else. A cut that no longer fits is an error.
"""

import re

from limiter_service.store.scripts import FLAGS, part, source

_LIBRARY = (r"-- @include lib/calm\n.*?(?=local texts = )", "")

_CUTS = {
    "acquire": (
        _LIBRARY,
        (
            r"local ask, wall, place, policy = .*?(?=local worst, wait, refused)",
            "local ask, wall = numbers(request), now_us()\n",
        ),
        (r"  if g then\n    breaker\.close\(g, wall\)\n  end\n(?=  return tag \.\. \"D\")", ""),
        (r"local marks = ask\[MARKS\]\n.*?(?=local last = take)", ""),
        (
            r"if refused or generation .*?\n  ask\[EPOCH\], ask\[MARKS\] = .*?\n",
            "if refused then\n",
        ),
        (r"if g then\n  breaker\.close\(g, wall\)\n  breaker\.close_pin\(g\)\nend\n", ""),
    ),
    "settle": (
        _LIBRARY,
        (r", place = (string\.sub\(.*?\)), #KEYS - 4\n", r" = \1\n"),
        (r"local class, pause = .*?\n", "local class = report[4]\n"),
        (r"if not lease and not .*?\n", "if not lease then\n"),
        (
            r"-- A success of a circuit .*?(?=if told_limits or)",
            "local marks = lease[MARKS]\n",
        ),
        (r"    tell\(lease\[EPOCH\]\)\n", ""),
        (r"tell\(lease\[EPOCH\]\)\n", ""),
    ),
}


def ungated(name: str) -> str:
    """The text of acquire or settle without a gate."""
    text = part(name)
    for pattern, replacement in _CUTS[name]:
        text, count = re.subn(pattern, replacement, text, count=1, flags=re.DOTALL)
        assert count == 1, f"{pattern!r} no longer fits {name}"
    whole = source(name, {name: text})
    assert "breaker_of" not in whole
    assert "calmly" not in whole
    flags = f" flags={FLAGS[name]}" if name in FLAGS else ""
    return f"#!lua{flags}\n{whole}"  # what the server does with that line is not the gate's
