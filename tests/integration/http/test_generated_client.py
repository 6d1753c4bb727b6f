"""A client that openapi-python-client generates from the served document upscales images and gets typed problems."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gateway.access.api_keys import ApiKeyStore
from testing.requests import PHOTO
from testing.server import serving

PACKAGE = "generated_superres_client"
LIMIT_S = 120.0


@dataclass(frozen=True)
class Generated:
    """A generated client of a running gateway."""

    client: Any
    """The client with an API key."""
    load: Callable[[str], Any]
    """Imports a module of the generated package."""

    def file(self, data: bytes) -> Any:
        return self.load("types").File(payload=BytesIO(data), file_name="photo.png", mime_type="image/png")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    """Generate the client as users do: from the URL of the document, with the generator's defaults."""
    folder = tmp_path_factory.mktemp("generated")
    scripts = Path(sys.executable).parent
    with serving(folder) as server:
        address = f"http://127.0.0.1:{server.port}"
        command = [str(scripts / "openapi-python-client"), "generate", "--url", f"{address}/api/openapi.json"]
        done = subprocess.run(
            [*command, "--meta", "none", "--output-path", str(folder / PACKAGE)],
            env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        sys.path.insert(0, str(folder))
        try:
            client = importlib.import_module(PACKAGE).AuthenticatedClient(
                base_url=address,
                token=ApiKeyStore(folder / "keys.json").new("generated"),
                prefix="",
                auth_header_name="X-API-Key",
                timeout=LIMIT_S,
            )
            with client:
                yield Generated(client, lambda name: importlib.import_module(f"{PACKAGE}.{name}"))
        finally:
            sys.path.remove(str(folder))


def size_of(file: Any) -> tuple[int, int]:
    with Image.open(file.payload) as image:
        return image.size


@pytest.fixture(scope="module")
def expected_size() -> tuple[int, int]:
    width, height = Image.open(BytesIO(PHOTO)).size
    return 4 * width, 4 * height


def test_form_and_body_give_the_bytes_of_the_result(generated: Generated, expected_size: tuple[int, int]) -> None:
    upscale = generated.load("api.upscale.upscale")
    form = generated.load("models").UpscaleForm(image=generated.file(PHOTO), variant="compact_x4")

    by_form = upscale.sync(client=generated.client, body=form)
    by_body = upscale.sync(client=generated.client, body=generated.file(PHOTO), variant="compact_x4")

    assert size_of(by_form) == size_of(by_body) == expected_size


def test_errors_are_typed_problems(generated: Generated) -> None:
    upscale = generated.load("api.upscale.upscale")

    problem = upscale.sync(client=generated.client, body=generated.file(b"not an image"))
    unknown = upscale.sync(client=generated.client, body=generated.file(PHOTO), variant="none_x4")

    assert isinstance(problem, generated.load("models").Problem)
    assert (problem.status, problem.type_) == (415, "/problems/unknown-format")
    assert "unknown format" in problem.detail
    assert (unknown.status, unknown.parameter) == (400, "variant")
    assert "compact_x4" in unknown.allowed


def test_job_is_typed_from_its_start_to_its_result(generated: Generated, expected_size: tuple[int, int]) -> None:
    upscale, jobs = generated.load("api.upscale.upscale"), generated.load("api.jobs.get_job")
    accepted = upscale.sync(client=generated.client, body=generated.file(PHOTO), prefer="respond-async")

    limit = time.monotonic() + LIMIT_S
    while (job := jobs.sync(accepted.id, client=generated.client)).finished_at is None:
        assert time.monotonic() < limit, job
        time.sleep(0.05)

    assert (job.state, job.problem, job.result.media_type) == ("done", None, "image/png")
    result = generated.load("api.jobs.get_job_result").sync(accepted.id, client=generated.client)
    assert size_of(result) == expected_size


def test_variants_and_status_are_typed(generated: Generated) -> None:
    service = generated.load("api.service.get_variants").sync(client=generated.client)
    status = generated.load("api.service.get_status").sync(client=generated.client)

    assert service.default_variant == "auto"
    assert "compact_x4" in [variant.name for variant in service.variants]
    assert status.backend.state in ("asleep", "booting", "up", "failed")
