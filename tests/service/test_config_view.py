"""A configuration in full, as a version, and against another."""

from limiter_service.config import parse
from limiter_service.config_view import MOST_CHANGES, changes, effective, version
from limiter_wire import ConfigChange

FILE = """
pools:
  a: {provider: openai, models: {m: {rpm: 600}, n: {tpm: 10}}, tenants: {t: {weight: 2}}}
  b: {models: {"*": {limits: [{meter: tokens, limit: 5, per: minute}]}}}
"""
TURNED = """
pools:
  b: {models: {"*": {limits: [{per: minute, limit: 5, meter: tokens}]}}}
  a: {tenants: {t: {weight: 2}}, models: {n: {tpm: 10}, m: {rpm: 600}}, provider: openai}
"""


def test_every_limit_is_in_the_long_form_with_what_its_provider_adds():
    """Short forms are gone, and a provider's burst is there."""
    found = effective(parse(FILE, ".yaml"))["pools"]["a"]["models"]["m"]
    assert "rpm" not in found
    (limit,) = found["limits"]
    assert (limit["name"], limit["limit"], limit["burst"]) == ("rpm", 600.0, 5.0)


def test_the_order_of_a_file_is_no_part_of_its_version():
    """What decides alike is called alike."""
    assert version(parse(FILE, ".yaml"), None) == version(parse(TURNED, ".yaml"), None)


def test_whatever_decides_is_part_of_the_version():
    """A limit, a weight, a price file."""
    one = version(parse(FILE, ".yaml"), None)
    others = [("rpm: 600", "rpm: 601"), ("weight: 2", "weight: 3"), ("openai", "azure")]
    found = {version(parse(FILE.replace(*each), ".yaml"), None) for each in others}
    assert len(found | {one, version(parse(FILE, ".yaml"), b"{}")}) == 5


def test_changes_name_a_limit_by_its_name():
    """A limit in front of another does not shift all of them."""
    after = FILE.replace("{tpm: 10}", "{rpm: 1, tpm: 20}")
    found = changes(parse(FILE, ".yaml"), parse(after, ".yaml"))
    assert ConfigChange(path="pools.a.models.n.limits[tpm].limit", before=10.0, after=20.0) in found
    assert ConfigChange(path="pools.a.models.n.limits[rpm].limit", after=1.0) in found
    assert not any("limits[tpm].name" in each.path for each in found)


def test_what_stays_is_no_change():
    """Nor is another order."""
    assert changes(parse(FILE, ".yaml"), parse(TURNED, ".yaml")) == []


def test_a_pool_that_goes_is_told_by_what_it_had():
    """Each value, with nothing after it."""
    found = changes(parse(FILE, ".yaml"), parse("pools: {}", ".yaml"))
    assert all(each.after is None or each.path == "pools" for each in found)
    assert "pools.b.models.*.limits[tokens-per-minute].limit" in {each.path for each in found}


def test_a_diff_is_bounded():
    """A new file of ten thousand models is told in its beginning."""
    text = "pools: {p: {models: {" + ", ".join(f"m{n}: {{rpm: 1}}" for n in range(300)) + "}}}"
    assert len(changes(parse("pools: {}", ".yaml"), parse(text, ".yaml"))) == MOST_CHANGES
