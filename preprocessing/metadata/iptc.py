"""IPTC-IIM in Photoshop's image resources: read dataset by dataset, and written again.

Sources: IPTC IIM 4.2 chapter 3; Adobe Photoshop File Formats Specification, "Image Resource Blocks".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

PHOTOSHOP = b"Photoshop 3.0\0"
MAX_IPTC_BYTES = 60_000
_RESOURCE = b"8BIM"
_IPTC_RESOURCE = 0x0404
_DATASET = 0x1C
# An extended dataset, whose length has a length of its own: only previews and whole objects are that long.
_EXTENDED = 0x8000
_PREVIEWS = {(2, 200), (2, 201), (2, 202)}


def read_iptc(resources: bytes) -> bytes:
    """Return the sound datasets in Photoshop's image resources, without previews; empty without any or if too long."""
    for number, data in _resources(resources):
        if number == _IPTC_RESOURCE:
            datasets = b"".join(_datasets(data))
            return datasets if len(datasets) <= MAX_IPTC_BYTES else b""
    return b""


def write_iptc(datasets: bytes) -> bytes:
    """Return Photoshop's image resources with these datasets and nothing else."""
    header = struct.pack(">4sHHI", _RESOURCE, _IPTC_RESOURCE, 0, len(datasets))
    return header + datasets + bytes(len(datasets) % 2)


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while data[at : at + 4] == _RESOURCE and at + 7 <= len(data):
        number, name_bytes = struct.unpack_from(">HB", data, at + 4)
        at += 6 + (1 + name_bytes + 1) // 2 * 2
        if at + 4 > len(data):
            return
        (n_bytes,) = struct.unpack_from(">I", data, at)
        if at + 4 + n_bytes > len(data):
            return
        yield number, data[at + 4 : at + 4 + n_bytes]
        at += 4 + n_bytes + n_bytes % 2


def _datasets(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 5 <= len(data) and data[at] == _DATASET:
        record, dataset, n_bytes = struct.unpack_from(">BBH", data, at + 1)
        if n_bytes >= _EXTENDED or at + 5 + n_bytes > len(data):
            return
        if 1 <= record <= 9 and (record, dataset) not in _PREVIEWS:
            yield data[at : at + 5 + n_bytes]
        at += 5 + n_bytes
