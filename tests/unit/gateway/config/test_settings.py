"""The specification of gateway.config.settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.settings import SETTINGS, Settings, SettingsError, read_settings

HOME = {"HOME": "/home/somebody"}


def test_without_an_environment_every_setting_has_its_default() -> None:
    read = read_settings(HOME)

    assert read.settings == Settings(state_dir="/home/somebody/.local/state/superres")
    assert set(read.sources.values()) == {"default"}


def test_the_state_directory_follows_xdg_state_home_unless_that_is_relative() -> None:
    assert read_settings({**HOME, "XDG_STATE_HOME": "/var/state"}).settings.state_dir == "/var/state/superres"
    assert read_settings({**HOME, "XDG_STATE_HOME": "state"}).settings.state_dir.startswith("/home/somebody")


def test_a_variable_sets_its_setting_and_is_named_as_the_source() -> None:
    read = read_settings({**HOME, "SUPERRES_MAX_PIXELS": "1_000_000", "SUPERRES_DEADLINE_S": "7.5"})

    assert (read.settings.max_pixels, read.settings.deadline_s) == (1_000_000, 7.5)
    assert read.sources["max_pixels"] == "SUPERRES_MAX_PIXELS"


@pytest.mark.parametrize(
    ("environ", "option", "port", "source"),
    [
        ({}, None, 8080, "default"),
        ({"PORT": "9001"}, None, 9001, "PORT"),
        ({"PORT": "9001", "SUPERRES_PORT": "9002"}, None, 9002, "SUPERRES_PORT"),
        ({"PORT": "9001", "SUPERRES_PORT": "9002"}, 9003, 9003, "--port"),
        ({"PORT": ""}, None, 8080, "default"),
    ],
)
def test_the_port_comes_from_the_option_then_its_variable_then_port(
    environ: dict[str, str], option: int | None, port: int, source: str
) -> None:
    read = read_settings({**HOME, **environ}, {"port": option})

    assert (read.settings.port, read.sources["port"]) == (port, source)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"SUPERRES_MAX_PIXEL": "9"}, "There is no setting SUPERRES_MAX_PIXEL. Did you mean SUPERRES_MAX_PIXELS?"),
        ({"SUPERRES_QQ": "9"}, "There is no setting SUPERRES_QQ. `superres settings` lists those there are."),
        ({"SUPERRES_HOST_FILE": "x"}, "Only secrets are read from files: set SUPERRES_HOST itself."),
        ({"SUPERRES_THREADS": "many"}, "threads must be a whole number, not 'many'."),
        ({"SUPERRES_DEADLINE_S": "soon"}, "deadline_s must be a number, not 'soon'."),
        ({"SUPERRES_DEADLINE_S": "nan"}, "deadline_s is nan: it must be between 1 and 3,600."),
        ({"PORT": "70000"}, "port is 70000: it must be between 0 and 65,535."),
        ({"SUPERRES_LOG_LEVEL": "loud"}, "log_level is 'loud': it must be one of: debug, info, warning, error."),
        ({"SUPERRES_FRAME_ANCESTORS": "'self'; script-src *"}, "it must be one line of origins, with spaces between"),
        ({"SUPERRES_FRAME_ANCESTORS": "'self', https://x.example"}, "it must be one line of origins, with spaces"),
        ({"SUPERRES_PUBLIC_URL": "me.example"}, "it must be as https://superres.example, without a path."),
        ({"SUPERRES_PUBLIC_URL": "https://me.example/"}, "it must be as https://superres.example, without a path."),
        ({"SUPERRES_PUBLIC_URL": "https://a@me.example"}, "it must be as https://superres.example, without a path."),
        ({"SUPERRES_MODEL_KEY": "a,b,c"}, "model_key is (set): it must be one key, or two with a comma between"),
        ({"SUPERRES_MODEL_KEY": ","}, "model_key is (set): it must be one key, or two with a comma between"),
        ({"SUPERRES_MODEL_KEY": "a,"}, "model_key is (set): it must be one key, or two with a comma between"),
        (
            {"SUPERRES_CLIENT_REQUESTS": "10 per 99999999999 years"},
            "Invalid rate '10 per 99999999999 years': the maximum period is 366 days.",
        ),
        ({"SUPERRES_CLIENT_REQUESTS": "many"}, "Invalid rate 'many': write it as \"60 per minute\""),
        ({"SUPERRES_REDIS_URL": "hunter2"}, "redis_url is (set): it must begin with redis://, rediss://, unix://."),
        ({"SUPERRES_VARIANTS": "compact_x4,compact_x5"}, "it names compact_x5, and there are only: "),
        ({"SUPERRES_VARIANTS": "real_x4"}, "default_variant is 'compact_x4': variants offers real_x4."),
        (
            {"SUPERRES_THREADS": "4"},
            "it must be at least 30, one for each of max_concurrent_jobs (4) and queue_size (24) and 2 for pages and",
        ),
    ],
)
def test_a_wrong_setting_is_refused_in_words(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({**HOME, **environ})

    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "rest",
    ["localhost:abc", "localhost:99999", "localhost/0?foo=1", "localhost/0?db=x", "[::1", "localhost?protocol=9"],
)
def test_a_redis_url_that_its_client_does_not_take_is_refused_without_showing_it(rest: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(redis_url=f"redis://:hunter2@{rest}")

    assert str(caught.value).startswith("redis_url is (set): it must be as redis://:password@host:6379/0, with")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://:hunter2@host:6379/2", "rediss://host", "unix:///run/redis.sock?db=1"])
def test_a_redis_url_that_its_client_takes_is_taken(url: str) -> None:
    assert Settings(redis_url=url).redis_url == url


def test_all_complaints_come_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({**HOME, "SUPERRES_THREDS": "8", "SUPERRES_MAX_SIDE": "long", "SUPERRES_PORT": "-1"})

    lines = str(caught.value).splitlines()
    assert [next(name for name in ("THREDS", "max_side", "port") if name in line) for line in lines] == [
        "THREDS",
        "max_side",
        "port",
    ]


def test_a_secret_may_come_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2-hunter2\n")

    read = read_settings({**HOME, "SUPERRES_MODEL_KEY_FILE": str(tmp_path / "secret"), "SUPERRES_API_KEY": "s3cr3t"})

    assert (read.settings.model_key, read.settings.api_key) == ("hunter2-hunter2", "s3cr3t")
    assert read.sources["model_key"] == "SUPERRES_MODEL_KEY_FILE"
    shown = repr(read) + "".join(row.show(getattr(read.settings, row.name)) for row in SETTINGS)
    assert "hunter2" not in shown
    assert "s3cr3t" not in shown


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"x" * 5_000, None])
def test_a_file_that_holds_no_secret_is_refused_without_showing_it(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        read_settings({**HOME, "SUPERRES_API_KEY_FILE": str(path)})

    assert f"SUPERRES_API_KEY_FILE names {str(path)!r}, which" in str(caught.value)
    assert "two" not in str(caught.value)


def test_during_a_rotation_model_key_has_two_values() -> None:
    assert Settings(model_key="new-one, old-one").model_keys() == ["new-one", "old-one"]
    assert Settings(model_key="only-one").model_keys() == ["only-one"]
    assert Settings().model_keys() == []


def test_a_secret_from_two_places_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="are both set"):
        read_settings({**HOME, "SUPERRES_API_KEY": "a", "SUPERRES_API_KEY_FILE": str(tmp_path)})


def test_variants_offered_are_those_that_ship_unless_named() -> None:
    assert all(variant.is_bundled for variant in Settings().offered().values())
    assert list(Settings(variants="real_x4, compact_x4").offered()) == ["real_x4", "compact_x4"]
