"""What the trusted proxies report about a request: the client's address, the scheme, the port and the path prefix.

`TrustedProxies` writes it into the WSGI environment, where the rest of the gateway reads it. Nothing is read from these
headers if trusted_hops is 0.

X-Forwarded-Host never names the gateway, because many proxies pass on what the client wrote there. The gateway's own
name is the header Host or, where proxies change that header, the setting public_url. X-Forwarded-Host and
X-Forwarded-Port only add ports of that name, for the comparison with Origin: no page can make a browser send them.

A forged X-Forwarded-Prefix changes links of the forger's own response, which no cache keeps, and no valid prefix leads
to another host. With public_url the header is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.access.client_ip import client_address
from gateway.config.origins import parse_prefix, parse_public_url

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Key of the WSGI environment: the values of Host under which browsers know this gateway, a tuple of strings.
OWN_HOSTS_KEY = "superres.own_hosts"


class TrustedProxies:
    """WSGI middleware that sets REMOTE_ADDR to the client's address, and scheme, host and prefix to the gateway's own.

    A proxy may remove the path prefix or keep it: it is moved from PATH_INFO to SCRIPT_NAME (PEP 3333) either way.
    """

    def __init__(self, app: WSGIApplication, proxies: int, public_url: str = "") -> None:
        self._app = app
        self._proxies = proxies
        self._public_url = parse_public_url(public_url)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Correct the environment and pass the request on."""
        forwarded_for = environ.get("HTTP_X_FORWARDED_FOR", "")
        environ["REMOTE_ADDR"] = client_address(environ.get("REMOTE_ADDR", ""), forwarded_for, self._proxies)
        scheme, host, prefix = self._public_url
        if host:
            environ["wsgi.url_scheme"], environ["HTTP_HOST"] = scheme, host
        elif self._proxies:
            scheme, prefix = _last(environ, "PROTO"), parse_prefix(_last(environ, "PREFIX"))
            if scheme in ("http", "https"):
                environ["wsgi.url_scheme"] = scheme
            environ[OWN_HOSTS_KEY] = _find_own_hosts(environ)
        if prefix:
            _move_prefix(environ, prefix)
        return self._app(environ, start_response)


def _last(environ: WSGIEnvironment, name: str) -> str:
    """Return the value that the nearest proxy wrote, which is the last one if others wrote the header too."""
    return str(environ.get(f"HTTP_X_FORWARDED_{name}", "")).rpartition(",")[2].strip()


def _move_prefix(environ: WSGIEnvironment, prefix: str) -> None:
    environ["SCRIPT_NAME"] = prefix
    path = environ.get("PATH_INFO", "")
    if path == prefix or path.startswith(f"{prefix}/"):
        environ["PATH_INFO"] = path[len(prefix) :] or "/"


def _find_own_hosts(environ: WSGIEnvironment) -> tuple[str, ...]:
    """Return Host, and the same name with the port that the proxy reports: nginx's $host has none."""
    host = environ.get("HTTP_HOST", "")
    name, port, forwarded = _name_of(host), _last(environ, "PORT"), _last(environ, "HOST")
    hosts = [host, forwarded] if name and _name_of(forwarded) == name else [host]
    if name and port.isdecimal() and len(port) <= 5:
        hosts.append(f"{f'[{name}]' if ':' in name else name}:{port}")
    return tuple(hosts)


def _name_of(host: str) -> str:
    """Return the name in a Host header without its port; an empty string for an invalid one."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
