"""What the tests of clients share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.access.api_keys import ApiKeyStore
from testing.server import serving


@pytest.fixture(scope="session")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """(URL, key) of a server that finishes no image. Each test cancels its own."""
    with serving(tmp_path_factory.mktemp("stuck"), "slow") as server:
        yield f"http://127.0.0.1:{server.port}", ApiKeyStore(server.state_dir / "keys.json").new("stuck")
