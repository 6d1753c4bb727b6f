"""Internet scale on paper: what each layer needs for a rate of images, and which one is full first.

Owns the capacity model: what one image takes of each layer (measured, counted or assumed, and it says which), and the
arithmetic from there to a number of units. The simulations at that scale are in `growth.py`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planning.traffic import day_share

SCALE = 4
RAW_BYTES_PER_PIXEL = 3

CPU_PER_MEGAPIXEL_S: Mapping[str, float] = {"decode": 0.0160, "png": 0.0359, "jpeg": 0.00648, "webp": 0.107}
"""CPU seconds a megapixel, medians of 7 rounds on 7 photographs, one core of a 2-core AMD EPYC machine: what
`python -m benchmarks.layers` printed on 2026-11-22; decode counts input megapixels, the others result megapixels."""
BYTES_PER_PIXEL: Mapping[str, float] = {"upload": 0.501, "png": 1.127, "jpeg": 0.221, "webp": 0.147}
"""Bytes a pixel of an upload (JPEG, quality 92) and of a result in each format, from the same run."""
TERAFLOPS_PER_MEGAPIXEL: Mapping[str, float] = {
    "compact_x4": 0.562,
    "lightweight_x4": 2.130,
    "real_x4": 27.33,
    "real_large_x4": 61.34,
}
"""10^12 floating point operations an input megapixel, counted on our network by the same run."""
GRID_OVERHEAD = 1.36
"""Computed over useful pixels for 1920x1080 in tiles of 192 with overlap 32 (the project's guide on speed)."""
GPU_PEAK_TERAFLOPS: Mapping[str, float] = {"L4": 121.0, "H100": 989.0}
"""Dense bf16 peak of the data sheets."""
GPU_EFFICIENCY = 0.20
"""ASSUMED share of that peak: on a CPU the network reaches 20 to 26 % of its own; nobody measured a GPU."""
GPU_UTILISATION = 0.7
"""Share of the time that a GPU of a pool may be busy; see the simulated waits in docs/measurements/scale.md."""
CPU_UTILISATION = 0.6
LINK_BYTES_PER_S = 10e9 / 8
"""A node's link of 10 Gbit/s (ASSUMED), of which `LINK_UTILISATION` may be filled."""
LINK_UTILISATION = 0.6
STORE_OPERATIONS = 4
"""Operations on the shared store of limits that one request makes (ASSUMED: window read and write, ban, refund)."""
STORE_OPERATIONS_PER_S = 50_000.0
"""What one Redis core serves (ASSUMED)."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What an image is at this scale."""

    variant: str = "lightweight_x4"
    gpu: str = "L4"
    output: str = "png"
    megapixels: float = 0.69
    """Mean input size: the named traces' log-normal sizes have a mean of 0.5 x exp(0.8^2 / 2) = 0.69."""
    efficiency: float = GPU_EFFICIENCY
    activator_in_path: bool = True
    """Whether raw pixels pass through Knative's activator (target-burst-capacity -1) or go to the pod directly (0)."""

    @property
    def result_megapixels(self) -> float:
        """Size of the result."""
        return self.megapixels * SCALE**2

    @property
    def gpu_s(self) -> float:
        """GPU seconds an image: FLOPs x grid overhead / (peak x efficiency)."""
        teraflops = TERAFLOPS_PER_MEGAPIXEL[self.variant] * self.megapixels * GRID_OVERHEAD
        return teraflops / (GPU_PEAK_TERAFLOPS[self.gpu] * self.efficiency)

    @property
    def cpu_s(self) -> float:
        """Gateway CPU seconds an image: decode the upload, encode the result."""
        encode_s = CPU_PER_MEGAPIXEL_S[self.output] * self.result_megapixels
        return CPU_PER_MEGAPIXEL_S["decode"] * self.megapixels + encode_s

    @property
    def raw_bytes(self) -> float:
        """Raw pixels between gateway and Triton, both ways."""
        return RAW_BYTES_PER_PIXEL * 1e6 * (self.megapixels + self.result_megapixels)

    @property
    def public_bytes(self) -> float:
        """Upload and encoded result, between gateway and visitor."""
        upload = BYTES_PER_PIXEL["upload"] * self.megapixels
        return 1e6 * (upload + BYTES_PER_PIXEL[self.output] * self.result_megapixels)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, in units that can be counted and bought."""

    name: str
    unit: str
    per_image: float
    """Share of a unit's second that one image takes."""
    utilisation: float
    """Share of its time that a unit may be busy."""
    basis: str
    """Where the figure comes from."""

    @property
    def full_at(self) -> float:
        """Images a second at which ONE unit is as full as it may be."""
        return self.utilisation / self.per_image

    def units(self, images_per_s: float) -> int:
        """Units for a rate."""
        return math.ceil(images_per_s * self.per_image / self.utilisation)


def list_layers(workload: Workload) -> list[Layer]:
    """What one image takes of every layer."""
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
    """Images inside at a time (Little's law)."""
    return images_per_s * latency_s


def gateway_memory_bytes(workload: Workload, images_per_s: float, latency_s: float) -> float:
    """Pixels that the gateways hold at a time if each holds a whole result (not bands) while it is made and encoded."""
    return in_flight(images_per_s, latency_s) * workload.raw_bytes


def scraped_pods(pods: int) -> int:
    """How many of so many pods the autoscaler reads each second (kpa.md rule 2, sample_size.go:51-56)."""
    return pods if pods <= 3 else math.ceil(pods * 15.37 / (pods + 14.37))


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the world with its share of the visitors and its clock."""

    name: str
    share: float
    utc_offset_h: float


REGIONS: Sequence[Region] = (
    Region("Americas", 0.30, -6),
    Region("Europe and Africa", 0.30, 1),
    Region("Asia and Oceania", 0.40, 8),
)
"""ASSUMED shares and clocks."""


def demand_at(region: Region, utc_hour: float) -> float:
    """A region's demand at an hour, as a share of the sum of all regions' busiest hours."""
    local_s = np.asarray(3600 * (utc_hour + region.utc_offset_h))
    return region.share * float(day_share(local_s))


def world_peak(regions: Sequence[Region] = REGIONS) -> float:
    """The world's busiest moment, as a share of the sum of all regions' busiest hours."""
    return max(sum(demand_at(region, minute / 60) for region in regions) for minute in range(24 * 60))


def survives_loss(regions: Sequence[Region] = REGIONS) -> float:
    """Capacity, in the same unit, with which any one region may fail at any hour if the others take its visitors.

    Every region gets the same headroom over its own share of capacity; the worst pair of loss and hour decides.
    """
    worst = 0.0
    for lost in regions:
        left = sum(region.share for region in regions if region is not lost)
        worst = max(worst, world_peak(regions) / left)
    return worst
