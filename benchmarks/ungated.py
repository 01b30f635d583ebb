"""The scripts of acquire and settle as they would be without a breaker, for comparison.

They are made from the sources by cutting out what belongs to the gate where ordinary calls are
decided, so both decide and store the same of everything else. A cut that no longer fits is an
error. What is not ordinary they cannot decide.
"""

import re

from limiter_service.store.scripts import FLAGS, part, source

_LAYOUT = "\n-- @include lib/layout\n"
_UNTIL_DECIDED = (
    _LAYOUT + ".*",
    f"{_LAYOUT}-- @include lib/bucket\n-- @include lib/lease\n",
)
_TAKEN = (r'  if policy ~= "" then\n    \w+.*?= \w+_calmly.*?\n  end\n', "")

_CUTS = {
    "acquire": (_UNTIL_DECIDED, (r"-- @include lib/calm\n", "")),
    "acquire_group": ((r"-- @include lib/calm\n", ""),),
    "settle": (_UNTIL_DECIDED, (r"-- @include lib/success\n", "")),
    "lib/granted": (
        _TAKEN,
        (r'policy == "" or ask\[MARKS\] % 1024 < 512', "true"),
        (r"      if generation ~= 1 then\n.*?\n      end\n", ""),
        (r"    if earned then\n.*?\n    end\n(?=  end\n)", ""),
    ),
    "lib/settled": (
        _TAKEN,
        (r'    if policy ~= "" then\n.*?\n    end\n', ""),
        (r"    if seen then\n      count_success.*?\n    end\n", ""),
        (r"    if seen then\n.*?\n    end\n(?=  end\n)", ""),
    ),
}
_DECIDES = {
    "acquire": "lib/granted",
    "acquire_group": "lib/granted",
    "settle": "lib/settled",
}


def ungated(name: str) -> str:
    """The text of acquire, acquire_group or settle without a gate."""
    whole = source(name, {each: _cut(each) for each in (name, _DECIDES[name])})
    assert not re.search("calmly|earn_more|count_success", whole)
    flags = f" flags={FLAGS[name]}" if name in FLAGS else ""
    return f"#!lua{flags}\n{whole}"  # what the server does with that line is not the gate's


def _cut(name: str) -> str:
    text = part(name)
    for pattern, replacement in _CUTS[name]:
        text, count = re.subn(pattern, replacement, text, count=1, flags=re.DOTALL)
        assert count == 1, f"{pattern!r} no longer fits {name}"
    return text
