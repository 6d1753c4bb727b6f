"""gateway.access.api_keys: the file of key hashes."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.access.api_keys import ApiKeyFileError, ApiKeyStore
from testing.data import ROOT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


def test_new_key_is_valid_at_once_and_stored_as_a_hash_only(path: Path) -> None:
    keys = ApiKeyStore(path)

    key = keys.new("a phone", now=lambda: datetime(2026, 11, 22, tzinfo=UTC))

    client = keys.identify(key)
    assert client is not None
    assert (client.name, client.created) == ("a phone", "2026-11-22T00:00:00+00:00")
    assert key.startswith("ssr_")
    assert key not in path.read_text()
    assert key.removeprefix("ssr_") not in path.read_text()


def test_file_and_folder_are_readable_by_the_owner_only(path: Path) -> None:
    ApiKeyStore(path).new("a")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {entry.name for entry in path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


@pytest.mark.parametrize("presented", ["", "ssr_", "ssr_" + "A" * 43, "é", "\udcff", "x" * 100_000])
def test_invalid_key_identifies_no_client(path: Path, presented: str) -> None:
    keys = ApiKeyStore(path)
    keys.new("a")

    assert keys.identify(presented) is None


def test_missing_file_means_no_keys(path: Path) -> None:
    assert ApiKeyStore(path).entries() == ()
    assert ApiKeyStore(path).identify("ssr_x") is None


def test_running_reader_applies_changes_at_once(path: Path) -> None:
    reader = ApiKeyStore(path)
    assert reader.identify("x") is None

    first, second = ApiKeyStore(path).new("a"), ApiKeyStore(path).new("b")
    assert [client.name for key in (first, second) if (client := reader.identify(key))] == ["a", "b"]

    ApiKeyStore(path).revoke("a")
    assert reader.identify(first) is None
    assert reader.identify(second) is not None

    path.unlink()
    assert reader.identify(second) is None


def test_revoke_takes_an_id_or_a_name(path: Path) -> None:
    keys = ApiKeyStore(path)
    for name in ("a", "b", "b", "c"):
        keys.new(name)
    first = keys.entries()[0]

    assert [client.name for client in keys.revoke("b")] == ["b", "b"]
    assert keys.revoke(first.id) == (first,)
    assert [client.name for client in keys.entries()] == ["c"]
    with pytest.raises(ApiKeyFileError, match="Unknown key 'b': no key has this id or name"):
        keys.revoke("b")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"keys": [{}]}',
        '{"keys": [{"id": 1, "name": "a", "created": "", "sha256": "00"}]}',
        '{"keys": [{"id": "1", "name": "a", "created": "", "sha256": "00"}]}',
        "\x00" * 10,
        "x" * 4_194_305,
    ],
)
def test_invalid_file_keeps_the_previous_keys_and_is_logged_once(
    path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = ApiKeyStore(path)
    key = keys.new("a")
    assert keys.identify(key)

    path.write_text(content)

    assert keys.identify(key) is not None
    assert keys.identify(key) is not None
    assert len(caplog.records) == 1
    assert "The keys loaded before stay in force." in caplog.text
    with pytest.raises(ApiKeyFileError, match="keys file"):
        keys.entries()
    with pytest.raises(ApiKeyFileError, match="keys file"):
        keys.new("b")
    assert path.read_text() == content, "a file that is not understood must not be overwritten"


def test_repaired_file_is_loaded(path: Path) -> None:
    keys = ApiKeyStore(path)
    key = keys.new("a")
    good = path.read_text()
    path.write_text("{")
    assert keys.identify("x") is None

    path.write_text(good)

    assert keys.identify(key) is not None


def test_replaced_mounted_secret_is_reloaded(tmp_path: Path) -> None:
    """Kubernetes mounts a Secret as a symbolic link to a folder and replaces the link."""
    old, new = tmp_path / "old", tmp_path / "new"
    key_old, key_new = ApiKeyStore(old / "keys.json").new("a"), ApiKeyStore(new / "keys.json").new("b")
    (tmp_path / "data").symlink_to(old)
    reader = ApiKeyStore(tmp_path / "data" / "keys.json")
    assert reader.identify(key_old)

    (tmp_path / "next").symlink_to(new)
    (tmp_path / "next").replace(tmp_path / "data")

    assert reader.identify(key_old) is None
    assert reader.identify(key_new)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 81])
def test_invalid_name_is_rejected(path: Path, name: str) -> None:
    with pytest.raises(ApiKeyFileError, match="Invalid name: use 1 to 80 printable characters"):
        ApiKeyStore(path).new(name)
    assert not path.exists()


def test_keys_created_concurrently_are_all_stored(path: Path) -> None:
    code = f"""
from pathlib import Path
from gateway.access.api_keys import ApiKeyStore
keys = ApiKeyStore(Path({str(path)!r}))
[keys.new("p") for _ in range(5)]
"""
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(2)]
    threads = [threading.Thread(target=lambda: ApiKeyStore(path).new("t")) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [process.wait(120) for process in processes] == [0, 0]
    assert sorted(client.name for client in ApiKeyStore(path).entries()) == ["p"] * 10 + ["t"] * 5


def test_unknown_members_of_the_file_are_ignored(path: Path) -> None:
    keys = ApiKeyStore(path)
    key = keys.new("a")
    content = json.loads(path.read_text())
    content["keys"][0]["since"] = "later versions"
    path.write_text(json.dumps(content))

    assert keys.identify(key) is not None


def test_unwritable_folder_raises_a_file_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ApiKeyFileError, match="cannot be changed: "):
        ApiKeyStore(tmp_path / "file" / "keys.json").new("a")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


class Calendar:
    """A manual clock for dates."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_rotated_key_stays_valid_for_a_while_and_keeps_client_and_rates(path: Path) -> None:
    calendar = Calendar()
    keys = ApiKeyStore(path, now=calendar)
    old = keys.new("phone", requests="5 per minute", megapixels="9 per hour")
    other = keys.new("tablet")

    new = keys.rotate("phone", timedelta(hours=24))

    assert [client.name for key in (old, new, other) if (client := keys.identify(key))] == ["phone", "phone", "tablet"]
    before, after = keys.identify(old), keys.identify(new)
    assert before is not None
    assert after is not None
    assert (before.expires, after.expires) == ("2026-11-23T00:00:00+00:00", "")
    assert (after.requests, after.megapixels) == ("5 per minute", "9 per hour")
    calendar.now += timedelta(hours=24)
    assert keys.identify(old) is None
    assert keys.identify(new) is not None
    assert keys.identify(other) is not None


def test_key_rotated_without_overlap_expires_at_once_and_is_deleted(path: Path) -> None:
    keys = ApiKeyStore(path)
    old = keys.new("phone")

    new = keys.rotate(keys.entries()[0].id, timedelta(0))

    assert keys.identify(old) is None
    assert keys.identify(new) is not None
    assert len(keys.entries()) == 1


def test_second_rotation_does_not_extend_the_first_key(path: Path) -> None:
    calendar = Calendar()
    keys = ApiKeyStore(path, now=calendar)
    first = keys.new("phone")
    keys.rotate("phone", timedelta(hours=1))

    third = keys.rotate("phone", timedelta(hours=48))
    calendar.now += timedelta(hours=1)

    assert keys.identify(first) is None
    assert keys.identify(third) is not None
    with pytest.raises(ApiKeyFileError, match="Unknown key"):
        keys.rotate("nobody", timedelta(0))


def test_rates_can_be_set_with_the_key_or_later(path: Path) -> None:
    keys = ApiKeyStore(path)
    key = keys.new("phone", requests=" 5 per minute ")

    keys.set_rates("phone", requests=None, megapixels="100 per day; 20 per hour")

    client = keys.identify(key)
    assert client is not None
    assert (client.requests, client.megapixels) == ("5 per minute", "100 per day; 20 per hour")


@pytest.mark.parametrize("text", ["many", "5", "0 per minute", "-1 per day", "5 per fortnight", "1000000 per day"])
def test_invalid_rate_is_rejected_and_nothing_is_written(path: Path, text: str) -> None:
    keys = ApiKeyStore(path)
    keys.new("phone")
    content = path.read_text()

    with pytest.raises(ApiKeyFileError, match=r"^Invalid rate "):
        keys.new("other", megapixels=text)
    with pytest.raises(ApiKeyFileError, match=r"^Invalid rate "):
        keys.set_rates("phone", requests=text, megapixels=None)

    assert path.read_text() == content


def test_file_of_the_first_version_is_accepted(path: Path) -> None:
    keys = ApiKeyStore(path)
    key = keys.new("phone")
    row = {name: json.loads(path.read_text())["keys"][0][name] for name in ("id", "name", "created", "sha256")}
    path.write_text(json.dumps({"version": 1, "keys": [row]}))

    client = keys.identify(key)

    assert client is not None
    assert (client.requests, client.megapixels, client.expires) == ("", "", "")


def test_every_hash_is_compared_for_any_key(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work, and so the time, is equal for no key, an unknown key, a revoked key and any position in the list."""
    keys = ApiKeyStore(path)
    made = [keys.new(name) for name in "abc"]
    revoked = keys.new("d")
    keys.revoke("d")
    compared: list[int] = []

    def compare(one: str, other: str) -> bool:
        compared.append(len(other))
        return one == other

    monkeypatch.setattr("gateway.access.api_keys.hmac.compare_digest", compare)

    for presented in ("", "ssr_wrong", revoked, made[0], made[2]):
        compared.clear()
        keys.identify(presented)
        assert compared == [64, 64, 64]
