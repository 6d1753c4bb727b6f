"""The component for webhooks: the gateway gets the key of a Secret and may reach public addresses, and no others."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from gateway.config.environment import read_settings
from gateway.webhooks.destination import is_public
from testing.k8s.manifests import Manifest, render_with

INNER = ("10.96.0.1", "127.0.0.1", "169.254.169.254", "100.100.100.200", "168.63.129.16", "172.31.0.2", "192.168.1.1")
OTHER_INNER = ("0.0.0.1", "192.0.0.192", "198.18.0.1", "224.0.0.1", "255.255.255.255", "fd00::1", "fe80::1", "::1")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    return render_with(tmp_path_factory.mktemp("mine"), components=("webhooks", "images"))


@pytest.fixture
def rule(rendered: list[Manifest]) -> dict[str, Any]:
    (policy,) = [
        each for each in rendered if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "webhooks"
    ]
    assert policy["spec"]["podSelector"] == {"matchLabels": {"app.kubernetes.io/component": "gateway"}}
    (found,) = policy["spec"]["egress"]
    return dict(found)


def allows(rule: dict[str, Any], address: str) -> bool:
    """Return whether a block of the rule has an address and none of its exceptions does."""
    found = ipaddress.ip_address(address)
    return any(
        found in ipaddress.ip_network(peer["ipBlock"]["cidr"])
        and not any(found in ipaddress.ip_network(other) for other in peer["ipBlock"].get("except", []))
        for peer in rule["to"]
    )


@pytest.mark.parametrize("address", [*INNER, *OTHER_INNER])
def test_address_that_is_not_public_is_denied(rule: dict[str, Any], address: str) -> None:
    assert not is_public(address)
    assert not allows(rule, address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111"])
def test_public_address_is_allowed_on_the_port_of_https(rule: dict[str, Any], address: str) -> None:
    assert allows(rule, address)
    assert rule["ports"] == [{"port": 443, "protocol": "TCP"}]


def test_gateway_reads_the_key_of_the_secret(rendered: list[Manifest], tmp_path: Path) -> None:
    (service,) = [each for each in rendered if each["kind"] == "Service" and each["metadata"]["name"] == "gateway"]
    pod = service["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    (volume,) = [each for each in pod["volumes"] if each["name"] == "webhook-key"]
    (item,) = volume["secret"]["items"]
    environ = {each["name"]: each["value"] for each in container["env"]}
    assert environ["SUPERRES_WEBHOOK_KEY_FILE"] == f"{mounts['webhook-key']}/{item['path']}"
    assert (volume["secret"]["secretName"], item["key"]) == ("webhook-key", "latest")
    key = tmp_path / "key"
    key.write_text("whsk_" + "A" * 43 + "=\n")
    read = read_settings({"SUPERRES_WEBHOOK_KEY_FILE": str(key), "SUPERRES_STATE_DIR": str(tmp_path)})
    assert read.settings.webhook_key == key.read_text().strip()
