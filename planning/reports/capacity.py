"""Capacity model: how much of each layer a rate of images needs, and which layer is full first.

States what one image takes of each layer (measured, counted or assumed) and computes the number of units from it.
`capacity_simulation.py` simulates waiting and scaling.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planning.traffic import day_share

SCALE = 4
RAW_BYTES_PER_PIXEL = 3

CPU_PER_MEGAPIXEL_S: Mapping[str, float] = {"decode": 0.0160, "png": 0.018, "jpeg": 0.0036, "webp": 0.029}
"""CPU seconds per megapixel on one core of a 2-core AMD EPYC machine. Decoding counts input megapixels, encoding result
megapixels.

Decoding: median of 7 rounds on 7 photos (`python -m benchmarks.layers`, 2026-11-22). Encoding: three results
(`python -m benchmarks.stack`, 2026-11-29), for PNG and JPEG times the ratio of today's encoder to that day's, measured
in turn on 2026-11-30: 0.78 and 0.73."""
BYTES_PER_PIXEL: Mapping[str, float] = {"upload": 0.501, "png": 0.992, "jpeg": 0.221, "webp": 0.147}
"""Bytes per pixel of an upload (JPEG, quality 92) and of a result in each format, from the run of 2026-11-22 on 7
photos. PNG is 12 % smaller since 2026-11-29."""
TERAFLOPS_PER_MEGAPIXEL: Mapping[str, float] = {
    "compact_x4": 0.562,
    "lightweight_x4": 2.130,
    "real_x4": 27.33,
    "real_large_x4": 61.34,
}
"""10^12 floating point operations per input megapixel, counted by `benchmarks.layers.count_teraflops`."""
GRID_OVERHEAD: Mapping[str, float] = {
    "compact_x4": 1.45,
    "lightweight_x4": 1.45,
    "real_x4": 2.053,
    "real_large_x4": 2.053,
}
"""Computed pixels over those of the image, for 960x720 (0.69 megapixels) and each variant's halo and tiles.

A test compares these figures with `swinir.image_grid.tile_grid`."""
GPU_PEAK_TERAFLOPS: Mapping[str, float] = {"L4": 121.0, "H100": 989.0}
"""Peak of dense bfloat16 operations in 10^12 per second, from the data sheets."""
GPU_EFFICIENCY = 0.20
"""Share of the peak that the network reaches (assumed; an H200 reached at most 4 %, see the times below)."""
MEASURED_GPU = "H200"
MEASURED_GPU_PEAK_TERAFLOPS = 989.0
MEASURED_GPU_S_PER_MEGAPIXEL: Mapping[str, float] = {
    "compact_x4": 0.074,
    "lightweight_x4": 0.231,
    "real_x4": 0.684,
}
"""GPU seconds per input megapixel of the network alone in bfloat16, one tile of 256x256 (real_x4: 192x192).

From benchmarks/results/gpu.json of 2026-11-27. No L4 was measured."""
GPU_UTILISATION = 0.7
"""Maximum share of time that a GPU of a pool is busy; docs/measurements/scale.md has the simulated waits."""
CPU_UTILISATION = 0.6
LINK_BYTES_PER_S = 10e9 / 8
"""Bandwidth of a node: 10 Gbit/s (assumed), used up to LINK_UTILISATION."""
LINK_UTILISATION = 0.6
STORE_OPERATIONS = 4
"""Operations per request on the shared store of rate limits (assumed: read and write a window, ban, refund)."""
STORE_OPERATIONS_PER_S = 50_000.0
"""Operations per second of one Redis core (assumed)."""


@dataclass(frozen=True, slots=True)
class Workload:
    """An average image and how it is processed."""

    variant: str = "lightweight_x4"
    gpu: str = "L4"
    output: str = "png"
    megapixels: float = 0.69
    """Mean input size. The log-normal sizes of the named traces have a mean of 0.5 x exp(0.8^2 / 2) = 0.69."""
    efficiency: float = GPU_EFFICIENCY
    activator_in_path: bool = True
    """Whether pixels pass through Knative's activator (target-burst-capacity -1) or go directly to the pod (0)."""

    @property
    def result_megapixels(self) -> float:
        """Size of the result in megapixels."""
        return self.megapixels * SCALE**2

    @property
    def gpu_s(self) -> float:
        """GPU seconds per image: operations x grid overhead / (peak x efficiency)."""
        teraflops = TERAFLOPS_PER_MEGAPIXEL[self.variant] * self.megapixels * GRID_OVERHEAD[self.variant]
        return teraflops / (GPU_PEAK_TERAFLOPS[self.gpu] * self.efficiency)

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the gateway per image, to decode the upload and encode the result."""
        encode_s = CPU_PER_MEGAPIXEL_S[self.output] * self.result_megapixels
        return CPU_PER_MEGAPIXEL_S["decode"] * self.megapixels + encode_s

    @property
    def raw_bytes(self) -> float:
        """Bytes of raw pixels per image between gateway and Triton, both directions together."""
        return RAW_BYTES_PER_PIXEL * 1e6 * (self.megapixels + self.result_megapixels)

    @property
    def public_bytes(self) -> float:
        """Bytes of upload and encoded result per image."""
        upload = BYTES_PER_PIXEL["upload"] * self.megapixels
        return 1e6 * (upload + BYTES_PER_PIXEL[self.output] * self.result_megapixels)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the system, in units that can be counted and bought."""

    name: str
    unit: str
    per_image: float
    """Seconds of one unit that one image takes."""
    utilisation: float
    """Maximum share of time that a unit is busy."""
    basis: str
    """Source of the figure."""

    @property
    def full_at(self) -> float:
        """Images per second at which one unit reaches its maximum utilization."""
        return self.utilisation / self.per_image

    def units(self, images_per_s: float) -> int:
        """Return the number of units for a rate."""
        return math.ceil(images_per_s * self.per_image / self.utilisation)


def list_layers(workload: Workload) -> list[Layer]:
    """Return all layers, the first one to be full first."""
    hops = 2 if workload.activator_in_path else 0
    layers = [
        Layer(f"GPU ({workload.variant})", workload.gpu, workload.gpu_s, GPU_UTILISATION, "counted / assumed speed"),
        Layer(f"gateway: decode, {workload.output}", "CPU core", workload.cpu_s, CPU_UTILISATION, "measured"),
        Layer(
            "gateway: raw pixels to and from Triton",
            "10 Gbit/s link",
            workload.raw_bytes / LINK_BYTES_PER_S,
            LINK_UTILISATION,
            "counted / assumed link",
        ),
        Layer(
            "gateway: upload and result",
            "10 Gbit/s link",
            workload.public_bytes / LINK_BYTES_PER_S,
            LINK_UTILISATION,
            "measured bytes / assumed link",
        ),
        Layer(
            "shared limits (Redis)",
            "Redis core",
            STORE_OPERATIONS / STORE_OPERATIONS_PER_S,
            CPU_UTILISATION,
            "assumed",
        ),
    ]
    if hops:
        layers.append(
            Layer(
                "Knative activator: raw pixels in and out",
                "10 Gbit/s link",
                hops * workload.raw_bytes / LINK_BYTES_PER_S,
                LINK_UTILISATION,
                "counted / assumed link",
            )
        )
    return sorted(layers, key=lambda layer: layer.full_at)


def in_flight(images_per_s: float, latency_s: float) -> float:
    """Return the number of images in the system at a time (Little's law)."""
    return images_per_s * latency_s


def gateway_memory_bytes(workload: Workload, images_per_s: float, latency_s: float) -> float:
    """Return the bytes of pixels in all gateways if each image is held whole (not in bands) until it is encoded."""
    return in_flight(images_per_s, latency_s) * workload.raw_bytes


def scraped_pods(pods: int) -> int:
    """Return the number of pods that the autoscaler scrapes each second (sample_size.go:51-56)."""
    return pods if pods <= 3 else math.ceil(pods * 15.37 / (pods + 14.37))


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the world with its share of visitors and its time zone."""

    name: str
    share: float
    utc_offset_h: float


REGIONS: Sequence[Region] = (
    Region("Americas", 0.30, -6),
    Region("Europe and Africa", 0.30, 1),
    Region("Asia and Oceania", 0.40, 8),
)
"""Regions with assumed shares and time zones."""


def demand_at(region: Region, utc_hour: float) -> float:
    """Return a region's demand at an hour, as a share of the sum of all regions' peaks."""
    local_s = np.asarray(3600 * (utc_hour + region.utc_offset_h))
    return region.share * float(day_share(local_s))


def global_peak_share(regions: Sequence[Region] = REGIONS) -> float:
    """Return the global peak as a share of the sum of all regions' peaks."""
    return max(sum(demand_at(region, minute / 60) for region in regions) for minute in range(24 * 60))


def capacity_for_region_loss(regions: Sequence[Region] = REGIONS) -> float:
    """Return the capacity with which any one region may fail at any hour, as a share of the sum of all regions' peaks.

    The other regions take over its visitors. Every region has the same headroom over its share of the capacity. The
    worst combination of region and hour determines the result.
    """
    worst = 0.0
    for lost in regions:
        left = sum(region.share for region in regions if region is not lost)
        worst = max(worst, global_peak_share(regions) / left)
    return worst
