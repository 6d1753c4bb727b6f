"""Options of `superres upscale --to`: keys, variants, and what an installation without httpx says."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from gateway.cli import client_key, upscale_arguments
from gateway.cli.service import ServiceError
from gateway.cli.service_settings import read_service_settings
from gateway.cli.variant_option import resolve_variant
from gateway.config.environment import read_settings
from gateway.config.settings import Settings
from gateway.jobs.options import parse_options
from gateway.problems import BadParameter
from gateway.views.api import describe_service

OPTIONS = dict.fromkeys(("overwrite", "skip_existing", "dry_run", "quiet", "ask_for_key"), False)
KEY = "ssr_" + "k" * 43


def test_key_comes_from_the_file_then_the_prompt_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("of-the-file\n")
    monkeypatch.setattr(click, "prompt", lambda *_, **__: "of-the-prompt")
    environ = {"SUPERRES_CLIENT_KEY": " of-the-environment "}

    keys = [
        client_key.read_client_key(tmp_path / "key", ask=True, environ=environ),
        client_key.read_client_key(None, ask=True, environ=environ),
        client_key.read_client_key(None, ask=False, environ=environ),
    ]

    assert keys == ["of-the-file", "of-the-prompt", "of-the-environment"]


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "does not hold an API key"), (b"two\nlines", "one line"), (b"\xff\xfe", "ASCII"), (None, "cannot be read")],
)
def test_invalid_key_files(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)

    with pytest.raises(click.UsageError, match=words):
        client_key.read_client_key(tmp_path / "key", ask=False, environ={})


def test_missing_key_names_all_ways_to_give_one() -> None:
    with pytest.raises(click.UsageError, match="Set SUPERRES_CLIENT_KEY, or use --key-file FILE, or --key"):
        client_key.read_client_key(None, ask=False, environ={})


@pytest.mark.parametrize("arguments", [["--key", KEY], [f"--key={KEY}"], ["a.png", KEY, "out"]])
def test_key_in_the_arguments_is_refused_and_not_repeated(tmp_path: Path, arguments: list[str]) -> None:
    options = {**OPTIONS, "to": "http://127.0.0.1:1", "key_file": None}

    with pytest.raises(click.UsageError, match="looks like an API key") as caught:
        upscale_arguments.run(
            read_settings({"SUPERRES_STATE_DIR": str(tmp_path)}), [Path("a"), Path("b")], options, arguments
        )

    assert KEY not in caught.value.message


def test_installation_without_httpx_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("superres", "gateway.cli.remote_service"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.setenv("SUPERRES_CLIENT_KEY", KEY)
    options = {**OPTIONS, "to": "http://127.0.0.1:1", "key_file": None}

    with pytest.raises(click.UsageError, match=r"pip install 'serverless-superres\[client\]'"):
        upscale_arguments.run(read_settings({"SUPERRES_STATE_DIR": str(tmp_path)}), [Path("a"), Path("b")], options, [])


def test_key_options_without_a_service_are_refused(tmp_path: Path) -> None:
    options = {**OPTIONS, "to": None, "key_file": tmp_path / "key"}

    with pytest.raises(click.UsageError, match="are for --to URL"):
        upscale_arguments.run(read_settings({"SUPERRES_STATE_DIR": str(tmp_path)}), [Path("a"), Path("b")], options, [])


def test_client_key_is_not_a_setting_and_no_error(tmp_path: Path) -> None:
    read = read_settings({"SUPERRES_CLIENT_KEY": KEY, "SUPERRES_STATE_DIR": str(tmp_path)})

    assert read.settings.api_key == ""


@pytest.mark.parametrize(("text", "name"), [("auto", "auto"), ("compact-real", "compact_real_x4"), ("nope", "nope")])
def test_spellings_of_variants(tmp_path: Path, text: str, name: str) -> None:
    assert resolve_variant(text, Settings(state_dir=str(tmp_path))) == name


@pytest.mark.parametrize("text", ["real_x4", "real-large", "lightweight_x2"])
def test_published_variant_names_the_command_that_fetches_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(click.UsageError, match=r"(\w+) is not fetched yet. Fetch it with: superres weights fetch \1$"):
        resolve_variant(text, Settings(state_dir=str(tmp_path)))


def test_limits_and_variants_of_a_service() -> None:
    described = describe_service(Settings(max_pixels=1_000, max_upload_bytes=5_000, variants="compact_x4,nearest_x4"))

    settings = read_service_settings(described, "https://a")

    assert (settings.max_pixels, settings.max_upload_bytes) == (1_000, 5_000)
    assert list(settings.offered()) == ["compact_x4", "nearest_x4"]
    with pytest.raises(BadParameter, match="Did you mean compact_x4"):
        parse_options({"variant": "compact_x5"}, settings)


def test_custom_variant_of_a_service_can_be_named() -> None:
    described = describe_service(Settings())
    described["variants"].append({**described["variants"][0], "name": "our_own_x2", "scale": 2})

    settings = read_service_settings(described, "https://a")

    assert parse_options({"variant": "our_own_x2"}, settings).result_filename("a") == "a_our_own_x2.png"


@pytest.mark.parametrize("change", [{"scale": 1_000}, {"name": "../../etc/x"}, {"name": "auto"}, {"scale": "x"}])
def test_hostile_variants_are_refused(change: dict[str, object]) -> None:
    described = describe_service(Settings())
    described["variants"].append({**described["variants"][0], "name": "new_x4", **change})

    with pytest.raises(ServiceError, match="is not a gateway"):
        read_service_settings(described, "https://a")
