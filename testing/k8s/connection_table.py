"""Compares NetworkPolicies with a table of all allowed connections, and damages policies to prove the comparison."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from testing.k8s.network_policies import PodSelector, Policy, may_enter, may_leave

Connections = Mapping[tuple[str, str], tuple[int, ...]]


@dataclass(frozen=True)
class ConnectionTable:
    """All connections that policies allow. Every other one is denied, for each pair of pods and each port."""

    pods: Mapping[str, PodSelector]
    ports: tuple[tuple[int, str], ...]
    """Port and protocol."""
    ours: tuple[str, ...]
    """Pods that may call only what `leave` lists, and DNS."""
    guarded: tuple[str, ...]
    """Pods that accept only what `enter` lists."""
    unguarded: tuple[str, ...]
    """Pods in the same namespaces that no policy may select."""
    enter: Connections
    leave: Connections

    def differences(self, policies: list[Policy]) -> Iterator[str]:
        """Yield each connection for which the policies differ from the table.

        Egress and ingress are evaluated separately, so that one cannot hide an error of the other.
        """
        for target in (*self.guarded, *self.unguarded):
            for source, pod in self.pods.items():
                for port, protocol in self.ports:
                    listed = protocol == "TCP" and port in self.enter.get((source, target), ())
                    expected = listed or target in self.unguarded
                    if may_enter(pod, self.pods[target], port, policies, protocol) != expected:
                        yield f"{source} into {target}:{port}/{protocol}"
        for source in (*self.ours, "the internet"):
            for target, pod in self.pods.items():
                for port, protocol in self.ports:
                    listed = protocol == "TCP" and port in self.leave.get((source, target), ())
                    expected = listed or source not in self.ours or (target == "dns" and port == 53)
                    if may_leave(self.pods[source], pod, port, policies, protocol) != expected:
                        yield f"{source} out to {target}:{port}/{protocol}"


def spoil(policies: list[Policy]) -> Iterator[tuple[str, list[Policy]]]:
    """Yield copies of the policies, each with one selector or list emptied or one rule or port removed, and a name."""

    def edit(number: int, path: tuple[str | int, ...], *, to: Any = None) -> list[Policy]:
        changed = copy.deepcopy(policies)
        *parents, last = path
        at: Any = changed[number]["spec"]
        for key in parents:
            at = at[key]
        if to is None:
            del at[last]
        else:
            at[last] = to
        return changed

    for number, policy in enumerate(policies):
        name, spec = policy["metadata"]["name"], policy["spec"]
        if spec["podSelector"]:
            yield f"{name}: podSelector emptied", edit(number, ("podSelector",), to={})
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for at, rule in enumerate(spec.get(direction, [])):
                where = f"{name}: {direction} {at}"
                yield f"{where}: removed", edit(number, (direction, at))
                yield f"{where}: ports emptied", edit(number, (direction, at, "ports"), to=[])
                for which in range(len(rule["ports"])):
                    yield f"{where}: port {which} removed", edit(number, (direction, at, "ports", which))
                if peers in rule:
                    yield f"{where}: peers emptied", edit(number, (direction, at, peers), to=[])
                for which, peer in enumerate(rule.get(peers, [])):
                    for selector in peer:
                        path = (direction, at, peers, which, selector)
                        yield f"{where}: {selector} of peer {which} emptied", edit(number, path, to={})
