"""gateway.access.ip_blocklist: the file of blocked networks."""

from __future__ import annotations

import ipaddress
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.ip_blocklist import Blocklist, BlocklistFileError, _parse, parse_network


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "blocks.txt"


FILE = """\
# Whole lines may be comments.

203.0.113.0/24   # 2026-11-22 alice: scraped all night
198.51.100.7
2001:db8:1:2::/64#bob
::ffff:192.0.2.0/120   # IPv4, written as IPv6
"""


@pytest.mark.parametrize(
    ("address", "note"),
    [
        ("203.0.113.0", "2026-11-22 alice: scraped all night"),
        ("203.0.113.255", "2026-11-22 alice: scraped all night"),
        ("::ffff:203.0.113.9", "2026-11-22 alice: scraped all night"),
        ("203.0.114.0", None),
        ("203.0.112.255", None),
        ("198.51.100.7", ""),
        ("198.51.100.8", None),
        ("2001:db8:1:2:ffff::1", "bob"),
        ("2001:db8:1:3::1", None),
        ("192.0.2.200", "IPv4, written as IPv6"),
        ("192.0.3.0", None),
        ("", None),
        ("unknown", None),
        ("::", None),
    ],
)
def test_find_returns_the_entry_that_blocks_an_address(path: Path, address: str, note: str | None) -> None:
    path.write_text(FILE)

    block = Blocklist(path).find(address)

    assert (block.note if block else None) == note


@given(st.data())
def test_find_agrees_with_ipaddress(data: st.DataObject) -> None:
    addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6)
    networks = data.draw(
        st.lists(
            st.builds(lambda a, n: ipaddress.ip_network((a, n), strict=False), addresses, st.integers(0, 32)),
            max_size=5,
        )
    )
    address = data.draw(
        addresses | st.sampled_from([net.network_address for net in networks] or [ipaddress.ip_address("::1")])
    )
    content = "".join(f"{network}\n" for network in networks)

    unmapped = getattr(address, "ipv4_mapped", None) or address
    expected = any(unmapped in parse_network(str(network)) for network in networks)
    assert (_parse(content.encode()).find(str(address)) is not None) == expected


def test_changed_or_deleted_file_applies_at_once(path: Path) -> None:
    blocks = Blocklist(path)
    assert blocks.find("203.0.113.1") is None

    Blocklist(path).add("203.0.113.0/24", "")
    assert blocks.find("203.0.113.1")

    path.unlink()
    assert blocks.find("203.0.113.1") is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("203.0.113.0/33", "line 3: Invalid network '203.0.113.0/33': write it as 203.0.113.0/24 or 2001:db8::/48"),
        ("203.0.113.5/24", "line 3: Invalid network '203.0.113.5/24': did you mean 203.0.113.0/24?"),
        ("everybody", "line 3: Invalid network 'everybody'"),
        ("\x00\xff", "line 3: "),
    ],
)
def test_invalid_line_is_logged_by_number_and_keeps_the_previous_list(
    path: Path, line: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text("203.0.113.0/24\n")
    blocks = Blocklist(path)
    assert blocks.find("203.0.113.1")

    path.write_text(f"198.51.100.0/24\n\n{line}\n")

    assert blocks.find("203.0.113.1")
    assert blocks.find("198.51.100.1") is None
    [record] = caplog.records
    assert (record.levelno, words in caplog.text) == (logging.ERROR, True)
    assert "The blocks loaded before stay in force." in caplog.text
    with pytest.raises(BlocklistFileError, match="line 3"):
        blocks.entries()
    with pytest.raises(BlocklistFileError, match="line 3"):
        blocks.add("192.0.2.0/24", "")
    path.write_text("198.51.100.0/24\n")
    assert blocks.find("198.51.100.1")
    assert blocks.find("203.0.113.1") is None


def test_replaced_mounted_file_is_reloaded(tmp_path: Path) -> None:
    """On Kubernetes blocks.txt links to ..data/blocks.txt and ..data to a dated folder; ..data is replaced."""
    for name, text in (("..2026_1", "203.0.113.0/24"), ("..2026_2", "198.51.100.0/24")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "blocks.txt").write_text(text)
    (tmp_path / "..data").symlink_to("..2026_1")
    (tmp_path / "blocks.txt").symlink_to("..data/blocks.txt")
    blocks = Blocklist(tmp_path / "blocks.txt")
    assert blocks.find("203.0.113.1")

    (tmp_path / "..next").symlink_to("..2026_2")
    (tmp_path / "..next").replace(tmp_path / "..data")

    assert blocks.find("203.0.113.1") is None
    assert blocks.find("198.51.100.1")


def test_add_and_remove_leave_all_other_lines_unchanged(path: Path) -> None:
    path.write_text(FILE.rstrip("\n"))
    blocks = Blocklist(path)

    assert str(blocks.add(" 192.0.2.77 ", "2026-11-23 carol: knocks")) == "192.0.2.77/32"
    assert path.read_text() == FILE + "192.0.2.77/32  # 2026-11-23 carol: knocks\n"
    assert str(blocks.remove("192.0.2.77/32")) == "192.0.2.77/32"
    assert path.read_text() == FILE
    blocks.remove("192.0.2.0/24")
    assert "written as IPv6" not in path.read_text()


@pytest.mark.parametrize(
    ("network", "note", "words"),
    [
        ("203.0.113.0/24", "", "203.0.113.0/24 is already blocked, in line 3."),
        ("203.0.113.1/24", "", "did you mean 203.0.113.0/24?"),
        ("nobody", "", "Invalid network 'nobody'"),
        ("192.0.2.1", "a\nb", "Invalid note: use at most 200 printable"),
        ("192.0.2.1", "x" * 201, "Invalid note"),
    ],
)
def test_add_rejects_invalid_input(path: Path, network: str, note: str, words: str) -> None:
    path.write_text(FILE)

    with pytest.raises(BlocklistFileError) as caught:
        Blocklist(path).add(network, note)

    assert words in str(caught.value)
    assert path.read_text() == FILE


@pytest.mark.parametrize("network", ["203.0.113.0/25", "10.0.0.0/8", "x"])
def test_remove_rejects_a_network_without_a_line(path: Path, network: str) -> None:
    path.write_text(FILE)

    with pytest.raises(BlocklistFileError):
        Blocklist(path).remove(network)

    assert path.read_text() == FILE
