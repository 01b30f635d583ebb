"""Which HTTP family a client or a transport belongs to: httpx, or httpx2, its successor.

Both are looked up among the modules that are loaded: who hands over an object of a family
has imported it, and the other one is never loaded. Where a class says it comes from tells
nothing, since SDKs rewrite that.
"""

import sys
from types import ModuleType

FAMILIES = ("httpx2", "httpx")


def family_of(thing: object, *classes: str) -> ModuleType | None:
    """The module of which *thing* is an instance of one of *classes*; None: of no family."""
    for name in FAMILIES:
        module = sys.modules.get(name)
        for kind in classes:
            found = getattr(module, kind, None)
            if isinstance(found, type) and isinstance(thing, found):
                return module
    return None
