"""Blocks: networks that get nothing, from a file of one network a line with a comment that says who blocked it and why.

    203.0.113.0/24     # 2026-11-22 alice: scraped the form all night
    2001:db8:1:2::/64

Asked first of all doors, so looking an address up costs a dictionary look-up for each length of prefix in the file,
however long it is.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from gateway.access.client_ip import read_address
from gateway.storage.reloading_file import FileError, ReloadingFile

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_NOTE_LENGTH = 200


class BlocklistFileError(FileError):
    """The blocks cannot be read or changed; the text says why and what to do."""


@dataclass(frozen=True)
class BlockedNetwork:
    """A line of the file."""

    network: Network
    note: str
    """Who and why; may be empty."""
    line: int
    """1 for the first."""


class _Index:
    def __init__(self, blocks: tuple[BlockedNetwork, ...]) -> None:
        self.blocks = blocks
        self._by_prefix: dict[tuple[int, int], dict[int, BlockedNetwork]] = {}
        for block in blocks:
            network = block.network
            prefixes = self._by_prefix.setdefault((network.version, network.prefixlen), {})
            prefixes.setdefault(int(network.network_address) >> (network.max_prefixlen - network.prefixlen), block)

    def find(self, text: str) -> BlockedNetwork | None:
        if not self._by_prefix or (address := read_address(text)) is None:
            return None
        number = int(address)
        for (version, length), prefixes in self._by_prefix.items():
            if version == address.version and (block := prefixes.get(number >> (address.max_prefixlen - length))):
                return block
        return None


class Blocklist:
    """The file of blocks. Safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self._file = ReloadingFile[_Index](path, "blocks", _parse, empty=_Index(()), error=BlocklistFileError)

    def find(self, address: str) -> BlockedNetwork | None:
        """Return the block that an address is under; None when it is under none."""
        return self._file.current().find(address)

    def blocks(self) -> tuple[BlockedNetwork, ...]:
        """Return all blocks as the file has them now. Raises BlocksError when it cannot be read."""
        return self._file.read().blocks

    def add(self, network: str, note: str) -> Network:
        """Add a line for a network or an address and return what is blocked."""
        note = note.strip()
        if len(note) > MAX_NOTE_LENGTH or not note.isprintable():
            raise BlocklistFileError(f"A note has at most {MAX_NOTE_LENGTH} printable characters, on one line.")
        try:
            parsed = read_network(network)
        except ValueError as error:
            raise BlocklistFileError(f"{error}.") from None
        with self._file.changing():
            for block in self._file.read().blocks:
                if block.network == parsed:
                    raise BlocklistFileError(f"{parsed} is blocked already, in line {block.line}.")
            content = self._file.read_bytes() or b""
            separator = b"" if not content or content.endswith(b"\n") else b"\n"
            line = f"{parsed}  # {note}" if note else str(parsed)
            self._file.replace(content + separator + f"{line}\n".encode())
        return parsed

    def remove(self, network: str) -> Network:
        """Take a network's lines out of the file and return it; the other lines stay as they are."""
        try:
            parsed = read_network(network)
        except ValueError as error:
            raise BlocklistFileError(f"{error}.") from None
        with self._file.changing():
            gone = {block.line for block in self._file.read().blocks if block.network == parsed}
            if not gone:
                raise BlocklistFileError(
                    f"{parsed} has no line of its own. `superres block list` shows those there are."
                )
            lines = (self._file.read_bytes() or b"").splitlines(keepends=True)
            self._file.replace(b"".join(line for number, line in enumerate(lines, 1) if number not in gone))
        return parsed


def read_network(text: str) -> Network:
    """Return the network or single address that a text is, IPv4 in IPv6 folded; raise ValueError in words."""
    text = text.strip()
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            meant = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text[:80]!r} is no network: write it as 203.0.113.0/24 or 2001:db8::/48") from None
        raise ValueError(f"{text[:80]!r} is an address within a network: did you mean {meant}?") from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.ip_network((mapped, network.prefixlen - 96))
    return network


def _parse(content: bytes) -> _Index:
    blocks = []
    for number, line in enumerate(content.splitlines(), 1):
        text, _, note = line.decode("utf-8", "replace").partition("#")
        if text.strip():
            try:
                blocks.append(BlockedNetwork(read_network(text), note.strip(), number))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    return _Index(tuple(blocks))
