"""The keys that sign webhooks: from the setting, from a file made once, two during a rotation, and published."""

from __future__ import annotations

import base64
import importlib.util
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.config.webhook_checks import signing_keys
from gateway.webhooks.keys import WebhookKeyError, WebhookKeys
from testing.webhook_receiver import Message, is_signed_by

# The secret and the public key of RFC 8032 section 7.1, test 1.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
KEY = f"whsk_{base64.b64encode(SEED).decode()}"
OTHER = f"whsk_{base64.b64encode(b'o' * 32).decode()}"


def sign(keys: WebhookKeys, body: bytes = b"{}") -> Message:
    headers = {"webhook-id": "1", "webhook-timestamp": "7", "webhook-signature": keys.sign("1", 7, body)}
    return Message("/", headers, body)


def public(keys: WebhookKeys) -> list[str]:
    return [key["standard_webhooks"] for key in keys.public_keys()]


def test_public_key_is_that_of_the_rfc(tmp_path: Path) -> None:
    (found,) = WebhookKeys(KEY, tmp_path / "key", needs_setting=True).public_keys()

    assert (found["kty"], found["crv"], found["alg"], found["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
    assert found["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"  # RFC 8037 appendix A.2
    assert found["kid"] == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # RFC 8037 appendix A.3
    assert found["standard_webhooks"] == f"whpk_{base64.b64encode(PUBLIC).decode()}"
    assert not (tmp_path / "key").exists()


def test_signature_covers_id_time_and_body(tmp_path: Path) -> None:
    keys = WebhookKeys(KEY, tmp_path / "key", needs_setting=False)
    message, (key,) = sign(keys), public(keys)

    assert is_signed_by(message, key)
    assert not is_signed_by(Message("/", message.headers, b"[]"), key)
    for name, value in {"webhook-id": "2", "webhook-timestamp": "8"}.items():
        assert not is_signed_by(Message("/", {**message.headers, name: value}, message.body), key)


def test_both_keys_sign_during_a_rotation(tmp_path: Path) -> None:
    old, rotating = (WebhookKeys(key, tmp_path / "key", needs_setting=True) for key in (KEY, f"{OTHER}, {KEY}"))

    message = sign(rotating)

    assert len(public(rotating)) == 2
    assert all(is_signed_by(message, key) for key in public(rotating))
    assert public(old)[0] in public(rotating)


def test_key_of_the_file_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "state" / "webhook_key"
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda _: public(WebhookKeys("", path, needs_setting=False))[0], range(8))

    assert len(set(found)) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [other.name for other in path.parent.iterdir()] == ["webhook_key"]


def test_file_may_have_two_keys_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "webhook_key"
    path.write_text(f"{KEY},{OTHER}\n")
    assert len(public(WebhookKeys("", path, needs_setting=False))) == 2

    path.write_text("secret\n")

    with pytest.raises(WebhookKeyError, match="webhook_key is invalid") as refused:
        WebhookKeys("", path, needs_setting=False).load()
    assert "secret" not in str(refused.value)


def test_there_is_no_key_without_setting_folder_or_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WebhookKeyError, match="the same webhook_key"):
        WebhookKeys("", tmp_path / "key", needs_setting=True).load()
    (tmp_path / "file").write_text("")
    with pytest.raises(WebhookKeyError, match="cannot be used"):
        WebhookKeys("", tmp_path / "file" / "key", needs_setting=False).load()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(WebhookKeyError, match="`webhooks` is not installed"):
        WebhookKeys(KEY, tmp_path / "key", needs_setting=False).load()


@pytest.mark.parametrize(
    "value", ["secret", "whsk_", "whsk_AAAA", "whsk_!", f"{KEY},", f"{KEY},{KEY},{KEY}", KEY.replace("whsk", "whpk")]
)
def test_invalid_setting_is_named_without_its_value(value: str) -> None:
    error = signing_keys(value)

    assert error
    assert value not in error or value == "whsk_"


@pytest.mark.parametrize("value", ["", KEY, f"{KEY}, {OTHER}", f"whsk_{base64.b64encode(SEED + PUBLIC).decode()}"])
def test_valid_setting(value: str) -> None:
    assert not signing_keys(value)
