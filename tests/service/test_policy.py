"""From configuration to the chain of limits that one resource meets for one tenant."""

import pytest

from limiter_service.config import parse
from limiter_service.engine.policy import Policies, Policy, UnknownResource

CONFIG = """
pools:
  p:
    rpm: 100
    models:
      m: {tpm: 1000}
      "m-*": {tpm: 500}
      bare: {}
    tenants:
      team: {tpd: 9000, models: {m: {concurrency: 3}}}
      "*": {rpd: 50}
  q:
    models: {"*": {}}
"""


def chain(resource: str, tenant: str, text: str = CONFIG) -> Policy:
    """The policy of a resource for a tenant."""
    return Policies(parse(text, ".yaml"), "x:").policy(resource, tenant)


def test_the_chain_is_pool_model_tenant_and_tenant_on_model():
    """Limits stand in that order, named after their scope."""
    assert [(limit.name, limit.scope) for limit in chain("p/m", "team").limits] == [
        ("p.rpm", "pool"),
        ("m.tpm", "model"),
        ("team.tpd", "tenant"),
        ("team.m.concurrency", "tenant_model"),
    ]


def test_a_pattern_gives_each_name_a_limit_of_its_own():
    """Two models of one pattern share its amounts, not its state."""
    one, two = chain("p/m-1", "a"), chain("p/m-2", "a")
    assert [limit.name for limit in one.limits] == ["p.rpm", "m-1.tpm", "a.rpd"]
    keys = [set(policy.chain(0).scopes) for policy in (one, two)]
    assert len(keys[0] & keys[1]) == 2  # the pool and the tenant
    assert len(keys[0] | keys[1]) == 4


def test_every_key_of_a_pool_has_its_hash_tag():
    """A cluster keeps the pool on one node."""
    policy = chain("p/m", "team").chain(0)
    for key in policy.keys:
        assert key.startswith("x:{p}:")
    assert len(policy.scopes) == len(policy.policies) == 4
    assert sum(map(len, policy.slots)) == 1


def test_a_resource_without_limits_has_one_scope():
    """A lease needs the time of its grant."""
    policy = chain("q/any", "a")
    assert policy.limits == ()
    assert len(policy.chain(0).scopes) == 1


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        ("r/m", "no pool 'r'; configured pools: p, q"),
        ("p/x", "no model 'x' in pool 'p'; configured models: bare, m, m-*"),
    ],
)
def test_what_is_not_configured_is_unknown(resource: str, said: str):
    """The message says what there is."""
    with pytest.raises(UnknownResource, match=said.replace("*", r"\*")):
        chain(resource, "a")


LIMIT = "pools: {{p: {{models: {{m: {{limits: [{{name: a, meter: {}}}]}}}}}}}}"


def identity(text: str) -> int:
    """The id of the only limit of a file."""
    (limit,) = chain("p/m", "a", LIMIT.format(text)).limits
    return limit.id


def test_amounts_do_not_change_the_identity_of_a_limit():
    """After a reload the level moves with its limit, when only numbers have changed."""
    same = [
        "tokens, limit: 5, per: day",
        "tokens, limit: 7, per: day",
        "tokens, limit: 5, per: minute",
        "tokens, limit: 5, per: day, burst: 2",
        "tokens, limit: 5, per: day, mode: shadow",
        "tokens, limit: 5, per: day, weights: {output: 5}",
    ]
    assert len({identity(text) for text in same}) == 1


def test_what_changes_the_meaning_of_the_state_is_another_limit():
    """Meter, window, period of a ring, span and zone of a calendar."""
    others = [
        "tokens, limit: 5, per: day",
        "requests, limit: 5, per: day",
        "concurrency, limit: 5",
        "tokens, limit: 5, per: day, window: sliding",
        "tokens, limit: 5, per: hour, window: sliding",
        "tokens, limit: 5, per: day, window: calendar",
        "tokens, limit: 5, per: month, window: calendar",
        "tokens, limit: 5, per: day, window: calendar, timezone: Asia/Tokyo",
    ]
    assert len({identity(text) for text in others}) == len(others)


def test_ids_are_exact_in_a_double():
    """The scripts carry them as such."""
    for limit in chain("p/m", "team").limits:
        assert int(float(limit.id)) == limit.id


def test_a_bucket_has_its_burst_and_its_rate():
    """Capacity is the burst, or the limit; the rate is units per microsecond."""
    text = LIMIT.format("tokens, limit: 600, per: minute, burst: 20")
    (limit,) = chain("p/m", "a", text).limits
    assert (limit.capacity, limit.limit, limit.rate) == (20, 600, 10 / 1e6)
    dollars = LIMIT.format("cost_usd, limit: 60, per: minute")
    priced = dollars.replace("{models", "{cost_in_requests: true, models")
    (money,) = chain("p/m", "a", priced).limits
    assert (money.capacity, money.unit, money.rate) == (60e6, 1_000_000, 1.0)


def test_a_chain_is_made_again_when_its_calendar_turns():
    """Within a window the same bytes are sent; after it, new boundaries."""
    day = 86_400_000_000
    text = LIMIT.format("tokens, limit: 5, per: day, window: calendar")
    policy = chain("p/m", "a", text)
    first = policy.chain(10 * day + 5)
    assert policy.chain(11 * day - 1) is first
    assert policy.chain(11 * day) != first
    assert policy.chain(10 * day) == first


def test_a_chain_without_calendars_is_made_once():
    """It does not depend on the time."""
    policy = chain("p/m", "team")
    assert policy.chain(0) is policy.chain(1e18)


def test_policies_are_kept_within_bounds():
    """Callers choose tenants and models, so what is remembered is bounded."""
    policies = Policies(parse(CONFIG, ".yaml"), "x:", most=10)
    for i in range(95):
        policies.policy("q/m", f"t{i}")
    assert len(policies._known) <= 10
    assert policies.policy("q/m", "t94") is policies.policy("q/m", "t94")
