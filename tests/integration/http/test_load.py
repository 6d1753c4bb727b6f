"""Fifty clients at once, and one client with many requests, against the real gateway with a slow backend."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.load import PAGE, RESULTS, describe_in_words, make_client, run_load, serving_for_load
from gateway.access.api_keys import ApiKeyStore

DEADLINE_S = 60
LIMIT_S = 120.0
"""Time limit for all images; a fast machine needs a tenth of it."""


def test_fifty_clients_each_get_their_image_or_a_retry_time(tmp_path: Path) -> None:
    keys = ApiKeyStore(tmp_path / "keys.json")
    clients = [make_client(keys, number, max_wait_s=2.0) for number in range(50)]

    with serving_for_load(
        tmp_path, 1.0, SUPERRES_DEADLINE_S=str(DEADLINE_S), SUPERRES_MAX_CONCURRENT_JOBS="8"
    ) as served:
        run_load(served.port, clients, LIMIT_S, max_results=80)

    assert [words for client in clients for words in client.errors] == []
    assert min(len(client.waits_s) for client in clients) >= 1, "one client was never served"
    assert sum(client.refusals[503] for client in clients) > 0, "the queue was never full: this proves nothing"
    assert max(client.longest_s for client in clients) < DEADLINE_S, "somebody waited longer than the deadline"


def test_client_with_many_requests_gets_only_its_share(tmp_path: Path) -> None:
    keys = ApiKeyStore(tmp_path / "keys.json")
    heavy_client = make_client(keys, 0, connections=8, max_wait_s=0.05)
    light_clients = [make_client(keys, number) for number in range(1, 7)]

    with serving_for_load(
        tmp_path, 0.4, SUPERRES_MAX_CONCURRENT_JOBS="2", SUPERRES_MAX_CONCURRENT_REQUESTS="8", SUPERRES_QUEUE_SIZE="12"
    ) as served:
        run_load(served.port, [heavy_client, *light_clients], LIMIT_S, max_results=35)

    assert [words for client in (heavy_client, *light_clients) for words in client.errors] == []
    min_images = min(len(client.waits_s) for client in light_clients)
    assert min_images >= 1, "a modest one got nothing"
    # A first-come queue would give it six slots of twelve, six times the share of each other client.
    assert len(heavy_client.waits_s) <= 3 * (sum(len(client.waits_s) for client in light_clients) / len(light_clients))


def test_load_page_matches_the_results() -> None:
    assert describe_in_words(json.loads(RESULTS.read_text())) in PAGE.read_text()
