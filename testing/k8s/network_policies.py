"""A small evaluator of NetworkPolicies: may this pod reach that port? (networking.k8s.io/v1, what we use.)

A connection needs the egress of its source and the ingress of its target: each side allows all until a policy of that
direction selects the pod, and then only what some rule of some policy lists.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Policy = dict[str, Any]


@dataclass(frozen=True)
class PodSelector:
    """A pod as policies see it."""

    namespace: str
    labels: dict[str, str] = field(default_factory=dict)
    namespace_labels: dict[str, str] = field(default_factory=dict)
    """Those in addition to its name."""


def may_reach(
    source: PodSelector, target: PodSelector, port: int, policies: list[Policy], protocol: str = "TCP"
) -> bool:
    """Return whether the policies of both namespaces let `source` connect to `port` of `target`."""
    return may_leave(source, target, port, policies, protocol) and may_enter(source, target, port, policies, protocol)


def may_leave(
    source: PodSelector, target: PodSelector, port: int, policies: list[Policy], protocol: str = "TCP"
) -> bool:
    """Return whether the policies of the source's namespace allow the egress."""
    return _allows("Egress", source, target, port, protocol, policies)


def may_enter(
    source: PodSelector, target: PodSelector, port: int, policies: list[Policy], protocol: str = "TCP"
) -> bool:
    """Return whether the policies of the target's namespace allow the ingress."""
    return _allows("Ingress", target, source, port, protocol, policies)


def _allows(
    direction: str, subject: PodSelector, peer: PodSelector, port: int, protocol: str, policies: list[Policy]
) -> bool:
    key, peers_key = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    selecting = [
        policy for policy in policies if _selects(policy, subject) and direction in policy["spec"]["policyTypes"]
    ]
    rules = [rule for policy in selecting for rule in policy["spec"].get(key, [])]
    return not selecting or any(
        _matches_port(rule, port, protocol) and _matches_peer(rule.get(peers_key), peer, subject.namespace)
        for rule in rules
    )


def _selects(policy: Policy, pod: PodSelector) -> bool:
    return bool(policy["metadata"]["namespace"] == pod.namespace) and _matches(
        policy["spec"]["podSelector"], pod.labels
    )


def _matches_port(rule: dict[str, Any], port: int, protocol: str) -> bool:
    ports = rule.get("ports")  # missing or empty: all of them
    if any(each.keys() - {"port", "protocol"} for each in ports or []):
        raise NotImplementedError("no policy of the project uses endPort")
    return not ports or any(
        each.get("port", port) == port and each.get("protocol", "TCP") == protocol for each in ports
    )


def _matches_peer(peers: list[dict[str, Any]] | None, pod: PodSelector, namespace: str) -> bool:
    if not peers:  # missing or empty: any peer
        return True
    for peer in peers:
        if "ipBlock" in peer:
            raise NotImplementedError("no policy of the project uses ipBlock")
        is_same_namespace = pod.namespace == namespace
        names = {"kubernetes.io/metadata.name": pod.namespace, **pod.namespace_labels}
        in_namespace = _matches(peer["namespaceSelector"], names) if "namespaceSelector" in peer else is_same_namespace
        if in_namespace and _matches(peer.get("podSelector", {}), pod.labels):
            return True
    return False


def _matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    if selector.keys() - {"matchLabels"}:
        raise NotImplementedError(f"no policy of the project uses {sorted(selector)}")
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
