"""Problems: every error has the members of RFC 9457 on every route."""

from __future__ import annotations

import logging
import re
from types import ModuleType

import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway import error_mapping as causes
from gateway import problems
from gateway.async_jobs import problems as job_problems
from gateway.backend.interface import (
    BackendFaultError,
    BackendNotStartedError,
    BackendRejectedError,
    BackendStillBootingError,
    BackendTimeoutError,
    BackendUnavailableError,
    BackendVariantMissingError,
)
from gateway.problems import Problem, all_problems
from gateway.views.hooks import SECURITY_HEADERS
from preprocessing import errors
from testing.backend import FakeBackend
from testing.fixtures import MakeApp
from testing.requests import check_problem, form, post_image, read_problem

ALL = list(all_problems())


@pytest.mark.parametrize("module", [problems, job_problems], ids=lambda module: module.__name__)
def test_module_docstring_shows_its_part_of_the_exception_tree(module: ModuleType) -> None:
    drawn = re.findall(r"^( *)(\w+) +(\d{3}|status)  ", module.__doc__ or "", re.MULTILINE)

    def draw(kind: type[Problem], depth: int) -> list[tuple[str, str, str]]:
        own = ("  " * depth, kind.__name__, str(kind.status) if kind.slug else "status")
        below = [row for child in kind.__subclasses__() for row in draw(child, depth + 1)]
        return [own, *below] if below or kind.__module__ == module.__name__ else []

    assert drawn == draw(Problem, 0)


def test_every_problem_has_a_unique_slug() -> None:
    assert len({kind.slug for kind in ALL}) == len(ALL)
    for kind in ALL:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.slug), kind
        assert kind.title, kind
        assert kind.__doc__, kind
        assert 400 <= kind.status <= 504, kind


def test_every_image_error_has_a_problem() -> None:
    kinds = [value for value in vars(errors).values() if isinstance(value, type) and value is not errors.ImageError]

    for kind in kinds:
        if issubclass(kind, errors.ImageError):
            problem = causes.problem_from_image_error(kind("The sentence of the codec."))
            assert (problem.slug, problem.detail) == (kind.kind, "The sentence of the codec.")


def test_every_problem_type_has_a_page(client: FlaskClient) -> None:
    for kind in ALL:
        page = client.get(f"/problems/{kind.slug}")
        assert page.status_code == 200
        assert kind.title in page.get_data(as_text=True)
    assert client.get("/problems/no-such").status_code == 404


def broken_app(make_app: MakeApp, failure: Exception) -> Flask:
    """An application whose every route fails with one error before its view runs."""
    app = make_app()

    def fail() -> None:
        raise failure

    app.before_request(fail)
    return app


ROUTES = {
    "/": ("GET", False),
    "/#post": ("POST", False),
    "/results/x": ("GET", False),
    "/results/x/before": ("GET", False),
    "/results/x/after": ("GET", False),
    "/problems/x": ("GET", False),
    "/favicon.ico": ("GET", False),
    "/robots.txt": ("GET", False),
    "/static/x/page.css": ("GET", False),
    "/api/v1/upscale": ("POST", True),
    "/api/v1/variants": ("GET", True),
    "/api/v1/status": ("GET", True),
    "/api/v1/jobs/x": ("GET", True),
    "/api/v1/jobs/x#delete": ("DELETE", True),
    "/api/v1/jobs/x/result": ("GET", True),
    "/api/v1/results/x": ("GET", True),
    "/api/v1/results/x#delete": ("DELETE", True),
    "/docs": ("GET", False),
    "/api/openapi.json": ("GET", True),
    "/api/openapi.yaml": ("GET", True),
    "/.well-known/jwks.json": ("GET", True),
    "/api/v1/wake": ("POST", True),
    "/healthz": ("GET", True),
    "/readyz": ("GET", True),
}
"""A path of every route: its method, and whether its errors are JSON for every client."""


def test_table_of_this_test_has_every_route(app: Flask) -> None:
    adapter = app.url_map.bind("localhost")
    matched = {adapter.match(path.partition("#")[0], method=method)[0] for path, (method, _) in ROUTES.items()}

    assert matched == {rule.endpoint for rule in app.url_map.iter_rules()}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.slug)
@pytest.mark.parametrize("path", ROUTES)
def test_problems_have_equal_members_on_every_route(make_app: MakeApp, path: str, kind: type[Problem]) -> None:
    method, always_json = ROUTES[path]
    path = path.partition("#")[0]
    client = broken_app(make_app, kind("The number is 7; 5 is the limit.", headers={"Retry-After": "3"})).test_client()

    as_json = client.open(path, method=method, headers={"Accept": "application/json"})
    as_page = client.open(path, method=method, headers={"Accept": "text/html"})

    check_problem(as_json)
    assert read_problem(as_json) == (kind.status, kind.slug)
    assert as_json.headers["Retry-After"] == "3"
    if always_json:
        check_problem(as_page)
    else:
        text = as_page.get_data(as_text=True)
        assert as_page.mimetype == "text/html"
        assert as_page.status_code == kind.status
        for part in (kind.title, "The number is 7; 5 is the limit.", as_page.headers["X-Request-Id"]):
            assert part in text
    for response in (as_json, as_page):
        assert SECURITY_HEADERS.items() <= dict(response.headers).items()
        assert "frame-ancestors 'self'" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ROUTES)
def test_bug_is_logged_with_id_and_shown_without_details(
    make_app: MakeApp, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    method, _ = ROUTES[path]
    client = broken_app(make_app, RuntimeError("the password is hunter2")).test_client()

    response = client.open(path.partition("#")[0], method=method, headers={"Accept": "application/problem+json"})

    assert read_problem(response) == (500, "internal-error")
    assert "hunter2" not in response.get_data(as_text=True)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == f"{response.headers['X-Request-Id']}: RuntimeError"
    assert "hunter2" in caplog.text


@pytest.mark.parametrize("host", ["a..b", ".a", "a" * 64 + ".b"])
@pytest.mark.parametrize("path", ["/", "/nothing", "/healthz"])
def test_invalid_host_header_gets_400(
    client: FlaskClient, path: str, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get(path, headers={"Host": host, "Accept": "text/html"})

    assert read_problem(response) == (400, "bad-request")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("GET", "/nothing", 404, "not-found"),
        ("GET", "/api/v1/nothing", 404, "not-found"),
        ("GET", "/api/v1/upscale", 405, "method-not-allowed"),
        ("DELETE", "/", 405, "method-not-allowed"),
        ("POST", "/healthz", 405, "method-not-allowed"),
        ("GET", "/static/x/../app.py", 404, "not-found"),
        ("GET", "/results/x/after", 404, "result-gone"),
    ],
)
def test_errors_of_flask_have_the_same_format(
    client: FlaskClient, method: str, path: str, status: int, slug: str
) -> None:
    response = client.open(path, method=method, headers={"Accept": "application/json"})

    assert read_problem(response) == (status, slug)
    if status == 405:
        assert response.headers["Allow"]


@pytest.mark.parametrize(
    ("failure", "status", "slug", "has_retry_after"),
    [
        (BackendUnavailableError("UNAVAILABLE: 10.0.0.7"), 503, "backend-unavailable", True),
        (BackendNotStartedError("traceback of 10.0.0.7"), 503, "backend-not-started", True),
        (BackendTimeoutError("10.0.0.7"), 504, "deadline-exceeded", False),
        (BackendStillBootingError("10.0.0.7"), 504, "deadline-exceeded", False),
        (BackendRejectedError("The image is bad."), 422, "refused-by-backend", False),
        (BackendVariantMissingError("no file at 10.0.0.7"), 422, "variant-unavailable", False),
        (BackendFaultError("traceback of 10.0.0.7"), 502, "backend-fault", False),
        (MemoryError(), 500, "internal-error", False),
    ],
)
@pytest.mark.parametrize("way", ["form", "api"])
def test_backend_failure_is_equal_in_form_and_api(
    make_app: MakeApp, key: str, way: str, failure: Exception, status: int, slug: str, *, has_retry_after: bool
) -> None:
    client = make_app(upscaler=FakeBackend(failures=[failure, failure])).test_client()

    response = (
        client.post("/", **form(), headers={"Accept": "application/json"}) if way == "form" else post_image(client, key)
    )

    assert read_problem(response) == (status, slug)
    assert ("Retry-After" in response.headers) == has_retry_after
    assert "10.0.0.7" not in response.get_data(as_text=True)


def test_client_text_is_escaped_on_the_page(client: FlaskClient) -> None:
    page = client.post("/", **form(variant="<script>alert(1)</script>")).get_data(as_text=True)

    assert "&lt;script&gt;" in page
    assert "<script>alert" not in page
