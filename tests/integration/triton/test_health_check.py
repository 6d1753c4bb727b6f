"""gRPC's own health check of Triton, which the kubelet calls as a readiness probe (`k8s/components/keda`)."""

from __future__ import annotations

import contextlib
from pathlib import Path

import grpc

from gateway.backend.triton_process import TritonPorts, TritonProcess
from testing.data import ROOT
from testing.ports import find_free_ports
from testing.stack import wait_for

# grpc.health.v1.HealthCheckResponse with status SERVING, in protobuf: field 1, value 1.
SERVING = b"\x08\x01"


def test_health_check_of_grpc_passes_without_a_key_once_the_models_are_ready(tmp_path: Path) -> None:
    process = TritonProcess(
        model_repository=ROOT / "model_repository",
        model_key="model-key-of-the-tests",
        api_key="api-key-of-the-tests",
        log_path=tmp_path / "triton.log",
        environ={"OMP_WAIT_POLICY": "passive"},
        ports=TritonPorts(*find_free_ports(3)),
    )
    seen: list[bytes] = []
    with contextlib.ExitStack() as stack:
        stack.callback(process.stop)
        channel = stack.enter_context(grpc.insecure_channel(process.grpc_address))

        def call(method: str, request: bytes = b"", **headers: str) -> bytes:
            metadata = [(name.replace("_", "-"), value) for name, value in headers.items()]
            return bytes(channel.unary_unary(method)(request, timeout=5, metadata=metadata))

        def is_serving() -> bool:
            with contextlib.suppress(grpc.RpcError):  # refused: it listens once its models are loaded
                seen.append(call("/grpc.health.v1.Health/Check"))
            return SERVING in seen

        wait_for(is_serving, "SERVING")
        name = b"\x0a\x0eupscale_stream"  # ModelReadyRequest: field 1
        ready = call(
            "/inference.GRPCInferenceService/ModelReady", name, triton_grpc_protocol_model_key="model-key-of-the-tests"
        )
    assert seen == [SERVING], "it never said anything else"
    assert ready == b"\x08\x01"
