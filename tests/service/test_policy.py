"""From configuration to the chain of limits that one resource meets for one tenant."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from limiter_service.config import parse
from limiter_service.engine.demands import usual
from limiter_service.engine.policy import Policies, Policy, UnknownResource
from limiter_service.store.keys import Keys
from limiter_wire import Acquire

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
    """Callers choose tenants and models, so what is remembered is bounded: for one that comes
    another goes, and it is the oldest.
    """
    policies = Policies(parse(CONFIG, ".yaml"), "x:", most=10)
    names = [f"t{i}" for i in range(12)]
    first = {name: policies.policy("q/m", name) for name in names}
    same = [name for name in names[2:] if policies.policy("q/m", name) is first[name]]
    assert same == names[2:]
    assert policies.policy("q/m", "t0") is not first["t0"]
    for i in range(95):
        policies.policy(f"q/m{i}", "a")
    assert len(policies._known) == len(policies._templates) == 10


def test_what_tenants_of_a_section_share_is_there_once():
    """Also where each has limits of its own: their names and keys are all that it has alone."""
    policies = Policies(parse(CONFIG, ".yaml"), "x:")
    one, two, team = (policies.policy("p/m-1", name) for name in ("a", "b", "team"))
    assert one.template is two.template is not team.template
    assert one.chain(0).policies is two.chain(0).policies
    assert one.limits[0] is two.limits[0]
    names = ["p.rpm", "m-1.tpm", "b.rpd"]
    assert [limit.name for limit in two.limits] == names
    assert two.shape is not None
    assert [face[0] for face in two.shape.faces] == names
    request = Acquire(resource="p/m-1", tokens=5)
    assert usual(one, request) is usual(two, request) is not None


def test_a_policy_is_known_at_once_where_its_resource_is_configured():
    """A tenant that comes for the first time is no unusual one."""
    policies = Policies(parse(CONFIG, ".yaml"), "x:")
    assert policies.known("q/m", "new") is policies.policy("q/m", "new")
    assert policies.known("r/m", "new") is policies.known("p/x", "new") is None


LIMITS = st.lists(
    st.sampled_from(
        [
            "{name: a, meter: tokens, limit: 5, per: day, window: calendar}",
            "{name: b, meter: concurrency, limit: 5}",
            "{name: c, meter: requests, limit: 5, per: minute, window: sliding, mode: shadow}",
            "{name: d, meter: tokens, limit: 5, per: hour, ramp: {start: 2}}",
            "{name: e, meter: input_tokens, limit: 5, per: minute}",
        ]
    ),
    unique=True,
    max_size=3,
).map(lambda limits: f"limits: [{', '.join(limits)}]")
NAMES = st.text("ab.:{é", min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(LIMITS, LIMITS, LIMITS, LIMITS, st.lists(NAMES, min_size=2, max_size=4, unique=True))
def test_tenants_of_a_section_differ_in_their_names_alone(
    pool: str, model: str, tenant: str, both: str, names: list[str]
):
    """Whoever was met before, a tenant has the limits of its section, under names and keys in
    which its own stands where that of another has the other's.
    """
    models, tenants = f'"*": {{{model}}}', f'"*": {{{tenant}, models: {{"*": {{{both}}}}}}}'
    text = f"pools: {{p: {{{pool}, models: {{{models}}}, tenants: {{{tenants}}}}}}}"
    policies = Policies(parse(text, ".yaml"), "x:", most=len(names) - 1)
    keys = Keys("p", "x:")
    for name in names:
        policy = policies.policy("p/m", name)
        alone = Policies(parse(text, ".yaml"), "x:").policy("p/m", "someone")
        own = {"tenant": "someone", "tenant_model": "someone"}
        assert policy.limits == tuple(
            replace(limit, name=limit.name.replace(own.get(limit.scope, "\0"), name, 1))
            for limit in alone.limits
        )
        labels = {"pool": "p", "model": "m", "tenant": name, "tenant_model": f"{name}.m"}
        for limit in policy.limits:
            assert limit.name.startswith(f"{labels[limit.scope]}.{limit.config.name}")
        chain, other = policy.chain(10.0), alone.chain(10.0)
        assert chain.arguments == other.arguments
        assert (chain.levels, chain.shape) == (other.levels, other.shape)
        of = {
            "pool": keys.pool_scope(),
            "model": keys.model_scope("m"),
            "tenant": keys.tenant_scope(name),
            "tenant_model": keys.tenant_model_scope(name, "m"),
        }
        places = [place for place, _ in policy.placed]
        assert places == [(of[limit.scope], limit.id) for limit in policy.limits]
        scopes = list(dict.fromkeys(key for key, _ in places)) or [of["model"]]
        assert list(chain.scopes) == scopes
        slots = [
            keys.slots(of[limit.scope], limit.id)
            for limit in policy.limits
            if limit.window == "concurrency"
        ]
        assert [key for each in chain.slots for key in each] == slots
