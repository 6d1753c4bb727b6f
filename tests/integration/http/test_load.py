"""Fifty clients at once, and one client with many requests, against the real gateway with a slow backend."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.crowd import PAGE, RESULTS, crowd, describe_in_words, gateway_for_a_crowd, make_client
from gateway.access.api_keys import ApiKeyStore

DEADLINE_S = 20
LIMIT_S = 120.0
"""Time limit for all images; a fast machine needs a tenth of it."""


def test_of_fifty_clients_each_gets_its_own_picture_or_a_time_to_come_again(tmp_path: Path) -> None:
    keys = ApiKeyStore(tmp_path / "keys.json")
    clients = [make_client(keys, number, most_patience_s=2.0) for number in range(50)]

    with gateway_for_a_crowd(
        tmp_path, 1.0, SUPERRES_DEADLINE_S=str(DEADLINE_S), SUPERRES_MAX_CONCURRENT_JOBS="8"
    ) as served:
        crowd(served.port, clients, LIMIT_S, pictures=80)

    assert [words for client in clients for words in client.wrong] == []
    assert min(len(client.waits_s) for client in clients) >= 1, "one client was never served"
    assert sum(client.refusals[503] for client in clients) > 0, "the queue was never full: this proves nothing"
    assert max(client.longest_s for client in clients) < DEADLINE_S, "somebody waited longer than the deadline"


def test_who_asks_greedily_is_served_no_more_than_its_share(tmp_path: Path) -> None:
    keys = ApiKeyStore(tmp_path / "keys.json")
    greedy = make_client(keys, 0, connections=8, most_patience_s=0.05)
    modest = [make_client(keys, number) for number in range(1, 7)]

    with gateway_for_a_crowd(
        tmp_path, 0.4, SUPERRES_MAX_CONCURRENT_JOBS="2", SUPERRES_MAX_CONCURRENT_REQUESTS="8", SUPERRES_QUEUE_SIZE="12"
    ) as served:
        crowd(served.port, [greedy, *modest], LIMIT_S, pictures=35)

    assert [words for client in (greedy, *modest) for words in client.wrong] == []
    least = min(len(client.waits_s) for client in modest)
    assert least >= 1, "a modest one got nothing"
    # A first-come queue would give it six slots of twelve, six times the share of each other client.
    assert len(greedy.waits_s) <= 3 * (sum(len(client.waits_s) for client in modest) / len(modest))


def test_the_page_says_what_was_measured() -> None:
    assert describe_in_words(json.loads(RESULTS.read_text())) in PAGE.read_text()
