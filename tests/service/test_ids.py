"""Names of leases; of calls and requests in tests/sdk/test_naming.py."""

from base64 import urlsafe_b64encode

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from limiter_service.engine import ids

TEXTS = st.text(max_size=60)


@given(TEXTS, TEXTS, TEXTS, TEXTS, st.integers(0, 2**52), st.none() | TEXTS)
def test_a_lease_id_is_the_same_with_and_without_its_stem(
    pool: str, model: str, tenant: str, request_id: str, nonce: int, route: str | None
):
    """URL-safe base64 of what it stands for, and it is read back."""
    ref = ids.LeaseRef(pool, model, tenant, request_id, nonce, route)
    found = ids.Stem(pool, model, tenant).encode(request_id, nonce, route)
    assert found == ids.encode(ref)
    assert found == urlsafe_b64encode(msgspec.msgpack.encode(ref)).decode().rstrip("=")
    assert ids.decode(found) == ref


@given(st.text(max_size=40))
def test_what_is_no_lease_id_stands_for_nothing(text: str):
    """Whatever a caller makes up."""
    found = ids.decode(text)
    assert found is None or isinstance(found, ids.LeaseRef)
