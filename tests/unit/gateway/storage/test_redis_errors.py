"""Reasons why Redis cannot be used."""

from __future__ import annotations

import pytest
import redis
from redis.exceptions import RedisClusterException

from gateway.storage.redis_errors import concerns_whole_server, explain


@pytest.mark.parametrize(
    ("error", "is_outage", "words"),
    [
        (
            redis.ResponseError("ERR Error running script (call to f_1): @user_script:3: -READONLY You can't write"),
            True,
            "it is a read-only replica",
        ),
        (redis.ResponseError("MISCONF Redis is configured to save"), True, "it accepts no writes, because it cannot"),
        (
            redis.exceptions.MasterDownError("Link is down", status_code="MASTERDOWN"),
            True,
            "it is a replica",
        ),
        (redis.AuthenticationError("invalid username-password pair"), True, "it rejects the user or password"),
        (redis.ResponseError("WRONGTYPE Operation against a key"), False, "WRONGTYPE Operation against a key"),
        (redis.ResponseError("ERR the word LOADING in a text"), False, "ERR the word LOADING in a text"),
        (redis.DataError("Invalid input"), False, "Invalid input"),
        (redis.exceptions.InvalidResponse("Protocol error: b'H'"), True, "Protocol error: b'H'"),
        (RedisClusterException("No node"), True, "No node"),
        (redis.ConnectionError(), True, "ConnectionError"),
    ],
)
def test_error_of_the_server_differs_from_one_of_a_command(error: Exception, words: str, *, is_outage: bool) -> None:
    assert concerns_whole_server(error) == is_outage
    assert explain(error).startswith(words)


def test_secret_in_a_text_is_hidden() -> None:
    error = redis.ResponseError("ERR User me or hunter2&x is\nunknown to memory.")

    assert explain(error, ["me", "hunter2&x"]) == "ERR User *** or *** is unknown to memory"
