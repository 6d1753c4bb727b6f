"""The IP blocklist: a file with one blocked network per line and an optional comment.

    203.0.113.0/24     # 2026-11-22 alice: scraped the form all night
    2001:db8:1:2::/64

Every request is checked against it first. A look-up costs one dictionary access for each prefix length that occurs in
the file, however many lines it has.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from gateway.access.client_ip import Network, parse_address
from gateway.storage.reloading_file import FileError, ReloadingFile

_MAX_NOTE_LENGTH = 200


class BlocklistFileError(FileError):
    """The blocklist cannot be read or changed. The message says why and what to do."""


@dataclass(frozen=True)
class BlockedNetwork:
    """One line of the blocklist."""

    network: Network
    note: str
    """The line's comment: who blocked the network and why. May be empty."""
    line: int
    """Line number in the file; the first line is 1."""


class _Index:
    """Blocked networks by IP version, prefix length and leading bits."""

    def __init__(self, entries: tuple[BlockedNetwork, ...]) -> None:
        self.entries = entries
        self._by_prefix: dict[tuple[int, int], dict[int, BlockedNetwork]] = {}
        for entry in entries:
            network = entry.network
            prefixes = self._by_prefix.setdefault((network.version, network.prefixlen), {})
            prefixes.setdefault(int(network.network_address) >> (network.max_prefixlen - network.prefixlen), entry)

    def find(self, text: str) -> BlockedNetwork | None:
        if not self._by_prefix or (address := parse_address(text)) is None:
            return None
        number = int(address)
        for (version, length), prefixes in self._by_prefix.items():
            if version == address.version and (entry := prefixes.get(number >> (address.max_prefixlen - length))):
                return entry
        return None


class Blocklist:
    """The blocklist file, read again whenever it changes. Safe for several threads and processes."""

    def __init__(self, path: Path) -> None:
        self._file = ReloadingFile[_Index](path, "blocks", _parse, empty=_Index(()), error=BlocklistFileError)

    def find(self, address: str) -> BlockedNetwork | None:
        """Return the entry that blocks an address, or None if the address is not blocked."""
        return self._file.current().find(address)

    def entries(self) -> tuple[BlockedNetwork, ...]:
        """Return all entries as the file has them now. Raises BlocklistFileError if it cannot be read."""
        return self._file.read().entries

    def add(self, network: str, note: str) -> Network:
        """Append a line for a network or a single address, and return the network."""
        note = note.strip()
        if len(note) > _MAX_NOTE_LENGTH or not note.isprintable():
            raise BlocklistFileError(
                f"Invalid note: use at most {_MAX_NOTE_LENGTH} printable characters without a line break."
            )
        parsed = _parse_argument(network)
        with self._file.lock():
            for entry in self._file.read().entries:
                if entry.network == parsed:
                    raise BlocklistFileError(f"{parsed} is already blocked, in line {entry.line}.")
            content = self._file.read_bytes() or b""
            separator = b"" if not content or content.endswith(b"\n") else b"\n"
            line = f"{parsed}  # {note}" if note else str(parsed)
            self._file.replace(content + separator + f"{line}\n".encode())
        return parsed

    def remove(self, network: str) -> Network:
        """Delete every line of a network and return the network. All other lines stay unchanged."""
        parsed = _parse_argument(network)
        with self._file.lock():
            removed = {entry.line for entry in self._file.read().entries if entry.network == parsed}
            if not removed:
                raise BlocklistFileError(
                    f"{parsed} does not have a line of its own. `superres block list` shows all entries."
                )
            lines = (self._file.read_bytes() or b"").splitlines(keepends=True)
            self._file.replace(b"".join(line for number, line in enumerate(lines, 1) if number not in removed))
        return parsed


def parse_network(text: str) -> Network:
    """Return the network, or the single address as a network, in a text. Raises ValueError with a full explanation.

    IPv4 networks mapped into IPv6 become plain IPv4.
    """
    text = text.strip()
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            suggestion = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"Invalid network {text[:80]!r}: write it as 203.0.113.0/24 or 2001:db8::/48") from None
        raise ValueError(f"Invalid network {text[:80]!r}: did you mean {suggestion}?") from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.ip_network((mapped, network.prefixlen - 96))
    return network


def _parse_argument(network: str) -> Network:
    try:
        return parse_network(network)
    except ValueError as error:
        raise BlocklistFileError(f"{error}.") from None


def _parse(content: bytes) -> _Index:
    entries = []
    for number, line in enumerate(content.splitlines(), 1):
        text, _, note = line.decode("utf-8", "replace").partition("#")
        if text.strip():
            try:
                entries.append(BlockedNetwork(parse_network(text), note.strip(), number))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    return _Index(tuple(entries))
