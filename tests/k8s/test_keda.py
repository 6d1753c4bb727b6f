"""The overlay for clusters without Knative: Deployments like the Knative Services, and KEDA's objects around them."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.environment import read_settings
from gateway.config.settings import SETTINGS, Settings
from gateway.server import max_shutdown_s
from testing.data import ROOT
from testing.k8s.keda_schema import keda_errors
from testing.k8s.knative_admission import duration_s
from testing.k8s.manifests import (
    K8S,
    KEDA_OVERLAY,
    KNATIVE,
    Manifest,
    environment,
    find,
    find_service,
    render,
    render_folder,
    render_with,
    revision,
)

# What a Deployment must change, and why no more: everything else is as strict as with Knative.
CHANGED_ENVIRONMENT = {
    "backend": {"GRPC_ADDRESS"},
    "gateway": {"SUPERRES_TRUSTED_HOPS", "SUPERRES_BACKEND_ADDRESS", "SUPERRES_MONTHLY_GPU_BUDGET_S"},
}
CHANGED_CONTAINER = {"backend": {"readinessProbe"}, "gateway": {"readinessProbe", "resources"}}
KNATIVE_FIELDS = {"containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds"}
# Seconds at the end of an idle time that the gateway does not count: a poll of KEDA, preStop, and Triton's end.
UNSEEN_S = 15


def deployment(name: str) -> Manifest:
    return find(KEDA_OVERLAY, "Deployment", name)


def read_gateway_settings() -> Settings:
    variables = environment(deployment("gateway"))
    return read_settings(
        {name: value for name, value in variables.items() if not re.search(r"(KEY|SECRET)_FILE$", name)}
    ).settings


def seconds(text: str) -> float:
    found = duration_s(text)
    assert found, text
    return found


@pytest.mark.parametrize("name", ["backend", "gateway"])
def test_deployment_differs_from_the_knative_service_only_where_it_must(name: str) -> None:
    ours, knatives = (revision(each) for each in (deployment(name), find_service("overlays/gpu", name)))
    assert ours.keys() - knatives.keys() == {"terminationGracePeriodSeconds"}
    assert knatives.keys() - ours.keys() <= KNATIVE_FIELDS
    assert ours["volumes"] == knatives["volumes"]
    (own,), (other,) = (spec["containers"] for spec in (ours, knatives))
    added = {"livenessProbe"} - other.keys()
    assert own.keys() - other.keys() == {"lifecycle", *added}
    for key in other.keys() - {"env", "ports"} - CHANGED_CONTAINER[name]:
        assert own[key] == other[key], key
    assert own["resources"]["limits"] == other["resources"]["limits"]
    assert own["ports"] == [*other["ports"], {"name": "metrics", "containerPort": own["ports"][-1]["containerPort"]}]
    rows, others = environment(deployment(name)), environment(find_service("overlays/gpu", name))
    assert rows.keys() == others.keys()
    assert {key for key in rows if rows[key] != others[key]} == CHANGED_ENVIRONMENT[name]


def test_nothing_of_knative_is_left() -> None:
    text = yaml.safe_dump_all(render(KEDA_OVERLAY))
    assert not re.search(r"knative|kourier|activator", text)
    assert not any(manifest["apiVersion"] == KNATIVE for manifest in render(KEDA_OVERLAY))


def test_every_setting_named_exists_and_is_accepted() -> None:
    known = {row.variable for row in SETTINGS} | {f"{row.variable}_FILE" for row in SETTINGS if row.is_secret}
    assert {name for name in environment(deployment("gateway")) if name.startswith("SUPERRES_")} <= known
    assert read_gateway_settings().trusted_hops == 1


def test_gateways_address_leads_to_the_pods_of_triton() -> None:
    host, _, port = read_gateway_settings().backend_address.rpartition(":")
    alias, target, route = (
        find(KEDA_OVERLAY, kind, name)
        for kind, name in (("Service", "backend"), ("Service", "triton"), ("InterceptorRoute", "backend"))
    )
    assert host == f"{alias['metadata']['name']}.{alias['metadata']['namespace']}.svc.cluster.local"
    assert alias["spec"]["type"] == "ExternalName"
    assert [each["port"] for each in alias["spec"]["ports"]] == [int(port)]
    assert route["spec"]["rules"] == [{"hosts": [host]}], "the interceptor compares host names without a port"
    (exposed,) = target["spec"]["ports"]
    assert route["spec"]["target"] == {"service": "triton", "port": exposed["port"]}
    assert exposed["appProtocol"] == "kubernetes.io/h2c", "the interceptor would use HTTP/1.1"
    assert exposed["targetPort"] == revision(deployment("backend"))["containers"][0]["ports"][0]["containerPort"]
    labels = deployment("backend")["spec"]["template"]["metadata"]["labels"]
    assert target["spec"]["selector"].items() <= labels.items()
    assert environment(deployment("backend"))["GRPC_ADDRESS"] == "0.0.0.0"  # noqa: S104 - inside the pod's network


def test_gateways_service_leads_to_its_pods() -> None:
    service = find(KEDA_OVERLAY, "Service", "gateway")["spec"]
    assert "type" not in service, "an ingress controller ends TLS; nothing else publishes it"
    assert service["selector"].items() <= deployment("gateway")["spec"]["template"]["metadata"]["labels"].items()
    assert [each["targetPort"] for each in service["ports"]] == [read_gateway_settings().port]


def test_backend_scales_between_zero_and_the_gateways_jobs() -> None:
    scaled, route = (find(KEDA_OVERLAY, kind, "backend") for kind in ("ScaledObject", "InterceptorRoute"))
    spec, settings = scaled["spec"], read_gateway_settings()
    assert spec["scaleTargetRef"]["name"] == deployment("backend")["metadata"]["name"]
    assert "replicas" not in deployment("backend")["spec"], "each apply would undo what KEDA set"
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["interceptorRoute"] == route["metadata"]["name"]
    slots = spec["maxReplicaCount"] * route["spec"]["scalingMetric"]["concurrency"]["targetValue"]
    assert slots == settings.max_concurrent_jobs == 2
    assert spec["minReplicaCount"] == 0, "somebody pays while nobody asks"
    assert spec["cooldownPeriod"] == settings.scale_to_zero_after_s, "asleep is not when it sleeps"
    assert deployment("gateway")["spec"]["replicas"] == 1, "each gateway has its own queue and results"


def test_route_is_stored_before_the_scaled_object() -> None:
    kinds = [manifest["kind"] for manifest in render(KEDA_OVERLAY)]
    assert kinds.index("InterceptorRoute") < kinds.index("ScaledObject"), "KEDA would scale by CPU"


def broken_links(settings: Settings, gateway: Manifest, backend: Manifest, route: Manifest) -> list[str]:
    """Return where the chain of timeouts breaks: the gateway's own deadline must be first, and pods must drain."""
    request_s, readiness_s, header_s = (
        seconds(route["spec"]["timeouts"][name]) for name in ("request", "readiness", "responseHeader")
    )
    pause_s = {
        id(each): revision(each)["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        for each in (gateway, backend)
    }
    drain_s = re.search(r"SUPERRES_DRAIN_S=(\d+)", (ROOT / "docker" / "gateway.Dockerfile").read_text())
    assert drain_s
    exit_s = int(environment(backend)["EXIT_TIMEOUT_S"])
    ends_s = {
        id(gateway): pause_s[id(gateway)] + max_shutdown_s(float(drain_s[1])),
        id(backend): pause_s[id(backend)] + exit_s + 5,
    }
    links = {
        "the interceptor would answer before the gateway": settings.deadline_s < request_s,
        "a slow boot would end before the deadline": readiness_s > settings.deadline_s,
        "a slow first band would end before the deadline": header_s > settings.deadline_s,
        "SIGKILL would come before Triton's end": ends_s[id(backend)]
        <= revision(backend)["terminationGracePeriodSeconds"],
        "SIGKILL would come before the gateway's end": ends_s[id(gateway)]
        <= revision(gateway)["terminationGracePeriodSeconds"],
        "a boot that requests wait for would count as failed": request_s < backend["spec"]["progressDeadlineSeconds"],
        "requests would reach a pod that ends": min(pause_s.values()) >= 5,
    }
    return [broken for broken, holds in links.items() if not holds]


def chain() -> dict[str, Manifest]:
    found = {"gateway": deployment("gateway"), "backend": deployment("backend")}
    return copy.deepcopy({**found, "route": find(KEDA_OVERLAY, "InterceptorRoute", "backend")})


def test_timeouts_are_one_ordered_chain() -> None:
    assert broken_links(read_gateway_settings(), **chain()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found["route"]["spec"]["timeouts"].update(request="110s"), "answer before the gateway"),
        (lambda found: found["route"]["spec"]["timeouts"].update(readiness="60s"), "slow boot"),
        (lambda found: found["route"]["spec"]["timeouts"].update(responseHeader="1m30s"), "slow first band"),
        (lambda found: revision(found["backend"]).update(terminationGracePeriodSeconds=69), "Triton's end"),
        (lambda found: revision(found["gateway"]).update(terminationGracePeriodSeconds=50), "gateway's end"),
        (lambda found: found["backend"]["spec"].update(progressDeadlineSeconds=120), "count as failed"),
        (
            lambda found: revision(found["backend"])["containers"][0]["lifecycle"]["preStop"]["sleep"].update(
                seconds=0
            ),
            "a pod that ends",
        ),
    ],
)
def test_chain_out_of_order_is_seen(change: Callable[[Any], None], words: str) -> None:
    found = chain()
    change(found)
    broken = broken_links(read_gateway_settings(), **found)
    assert any(words in line for line in broken), broken


def test_probes_need_no_port_that_listens_on_loopback_only() -> None:
    backend, gateway = (revision(deployment(name))["containers"][0] for name in ("backend", "gateway"))
    assert backend["readinessProbe"]["grpc"] == {"port": 8001}
    assert backend["readinessProbe"]["periodSeconds"] == 1, "a longer period would add to every boot"
    assert "exec" in backend["livenessProbe"]
    for name in ("readinessProbe", "livenessProbe"):
        assert gateway[name]["httpGet"] == {"path": "/healthz", "port": read_gateway_settings().port}, "wakes nothing"


def test_backend_never_needs_two_gpus() -> None:
    assert deployment("backend")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    assert revision(deployment("backend"))["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_monthly_budget_is_below_the_bill() -> None:
    settings = read_gateway_settings()
    seen_s = 12 + 3 + settings.scale_to_zero_after_s  # boot, work, tail
    billed_s = settings.monthly_gpu_budget_s * (seen_s + UNSEEN_S) / seen_s
    assert 0.9 * 3 < billed_s * 0.00022 <= 3
    spec = find(KEDA_OVERLAY, "ScaledObject", "backend")["spec"]
    pause = revision(deployment("backend"))["containers"][0]["lifecycle"]["preStop"]["sleep"]
    assert spec["pollingInterval"] + pause["seconds"] + 5 == UNSEEN_S


KEDAS = ("InterceptorRoute", "ScaledObject")


@pytest.mark.parametrize("kind", KEDAS)
def test_kedas_objects_fit_their_schemas(kind: str) -> None:
    assert keda_errors(find(KEDA_OVERLAY, kind, "backend")) == []


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("InterceptorRoute", "apiVersion", "http.keda.sh/v1alpha1"),
        ("InterceptorRoute", "spec/target/portName", "grpc"),
        ("InterceptorRoute", "spec/target/port", 0),
        ("InterceptorRoute", "spec/target/name", "triton"),
        ("InterceptorRoute", "spec/scalingMetric", {}),
        ("InterceptorRoute", "spec/scalingMetric/concurrency/targetValue", "2"),
        ("InterceptorRoute", "spec/rules/0/hosts", "backend"),
        ("InterceptorRoute", "spec/timeouts/request", 120),
        ("InterceptorRoute", "spec/timeouts/request", "120"),
        ("InterceptorRoute", "spec/timeouts/conditionWait", "120s"),
        ("ScaledObject", "spec/cooldownPeriod", "45"),
        ("ScaledObject", "spec/minReplicas", 0),
        ("ScaledObject", "spec/maxReplicaCount", 0),
        ("ScaledObject", "spec/triggers", []),
        ("ScaledObject", "spec/triggers/0/type", "external"),
        ("ScaledObject", "spec/triggers/0/metadata/httpScaledObject", "backend"),
    ],
)
def test_wrong_object_of_keda_is_rejected(kind: str, path: str, value: Any) -> None:
    manifest = copy.deepcopy(find(KEDA_OVERLAY, kind, "backend"))
    *parents, last = path.split("/")
    at: Any = manifest
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    at[last] = value
    assert keda_errors(manifest) != []


def test_other_components_work_with_it(tmp_path: Path) -> None:
    rendered = render_with(tmp_path, components=("gpu-node-at-zero", "webhooks", "images", "weights", "keda"))
    found = {each["metadata"]["name"]: revision(each) for each in rendered if each["kind"] == "Deployment"}
    assert not any(each["apiVersion"] == KNATIVE for each in rendered)
    assert found["backend"]["nodeSelector"]
    assert not KNATIVE_FIELDS & found["backend"].keys()
    for name in ("backend", "gateway"):
        assert "weights" in {volume["name"] for volume in found[name]["volumes"]}
    assert "webhook-key" in {volume["name"] for volume in found["gateway"]["volumes"]}


def test_patch_of_an_operator_keeps_the_rest_of_a_deployment(tmp_path: Path) -> None:
    """Kustomize merges lists by name only for kinds that the project's schema has."""
    render_with(tmp_path, components=())
    overlay = tmp_path / "k8s" / "overlays" / "mine"
    rows = [{"name": "SUPERRES_FRAME_ANCESTORS", "value": "none"}]
    template = {"spec": {"containers": [{"name": "gateway", "env": rows}]}}
    patch = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "gateway", "namespace": "superres"}}
    patches = [{"patch": yaml.safe_dump({**patch, "spec": {"template": template}})}]
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["../keda"], "patches": patches}))
    (gateway,) = [
        each
        for each in render_folder(overlay)
        if each["kind"] == "Deployment" and each["metadata"]["name"] == "gateway"
    ]
    assert environment(gateway) == {**environment(deployment("gateway")), "SUPERRES_FRAME_ANCESTORS": "none"}
    assert revision(gateway)["volumes"] == revision(deployment("gateway"))["volumes"]


def test_component_says_that_it_comes_last() -> None:
    text = (K8S / "components" / "keda" / "kustomization.yaml").read_text()
    assert "List this component last" in text.replace("\n# ", " ")
    components = yaml.safe_load((K8S / "overlays" / "keda" / "kustomization.yaml").read_text())["components"]
    assert components[-1] == "../../components/keda"


@pytest.mark.parametrize("name", ["backend", "gateway"])
def test_prometheus_scrapes_the_pods(name: str) -> None:
    monitor = find("monitoring", "PodMonitor", name)["spec"]
    assert (
        monitor["selector"]["matchLabels"].items() <= deployment(name)["spec"]["template"]["metadata"]["labels"].items()
    )
    ports = {each["name"]: each["containerPort"] for each in revision(deployment(name))["containers"][0]["ports"]}
    (endpoint,) = [each for each in monitor["podMetricsEndpoints"] if each["port"] in ports]
    policy = find(KEDA_OVERLAY, "NetworkPolicy", name)["spec"]
    assert ports[endpoint["port"]] in [port["port"] for rule in policy["ingress"] for port in rule["ports"]]
    assert name == "backend" or environment(deployment(name))["SUPERRES_METRICS_PORT"] == str(ports["metrics"])
