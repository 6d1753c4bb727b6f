"""The commands keys, block, settings and serve. `upscale` has its own file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.access.api_keys import ApiKeyStore
from gateway.cli.main import cli
from gateway.config.settings import SETTINGS
from gateway.jobs.options import PARAMETERS


def run(state_dir: Path, *arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(cli, arguments, env={"SUPERRES_STATE_DIR": str(state_dir), **variables})


def test_keys_new_prints_only_the_key(tmp_path: Path) -> None:
    result = run(tmp_path, "keys", "new", "a phone")

    assert result.exit_code == 0
    assert result.stderr == ""
    client = ApiKeyStore(tmp_path / "keys.json").identify(result.stdout.removesuffix("\n"))
    assert client is not None
    assert client.name == "a phone"


def test_keys_list_shows_neither_keys_nor_hashes(tmp_path: Path) -> None:
    key = run(tmp_path, "keys", "new", "a phone").stdout.strip()
    [client] = ApiKeyStore(tmp_path / "keys.json").entries()

    listed = run(tmp_path, "keys", "list").stdout

    assert listed == f"{client.id}  {client.created}  a phone\n"
    assert key not in listed
    assert client.sha256 not in listed


def test_keys_revoke_takes_a_name_or_an_id(tmp_path: Path) -> None:
    run(tmp_path, "keys", "new", "a")
    run(tmp_path, "keys", "new", "b")
    [_, second] = ApiKeyStore(tmp_path / "keys.json").entries()

    assert run(tmp_path, "keys", "revoke", "a").exit_code == 0
    assert run(tmp_path, "keys", "revoke", second.id).stdout == f"revoked {second.id}  b\n"
    assert ApiKeyStore(tmp_path / "keys.json").entries() == ()


@pytest.mark.parametrize("arguments", [("keys", "revoke", "nobody"), ("keys", "new", ""), ("keys", "new", "x" * 99)])
def test_keys_command_with_invalid_input_exits_with_a_message(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = run(tmp_path, *arguments)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("superres: ")


def test_keys_file_can_be_set(tmp_path: Path) -> None:
    run(tmp_path, "keys", "new", "a", SUPERRES_KEYS_FILE=str(tmp_path / "elsewhere.json"))

    assert len(ApiKeyStore(tmp_path / "elsewhere.json").entries()) == 1


def test_settings_shows_values_and_sources_but_no_secrets(tmp_path: Path) -> None:
    result = run(tmp_path, "settings", SUPERRES_MODEL_KEY="hunter2", SUPERRES_MAX_SIDE="77")

    lines = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert list(lines) == [row.name for row in SETTINGS]
    assert lines["max_side"].split()[1:3] == ["77", "SUPERRES_MAX_SIDE"]
    assert "(set)" in lines["model_key"]
    assert "hunter2" not in result.output
    assert all(lines[row.name].endswith(row.help) for row in SETTINGS)


@pytest.mark.parametrize("command", [("settings",), ("serve",), ("keys", "list")])
def test_unknown_setting_stops_every_command(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = run(tmp_path, *command, SUPERRES_MAX_PIXEL="7")

    assert result.exit_code == 1
    assert result.stderr == "superres: Unknown setting SUPERRES_MAX_PIXEL. Did you mean SUPERRES_MAX_PIXELS?\n"


COMMANDS = ["settings", "serve", "keys list", "block list", "usage", "weights list", "upscale a b"]


@pytest.mark.parametrize("command", COMMANDS)
def test_user_without_a_home_folder_gets_words_from_every_command(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 1_000_680_000)  # has no entry in /etc/passwd
    nothing = dict.fromkeys(("HOME", "XDG_STATE_HOME", "SUPERRES_STATE_DIR"))

    result = CliRunner().invoke(cli, command.split(), env=nothing)

    assert result.exit_code == 1
    assert result.stderr.startswith("superres: No default for state_dir: the user 1000680000 has no home folder.")


def test_serve_rejects_an_invalid_port(tmp_path: Path) -> None:
    result = run(tmp_path, "serve", "--port", "70000")

    assert result.exit_code == 1
    assert "Invalid port 70000: must be between 0 and 65,535." in result.stderr


def test_keys_rotate_prints_the_new_key_and_the_old_one_expires_later(tmp_path: Path) -> None:
    old = run(tmp_path, "keys", "new", "a phone", "--requests", "5 per minute").stdout.strip()

    new = run(tmp_path, "keys", "rotate", "a phone", "--keep-hours", "1").stdout.strip()

    keys = ApiKeyStore(tmp_path / "keys.json")
    assert keys.identify(old) is not None
    assert keys.identify(new) is not None
    lines = run(tmp_path, "keys", "list").stdout.splitlines()
    assert "[requests 5 per minute]  [expires 2" in lines[0]
    assert lines[1].endswith("a phone  [requests 5 per minute]")
    run(tmp_path, "keys", "rotate", "a phone", "--keep-hours", "0")
    assert keys.identify(new) is None


def test_keys_limit_sets_and_resets_rates(tmp_path: Path) -> None:
    run(tmp_path, "keys", "new", "a")

    assert "[megapixels 9 per day]" in run(tmp_path, "keys", "limit", "a", "--megapixels", "9 per day").stdout
    assert "[" not in run(tmp_path, "keys", "limit", "a", "--megapixels", "").stdout


def test_block_add_list_and_remove(tmp_path: Path) -> None:
    assert run(tmp_path, "block", "add", "203.0.113.0/24", "--why", "scraping").stdout == "blocked 203.0.113.0/24\n"
    run(tmp_path, "block", "add", "2001:db8::7")

    lines = run(tmp_path, "block", "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["203.0.113.0/24", "2001:db8::7/128"]
    assert lines[0].endswith(": scraping")
    assert run(tmp_path, "block", "remove", "203.0.113.0/24").stdout == "unblocked 203.0.113.0/24\n"
    assert len(run(tmp_path, "block", "list").stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("group", "path", "advice"),
    [("keys", "keys.json", "superres keys new NAME"), ("block", "blocks.txt", "add NETWORK")],
)
def test_list_of_nothing_says_so_on_standard_error(tmp_path: Path, group: str, path: str, advice: str) -> None:
    result = run(tmp_path, group, "list")

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith(str(tmp_path / path))
    assert result.stderr.endswith(f"{advice}\n")


def test_keys_rotate_rejects_nan_hours(tmp_path: Path) -> None:
    run(tmp_path, "keys", "new", "a phone")

    result = run(tmp_path, "keys", "rotate", "a phone", "--keep-hours", "nan")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "Invalid value for '--keep-hours': nan is not a number of hours." in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("block", "add", "everybody"), "Invalid network 'everybody'"),
        (("block", "add", "203.0.113.1/24"), "did you mean 203.0.113.0/24?"),
        (("block", "remove", "203.0.113.0/24"), "does not have a line of its own"),
        (("keys", "new", "a", "--requests", "many"), "Invalid rate 'many'"),
        (("keys", "new", "a", "--requests", "10 per 99999999999 years"), "the maximum period is 366 days"),
        (("keys", "rotate", "nobody"), "Unknown key 'nobody'"),
        (("keys", "limit", "nobody", "--requests", "1 per day"), "Unknown key 'nobody'"),
    ],
)
def test_access_command_with_invalid_input_exits_with_a_message(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    result = run(tmp_path, *arguments)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("superres: ")
    assert words in result.stderr


def test_each_parameter_of_the_api_is_an_option_of_upscale() -> None:
    names = {parameter.name for parameter in cli.commands["upscale"].params}

    assert set(PARAMETERS) - names == set()
