"""URLs of Redis servers, Sentinels and clusters."""

from __future__ import annotations

import pytest

from gateway.config.fields import redis_connection_url
from gateway.storage.redis_url import RedisUrlError, parse_redis_url


def test_sentinel_url_has_nodes_service_and_access_of_both() -> None:
    url = parse_redis_url("redis+sentinel://me:p%40ss%3A@one:1,two,[::1]:3/main?db=2")

    assert url.kind == "sentinel"
    assert url.nodes == (("one", 1), ("two", 26379), ("::1", 3))
    assert url.service == "main"
    assert url.options == {"username": "me", "password": "p@ss:", "db": 2}
    assert url.sentinel_options == {"username": "me", "password": "p@ss:"}
    assert set(url.secrets) == {"me", "p@ss:"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("sentinel_password=", {}),
        ("sentinel_username=s&sentinel_password=t", {"username": "s", "password": "t"}),
    ],
)
def test_sentinels_may_have_access_of_their_own(query: str, expected: dict[str, str]) -> None:
    url = parse_redis_url(f"redis+sentinel://:secret@one/main?{query}")

    assert url.sentinel_options == expected
    assert url.options == {"password": "secret"}
    assert set(url.secrets) == {"secret", *expected.values()}


def test_cluster_url_with_tls() -> None:
    url = parse_redis_url("rediss+cluster://:secret@one:7000,two:7001/0?ssl_cert_reqs=none")

    assert (url.kind, url.nodes) == ("cluster", (("one", 7000), ("two", 7001)))
    assert url.options.pop("connection_class").__name__ == "SSLConnection"
    assert url.options == {"password": "secret", "ssl_cert_reqs": "none"}
    assert "secret" not in repr(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://:hunter2@host", "must begin with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://"),
        ("redis+sentinel://:hunter2@host:26379", "the name of the service must follow the addresses"),
        ("redis+sentinel://:hunter2@host:26379/a/b", "the name of the service must follow the addresses"),
        ("redis+sentinel://:hunter2@host:26379,host:hunter2/a", "address 2 is not a host and a port between 1 and"),
        ("redis+cluster://:hunter2@host:70000", "address 1 is not a host and a port between 1 and 65,535"),
        ("redis+cluster://:hunter2@", "address 1 is not a host and a port"),
        ("redis+cluster://:hunter2@host:1/3", "a cluster has only database 0"),
        ("redis+cluster://:hunter2@host:1?db=3", "a cluster has only database 0"),
        ("redis+cluster://:hunter2@" + ",".join(["host"] * 10), "it has 10 addresses, and the maximum is 9"),
        ("redis+cluster://:hunter2@host:1?hunter2=3", "options that redis-py supports"),
        ("redis://:hunter2@host:1,host:2", "must look like redis://:password@host:6379/0, with a valid port"),
    ],
)
def test_invalid_url_is_explained_without_showing_it(url: str, words: str) -> None:
    with pytest.raises(RedisUrlError) as caught:
        parse_redis_url(url)

    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert redis_connection_url(url) == str(caught.value)
