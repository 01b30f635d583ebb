"""URLs of stores: what is understood, and what is said of what is not."""

import pytest

from limiter_service.store.address import Address, BadAddress, Login, Topology, parse, redacted

GOOD = {
    "redis://cache": Address(topology=Topology.ONE, hosts=(("cache", 6379),)),
    "redis://u%40x:p%2Fw%23@cache:7000/3": Address(
        topology=Topology.ONE,
        hosts=(("cache", 7000),),
        database=3,
        login=Login("u@x", "p/w#"),
    ),
    "redis://:pw@[::1]:7000/": Address(
        topology=Topology.ONE, hosts=(("::1", 7000),), login=Login(None, "pw")
    ),
    "rediss://cache": Address(topology=Topology.ONE, secure=True, hosts=(("cache", 6379),)),
    "unix:///run/redis.sock": Address(topology=Topology.UNIX, path="/run/redis.sock"),
    "unix://u:p@/run/a%20b.sock?db=2": Address(
        topology=Topology.UNIX, path="/run/a b.sock", database=2, login=Login("u", "p")
    ),
    "redis+sentinel://u:p@s1,s2:7000,[::1]/main/4": Address(
        topology=Topology.SENTINEL,
        hosts=(("s1", 26379), ("s2", 7000), ("::1", 26379)),
        service="main",
        database=4,
        login=Login("u", "p"),
    ),
    "rediss+sentinel://s1/main": Address(
        topology=Topology.SENTINEL, secure=True, hosts=(("s1", 26379),), service="main"
    ),
    "redis+cluster://n1,n2:7001/0": Address(
        topology=Topology.CLUSTER, hosts=(("n1", 6379), ("n2", 7001))
    ),
    "rediss+cluster://u:p@n1": Address(
        topology=Topology.CLUSTER, secure=True, hosts=(("n1", 6379),), login=Login("u", "p")
    ),
}

BAD = {
    "": "no scheme is not known; known are redis://",
    "cache:6379": "cache:// is not known",
    "http://cache": "http:// is not known",
    "redis://": "a host is missing",
    "redis://cache:port": "'cache' is no host",
    "redis://cache:70000": "'cache' is no host",
    "redis://cache:0": "port 0 of cache is no port",
    "redis://a,b": "several hosts are redis+sentinel:// or redis+cluster://",
    "redis://cache/x": "'x' is no database",
    "redis://cache/-1": "'-1' is no database",
    "redis://cache/1/2": "'/1/2' has too many parts",
    "redis://cache?db=1": "unknown option 'db': the database is the path",
    "redis://cache?ssl_cert_reqs=none": "unknown option 'ssl_cert_reqs'",
    "redis://cache?x": "it cannot be read",
    "redis://u:p#w@cache": "it has a `#`: percent-encode it",
    "unix://run/redis.sock": "a socket has no host",
    "unix://": "the path of the socket is missing",
    "unix:///s?database=1": "it takes only `db`",
    "redis+sentinel://s1": "the name of the service is missing",
    "redis+sentinel://s1/main/x": "'x' is no database",
    "redis+sentinel://s1,,s2/main": "a host is missing",
    "redis+cluster://n1/1": "database 1 does not exist: a cluster has only number 0",
    "redis+cluster://[::1/": "it cannot be read",
}


@pytest.mark.parametrize("url", GOOD)
def test_a_url_names_a_store(url: str) -> None:
    """Hosts, ports by default, login and database."""
    assert parse(url) == GOOD[url]


@pytest.mark.parametrize("url", BAD)
def test_a_bad_url_is_refused_and_says_why(url: str) -> None:
    """In words that say what to change."""
    with pytest.raises(BadAddress) as refused:
        parse(url)
    assert BAD[url] in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:canary@cache/1/2",
        "redis://u:canary@a,b",
        "redis+sentinel://u:canary@s1:x/main",
        "http://u:canary@cache",
        "redis://u:canary@[::1",
    ],
)
def test_no_message_has_the_password(url: str) -> None:
    """Neither the reason nor the URL as it is shown."""
    with pytest.raises(BadAddress) as refused:
        parse(url)
    assert "canary" not in str(refused.value)
    assert "canary" not in redacted(url)


def test_a_shown_url_keeps_what_is_no_secret() -> None:
    """User and hosts, also several."""
    assert redacted("redis+sentinel://u:p@a:1,b/main") == "redis+sentinel://u:***@a:1,b/main"
    assert redacted("redis://cache/1") == "redis://cache/1"
