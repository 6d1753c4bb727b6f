"""Every nginx example of docs/how-to/proxies.md, run with a real nginx in front of a real gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest
import requests
import yaml
from PIL import Image

from gateway.access.api_keys import ApiKeyStore
from testing.certificates import make_certificate
from testing.nginx import running_nginx
from testing.pages import read_code_blocks
from testing.ports import find_free_ports
from testing.raw_http import LIMIT_S
from testing.requests import PHOTO, Elements
from testing.server import Served, serving

PAGE = "docs/how-to/proxies.md"
EXAMPLES = [text for language, text in read_code_blocks(PAGE) if language == "nginx"]
NAMES = ("own name", "port", "path kept", "path removed")
PUBLIC_URL = "https://example.org/superres"
OVER_OUR_LIMIT, OVER_THE_PROXYS_LIMIT = 20_500_000, 22_100_000


@dataclass(frozen=True)
class Proxied:
    """A gateway behind one nginx example, as a client sees it."""

    url: str
    """Address of the form on this machine."""
    origin: str
    """What a browser would send as Origin."""
    certificate: Path
    gateway: Served
    key: str

    def ask(self, method: str, path: str = "", **options: object) -> requests.Response:
        """Send a request to a path below the form's, or to an absolute path; the header Host is that of `origin`."""
        path = path if path.startswith("/") else self.path + path
        headers = {"Host": self.origin.partition("://")[2], **options.pop("headers", {})}  # type: ignore[dict-item]
        root = self.url.removesuffix(self.path)
        return requests.request(
            method,
            root + path,
            headers=headers,
            verify=str(self.certificate),
            timeout=LIMIT_S,
            allow_redirects=False,
            **options,  # type: ignore[arg-type]
        )

    @property
    def path(self) -> str:
        """Path of the form: / or /superres/."""
        return "/" + self.url.split("/", 3)[3]


def adapt(example: str, port: int, gateway_port: int, certificate: Path, key: Path) -> str:
    """Return an example with this machine's ports and certificate; each replacement must apply."""
    is_tls = " ssl;" in example
    changes = [
        (r"listen \d+", f"listen 127.0.0.1:{port}"),
        (r"127\.0\.0\.1:8080", f"127.0.0.1:{gateway_port}"),
        (r"/etc/letsencrypt/live/[a-z.]+/fullchain.pem", str(certificate)),
        (r"/etc/letsencrypt/live/[a-z.]+/privkey.pem", str(key)),
    ]
    for pattern, replacement in changes if is_tls else changes[:2]:
        example, count = re.subn(pattern, replacement, example)
        assert count == 1, f"{count} times {pattern} in an example of {PAGE}"
    return example


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[dict[str, Proxied]]:
    """All examples on one nginx. Only the example that keeps the path needs public_url."""
    one, other = (tmp_path_factory.mktemp(name) for name in ("plain", "with_path"))
    with (
        serving(one, SUPERRES_TRUSTED_HOPS="1") as plain,
        serving(other, SUPERRES_TRUSTED_HOPS="1", SUPERRES_PUBLIC_URL=PUBLIC_URL) as with_path,
    ):
        ports = find_free_ports(len(EXAMPLES))
        gateways = dict(zip(NAMES, (plain, plain, with_path, plain), strict=True))
        keys = {server.port: ApiKeyStore(server.state_dir / "keys.json").new("tests") for server in (plain, with_path)}
        found, servers = {}, []
        for name, example, port in zip(NAMES, EXAMPLES, ports, strict=True):
            servers.append(adapt(example, port, gateways[name].port, *certificate))
            scheme = "https" if " ssl;" in example else "http"
            here = f"{scheme}://127.0.0.1:{port}"
            origin = "https://example.org" if name == "path kept" else here
            url = here + ("/superres/" if name.startswith("path") else "/")
            found[name] = Proxied(url, origin, certificate[0], gateways[name], keys[gateways[name].port])
        with running_nginx(tmp_path_factory.mktemp("nginx"), "\n".join(servers), ports):
            yield found


def read_token(page: str) -> str:
    return next(field["value"] or "" for field in Elements(page).by_tag["input"] if field.get("name") == "token")


@pytest.mark.parametrize("name", NAMES)
def test_form_links_images_and_errors_work_through_nginx(proxied: dict[str, Proxied], name: str) -> None:
    site = proxied[name]
    page = site.ask("GET")
    assert page.status_code == 200
    elements = Elements(page.text).by_tag
    assert elements["form"][0]["action"] == site.path
    for element in (*elements["link"], *elements["script"]):
        path = element.get("href") or element.get("src") or ""
        assert path.startswith(f"{site.path}static/")
        assert site.ask("GET", path).status_code == 200
    assert f"{site.origin}{site.path}api/v1/upscale" in page.text

    # The form of a browser that sends Origin and no Sec-Fetch-Site, which over plain HTTP are all of them.
    sent = {"token": read_token(page.text), "format": "png"}
    files = {"image": ("photo.png", PHOTO, "image/png")}
    result = site.ask("POST", data=sent, files=files, headers={"Origin": site.origin, "Accept": "text/html"})
    assert result.status_code == 303, result.text[:2_000]
    result = site.ask("GET", result.headers["Location"])
    shown = [image["src"] or "" for image in Elements(result.text).by_tag["img"] if "/results/" in str(image["src"])]
    images = [Image.open(BytesIO(site.ask("GET", path).content)).size for path in shown]
    assert images == [(32, 24), (128, 96)]

    problem = site.ask("GET", "nothing", headers={"Accept": "application/json"}).json()
    assert problem["type"] == f"{site.path}problems/not-found"
    assert site.ask("GET", problem["type"]).status_code == 200
    if name != "path removed":  # there nginx merges the slashes itself
        assert site.ask("GET", "problems//blocked").headers["Location"] == f"{site.path}problems/blocked"
    servers = yaml.safe_load(site.ask("GET", "api/openapi.yaml").text)["servers"]
    assert servers[0]["url"] == (site.path.removesuffix("/") or "/")


@pytest.mark.parametrize("name", NAMES)
def test_foreign_origin_is_rejected_through_nginx(proxied: dict[str, Proxied], name: str) -> None:
    headers = {"Origin": "https://evil.example", "Accept": "application/json", "X-Forwarded-Host": "evil.example"}

    response = proxied[name].ask("POST", headers=headers)

    assert response.status_code == 403
    assert "https://evil.example" in response.json()["detail"]
    assert proxied[name].origin in response.json()["detail"]


@pytest.mark.parametrize("name", NAMES)
def test_forged_headers_do_no_harm_through_nginx(proxied: dict[str, Proxied], name: str) -> None:
    """nginx passes X-Forwarded-Prefix on unless told otherwise."""
    site = proxied[name]
    for prefix in ("//evil.example", '/"><script>', "/../..", "/" + "a" * 6_000):
        page = site.ask("GET", headers={"X-Forwarded-Prefix": prefix, "X-Forwarded-For": "6.6.6.6"})
        assert Elements(page.text).by_tag["form"][0]["action"] == site.path
    assert "6.6.6." not in site.gateway.log()


@pytest.mark.parametrize("name", NAMES)
def test_uploads_of_the_size_that_the_gateway_accepts_pass_nginx(proxied: dict[str, Proxied], name: str) -> None:
    site = proxied[name]
    headers = {"X-API-Key": site.key}

    ours = site.ask("POST", "api/v1/upscale", data=bytes(OVER_OUR_LIMIT), headers=headers)
    nginxs = site.ask("POST", "api/v1/upscale", data=bytes(OVER_THE_PROXYS_LIMIT), headers=headers)

    assert (ours.status_code, ours.json()["type"]) == (413, f"{site.path}problems/too-many-bytes")
    assert (nginxs.status_code, nginxs.headers["Content-Type"]) == (413, "text/html")


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("path")])
def test_path_without_its_slash_redirects(proxied: dict[str, Proxied], name: str) -> None:
    response = proxied[name].ask("GET", "/superres")

    assert response.status_code == 308
    assert response.headers["Location"].endswith("/superres/")


def test_events_pass_nginx_at_once(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """The backend never ends: an event that arrives was not buffered until the end of the response."""
    with serving(tmp_path / "slow", "slow", SUPERRES_TRUSTED_HOPS="1", SUPERRES_PUBLIC_URL=PUBLIC_URL) as slow:
        key = ApiKeyStore(slow.state_dir / "keys.json").new("tests")
        ports = find_free_ports(len(EXAMPLES))
        servers = [adapt(text, port, slow.port, *certificate) for text, port in zip(EXAMPLES, ports, strict=True)]
        with running_nginx(tmp_path / "nginx", "\n".join(servers), ports):
            for name, text, port in zip(NAMES, EXAMPLES, ports, strict=True):
                scheme = "https" if " ssl;" in text else "http"
                path = "superres/" if name.startswith("path") else ""
                with requests.post(
                    f"{scheme}://127.0.0.1:{port}/{path}api/v1/upscale",
                    data=PHOTO,
                    headers={"X-API-Key": key, "Accept": "text/event-stream"},
                    verify=str(certificate[0]),
                    timeout=LIMIT_S,
                    stream=True,
                ) as response:
                    assert response.status_code == 200
                    assert next(response.iter_lines()).startswith(b"event: ")


@pytest.mark.parametrize(
    ("replacement", "status"),
    [
        ("Host $host", 403),
        ("Host $host; proxy_set_header X-Forwarded-Port $server_port", 303),
        ("Host $host; proxy_set_header X-Forwarded-Host $http_host", 303),
    ],
)
def test_host_without_its_port(
    tmp_path: Path, certificate: tuple[Path, Path], proxied: dict[str, Proxied], replacement: str, status: int
) -> None:
    gateway = proxied["port"].gateway
    [port] = find_free_ports(1)
    server = adapt(EXAMPLES[1], port, gateway.port, *certificate).replace("Host $http_host", replacement)
    origin = f"http://127.0.0.1:{port}"
    with running_nginx(tmp_path, server, [port]):
        site = Proxied(f"{origin}/", origin, certificate[0], gateway, "")
        token = read_token(site.ask("GET").text)
        files = {"image": ("photo.png", PHOTO, "image/png")}
        response = site.ask("POST", data={"token": token}, files=files, headers={"Origin": origin})

    assert response.status_code == status
    if status == 403:
        reason = f"A page of {origin} sent this request, and this service is http://127.0.0.1."
        assert reason in response.text
        assert f"SUPERRES_PUBLIC_URL={origin}" in response.text
        assert reason in gateway.log()
