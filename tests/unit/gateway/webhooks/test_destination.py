"""Where a webhook may go: valid URLs, public addresses, trusted hosts, and names that change their address."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.storage.dns_lookup import AddressInfo, DnsResolver, HostNotFoundError
from gateway.webhooks.destination import (
    HostLookupError,
    WebhookUrlError,
    find_addresses,
    is_public,
    parse_url,
)
from gateway.webhooks.keys import WebhookKeys
from gateway.webhooks.sender import WebhookSender
from testing.webhook_receiver import receiving

NO_HOSTS: frozenset[str] = frozenset()


class ScriptedResolver(DnsResolver):
    """Resolves every name to what is next in a list, and to the last of it from then on."""

    def __init__(self, *answers: Sequence[str]) -> None:
        super().__init__()
        self._answers = list(answers)

    def wait(self, host: str, port: int, timeout_s: float) -> list[AddressInfo]:
        del host, timeout_s
        addresses = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if not addresses:
            raise HostNotFoundError("no such host")
        return [(10 if ":" in address else 2, 1, 6, "", (address, port)) for address in addresses]


@pytest.mark.parametrize(
    "address",
    [
        *("0.1.2.3", "10.1.2.3", "127.0.0.1", "127.9.9.9", "169.254.169.254", "172.16.0.1", "192.168.1.1"),
        *("100.64.0.1", "100.100.100.200", "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1"),
        *("255.255.255.255", "168.63.129.16", "192.88.99.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1", "2001:0:4136:e378::1", "64:ff9b:1::1"),
        *("localhost", "", "1.2.3"),
    ],
)
def test_address_of_a_network_of_its_own_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.org/", "begin with https://"),
        ("ftp://example.org/", "begin with https://"),
        ("example.org/hook", "begin with https://"),
        ("https:///hook", "begin with https://"),
        ("https://name:password@example.org/", "name or a password"),
        ("https://example.org@10.0.0.1/", "name or a password"),
        ("https://example.org/#x", "fragment"),
        ("https://example.org:0/", "port 0"),
        ("https://example.org:99999/", "port is invalid"),
        ("https://example.org/a b", "characters"),
        ("https://example.org/\r\nX: y", "characters"),
        ("https://example.org\\@10.0.0.1/", "characters"),
        ("https://ex\u00e4mple.org/", "characters"),
        ("https://[::1/", "invalid"),
        ("https://[fe80::1%25eth0]/", "invalid"),
        ("https://a..b/", "host is invalid"),
        ("https://%31%30.0.0.1/", "host is invalid"),
        ("https://example.org/" + "x" * 2_048, "maximum is 2,048"),
    ],
)
def test_invalid_url_has_a_reason(url: str, reason: str) -> None:
    with pytest.raises(WebhookUrlError, match=reason):
        parse_url(url, NO_HOSTS)


def test_parts_of_a_url() -> None:
    found = parse_url("https://Example.ORG.:8443/a/b?c=%20d", NO_HOSTS)

    assert (found.scheme, found.host, found.port) == ("https", "example.org", 8443)
    assert found.target == "/a/b?c=%20d"
    assert not found.is_trusted
    assert parse_url("https://example.org", NO_HOSTS).target == "/"
    assert parse_url("https://[2606:4700::1]/", NO_HOSTS).host == "2606:4700::1"


@pytest.mark.parametrize(
    ("trusted", "url"),
    [
        ("receiver", "http://receiver/"),
        ("receiver", "https://receiver:9000/"),
        ("receiver:9000", "http://receiver:9000/"),
        ("[::1]:9000", "http://[::1]:9000/"),
    ],
)
def test_trusted_host_may_have_http_and_a_private_address(trusted: str, url: str) -> None:
    found = parse_url(url, frozenset({trusted}))

    assert find_addresses(found, ScriptedResolver(["10.0.0.1"])) == ["10.0.0.1"]


@pytest.mark.parametrize("url", ["http://receiver:9001/", "http://receiver/", "http://other:9000/"])
def test_trust_ends_at_the_port_and_the_name(url: str) -> None:
    with pytest.raises(WebhookUrlError, match="https://"):
        parse_url(url, frozenset({"receiver:9000"}))


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["2606:4700::1", "::1"]])
def test_name_with_an_address_that_is_not_public_is_refused(addresses: list[str]) -> None:
    with pytest.raises(WebhookUrlError, match="not public"):
        find_addresses(parse_url("https://example.org/", NO_HOSTS), ScriptedResolver(addresses))


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost", "[::ffff:127.0.0.1]"])
def test_other_ways_to_write_loopback_are_refused(host: str) -> None:
    destination = parse_url(f"https://{host}/", NO_HOSTS)

    with pytest.raises((WebhookUrlError, HostLookupError)):  # not every C library reads all of these forms
        find_addresses(destination, DnsResolver())


def test_name_that_becomes_private_gets_no_connection(tmp_path: Path) -> None:
    """DNS rebinding: the address is public when the client sends the URL, and loopback when the job ends."""
    keys = WebhookKeys("", tmp_path / "key", needs_setting=False)
    with receiving() as receiver:
        sender = WebhookSender(keys, NO_HOSTS, resolver=ScriptedResolver(["1.1.1.1"], ["127.0.0.1"]))
        url = f"https://rebound.example:{receiver.port}/"
        sender.check(url)

        outcome = sender.send(url, "id", b"{}")

        assert (outcome.is_delivered, outcome.may_retry) == (False, False)
        assert "not public" in outcome.reason
        assert receiver.connections == 0


def test_unknown_and_private_names_have_one_message(tmp_path: Path) -> None:
    """Otherwise a client could list the names of the gateway's network."""
    keys = WebhookKeys("", tmp_path / "key", needs_setting=False)
    messages = set()
    for addresses in ([], ["10.0.0.1"]):
        with pytest.raises(WebhookUrlError) as refused:
            WebhookSender(keys, NO_HOSTS, resolver=ScriptedResolver(addresses)).check("https://redis.superres.svc/")
        messages.add(str(refused.value))

    assert len(messages) == 1
