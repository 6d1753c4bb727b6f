"""docker-compose.yml as Docker Compose reads it: published ports, confinement, and values that must agree."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway.config.environment import read_settings
from gateway.config.settings import SETTINGS
from gateway.server import max_shutdown_s
from testing.compose import compose, services
from testing.data import ROOT

SERVICES = ("triton", "triton-gpu", "gateway", "redis", "front")


def seconds(text: str) -> float:
    minutes, rest = re.fullmatch(r"(?:(\d+)m)?(?:([\d.]+)s)?", text).groups()  # type: ignore[union-attr]
    return 60 * float(minutes or 0) + float(rest or 0)


def test_cpu_is_the_default_and_gpu_a_profile() -> None:
    assert set(compose("config", "--services").stdout.split()) == {"triton", "gateway", "redis", "front"}
    assert set(compose("--profile", "gpu", "config", "--services").stdout.split()) == {
        "triton-gpu",
        "gateway",
        "redis",
        "front",
    }
    assert services().keys() == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_confined_limited_and_health_checked(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert int(service["mem_limit"]) > 0
    assert int(service["pids_limit"]) > 0
    # Docker rejects a container that asks for more cores than the machine has; the tutorial's machine has two.
    assert 0 < float(service["cpus"]) <= 2
    assert service["logging"]["options"]["max-size"], "a log without a maximum size"
    recipe = service.get("build", {}).get("dockerfile")
    built_in = recipe and "HEALTHCHECK " in (ROOT / recipe).read_text()
    assert service.get("healthcheck") or built_in, "nobody would see it die"
    assert not service.get("privileged")


def test_triton_gets_the_configured_cores() -> None:
    read = json.loads(compose("--profile", "*", "config", "--format", "json", TRITON_CPUS="6.5").stdout)["services"]
    assert {name: row["cpus"] for name, row in read.items() if name.startswith("triton")} == {
        "triton": 6.5,
        "triton-gpu": 6.5,
    }


def test_only_gateway_and_front_are_published_and_on_loopback() -> None:
    published = {name: {port["host_ip"] for port in row.get("ports", [])} for name, row in services().items()}
    published = {name: addresses for name, addresses in published.items() if addresses}
    assert published == {"gateway": {"127.0.0.1"}, "front": {"127.0.0.1"}}
    other = json.loads(compose("config", "--format", "json", BIND_ADDRESS="192.0.2.1", GATEWAY_PORT="9000").stdout)
    assert other["services"]["gateway"]["ports"][0]["host_ip"] == "192.0.2.1"
    assert other["services"]["gateway"]["ports"][0]["published"] == "9000"


def test_triton_and_redis_have_no_way_out() -> None:
    networks = json.loads(compose("config", "--format", "json").stdout)["networks"]
    assert networks["inside"]["internal"] is True
    for name in ("triton", "triton-gpu", "redis"):
        assert services()[name]["networks"].keys() == {"inside"}
    assert services()["front"]["networks"].keys() == {"outside"}, "the front needs nothing of what is inside"


def test_secrets_are_files_and_stand_nowhere_else() -> None:
    for name, service in services().items():
        for variable in service.get("environment") or {}:
            secret = re.search(r"KEY|SECRET|TOKEN|PASSWORD", variable)
            assert not secret or variable.endswith("_FILE"), f"{variable} of {name}"
    assert {each["source"] for each in services()["gateway"]["secrets"]} == {"model_key", "form_secret"}, (
        "administration is not its business"
    )
    assert "docker/secrets" in (ROOT / ".gitignore").read_text()
    assert "=" in (ROOT / ".env").read_text()
    assert not re.search(r"KEY|SECRET|TOKEN|PASSWORD", (ROOT / ".env").read_text())


def test_gateway_settings_are_valid_and_deadline_is_shorter() -> None:
    variables = services()["gateway"]["environment"]
    settings = read_settings({name: value for name, value in variables.items() if not name.endswith("_FILE")}).settings
    known = {row.variable for row in SETTINGS} | {f"{row.variable}_FILE" for row in SETTINGS if row.is_secret}
    assert variables.keys() <= known
    host, _, port = settings.backend_address.partition(":")
    assert (host, port) == ("triton", "8001")
    drain = re.search(r"SUPERRES_DRAIN_S=(\d+)", (ROOT / "docker" / "gateway.Dockerfile").read_text())
    assert drain
    assert seconds(services()["gateway"]["stop_grace_period"]) > max_shutdown_s(float(drain[1]))
    for name in ("triton", "triton-gpu"):
        triton = services()[name]
        assert "triton" in triton["networks"]["inside"]["aliases"]
        assert seconds(triton["stop_grace_period"]) > int(triton["environment"]["EXIT_TIMEOUT_S"]) + 5
        assert int(triton["shm_size"]) == 2 * 1024**3
        assert int(triton["mem_limit"]) >= 3 * int(triton["shm_size"])


def test_cpu_and_gpu_services_differ_only_in_the_gpu() -> None:
    cpu, gpu = ({**services()[name]} for name in ("triton", "triton-gpu"))
    assert gpu.pop("deploy")["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert [each.pop("profiles") for each in (cpu, gpu)] == [["cpu"], ["gpu"]]
    assert cpu == gpu


def test_misspelt_key_is_rejected(tmp_path: Path) -> None:
    """The counter-example: Docker Compose does read the variable."""
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text("services:\n  web:\n    image: web\n    read_onlyy: true\n")
    assert "read_onlyy" in compose("-f", str(wrong), "config", "-q").stderr
