"""gateway.config: the settings table and how it is read from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.environment import read_settings
from gateway.config.fields import SettingsError
from gateway.config.rates import parse_rates
from gateway.config.settings import SETTINGS, Settings

HOME = {"HOME": "/home/somebody"}


RATE_SETTINGS = (
    "anonymous_requests",
    "anonymous_megapixels",
    "client_requests",
    "client_megapixels",
    "wake_rate",
    "poll_rate",
    "ban_after",
)


@pytest.mark.parametrize("name", RATE_SETTINGS)
def test_variable_can_remove_a_rate_limit(name: str) -> None:
    settings = read_settings({**HOME, f"SUPERRES_{name.upper()}": "none"}).settings

    assert parse_rates(getattr(Settings(state_dir="/state"), name))
    assert parse_rates(getattr(settings, name)) == []


def test_empty_environment_gives_defaults() -> None:
    read = read_settings(HOME)

    assert read.settings == Settings(state_dir="/home/somebody/.local/state/superres")
    assert set(read.sources.values()) == {"default"}


def test_state_dir_follows_an_absolute_xdg_state_home() -> None:
    assert read_settings({**HOME, "XDG_STATE_HOME": "/var/state"}).settings.state_dir == "/var/state/superres"
    assert read_settings({**HOME, "XDG_STATE_HOME": "state"}).settings.state_dir.startswith("/home/somebody")


def test_variable_sets_its_setting_and_is_its_source() -> None:
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
def test_port_comes_from_option_then_variable_then_port(
    environ: dict[str, str], option: int | None, port: int, source: str
) -> None:
    read = read_settings({**HOME, **environ}, {"port": option})

    assert (read.settings.port, read.sources["port"]) == (port, source)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"SUPERRES_MAX_PIXEL": "9"}, "Unknown setting SUPERRES_MAX_PIXEL. Did you mean SUPERRES_MAX_PIXELS?"),
        ({"SUPERRES_QQ": "9"}, "Unknown setting SUPERRES_QQ. `superres settings` lists all settings."),
        ({"SUPERRES_HOST_FILE": "x"}, "Only secrets can be read from a file: set SUPERRES_HOST instead."),
        ({"SUPERRES_THREADS": "many"}, "Invalid threads 'many': must be a whole number."),
        ({"SUPERRES_THREADS": "1e3"}, "Invalid threads '1e3': must be a whole number."),
        ({"SUPERRES_THREADS": "-8"}, "Invalid threads -8: must be between 2 and 1,024."),
        ({"SUPERRES_THREADS": "\u0668"}, "must be a whole number."),
        ({"SUPERRES_DEADLINE_S": "soon"}, "Invalid deadline_s 'soon': must be a number of seconds, without a unit."),
        ({"SUPERRES_DEADLINE_S": "300s"}, "Invalid deadline_s '300s': must be a number of seconds, without a unit."),
        ({"SUPERRES_DEADLINE_S": "inf"}, "Invalid deadline_s inf: must be between 1 and 3,600."),
        ({"SUPERRES_DEADLINE_S": "-1"}, "Invalid deadline_s -1.0: must be between 1 and 3,600."),
        ({"SUPERRES_MAX_UPLOAD_BYTES": "20MB"}, "'20MB': must be a whole number of bytes, without a unit."),
        ({"SUPERRES_MAX_PIXELS": "4,000,000"}, "'4,000,000': must be a whole number of pixels, without a unit."),
        (
            {"PORT": "tcp://10.0.0.1:80"},
            "must be a whole number. It comes from the variable PORT.",
        ),
        (
            {"SUPERRES_VARIANTS": "compact_x4\udcff"},
            "'compact_x4\\udcff': must be one line of UTF-8 text.",
        ),
        (
            {"SUPERRES_STATE_DIR": "~/superres"},
            "Invalid state_dir '~/superres': only a shell replaces ~.",
        ),
        ({"SUPERRES_STATE_DIR": __file__}, f"Invalid state_dir {__file__!r}: it is a file; it must be a folder."),
        ({"SUPERRES_WEIGHTS_DIR": __file__}, f"Invalid weights_dir {__file__!r}: it is a file; it must be a folder."),
        ({"SUPERRES_MODEL_REPOSITORY": __file__}, "it is a file; it must be a folder."),
        ({"SUPERRES_KEYS_FILE": "/"}, "Invalid keys_file '/': it is a folder; it must be a file."),
        ({"SUPERRES_BLOCKS_FILE": "/"}, "Invalid blocks_file '/': it is a folder; it must be a file."),
        ({"SUPERRES_LOG_FILE": "/"}, "Invalid log_file '/': it is a folder; it must be a file."),
        ({"SUPERRES_DEADLINE_S": "nan"}, "Invalid deadline_s nan: must be between 1 and 3,600."),
        ({"PORT": "70000"}, "Invalid port 70000: must be between 0 and 65,535."),
        ({"SUPERRES_LOG_LEVEL": "loud"}, "Invalid log_level 'loud': must be one of: debug, info, warning, error."),
        ({"SUPERRES_FRAME_ANCESTORS": "'self'; script-src *"}, "must be one line of origins, separated by spaces."),
        (
            {"SUPERRES_FRAME_ANCESTORS": "'self', https://x.example"},
            "must be one line of origins, separated by spaces.",
        ),
        (
            {"SUPERRES_PUBLIC_URL": "me.example"},
            "must look like https://superres.example or https://example.org/superres.",
        ),
        ({"SUPERRES_PUBLIC_URL": "https://a@me.example"}, "must look like https://superres.example or https://"),
        ({"SUPERRES_PUBLIC_URL": "ftp://me.example/a"}, "must look like https://superres.example or https://"),
        ({"SUPERRES_PUBLIC_URL": "https://me.example/a b"}, "its path may have letters, digits and . _ ~ - in up to 8"),
        (
            {"SUPERRES_PUBLIC_URL": "https://me.example/../a"},
            "its path may have letters, digits and . _ ~ - in up to 8",
        ),
        (
            {"SUPERRES_PUBLIC_URL": "https://me.example/api"},
            "and must not begin with .well-known, api, docs, favicon.ico",
        ),
        (
            {"SUPERRES_API_ORIGINS": "https://a.example/"},
            "must be *, or origins such as https://app.example, separated",
        ),
        ({"SUPERRES_API_ORIGINS": "a.example"}, "must be *, or origins such as https://app.example, separated by"),
        ({"SUPERRES_KEEPALIVE_S": "0"}, "Invalid keepalive_s 0: must be between 1 and 3,600."),
        ({"SUPERRES_MODEL_KEY": "a,b,c"}, "Invalid model_key: must be one key, or two keys separated by a comma"),
        ({"SUPERRES_MODEL_KEY": ","}, "Invalid model_key: must be one key, or two keys separated by a comma"),
        ({"SUPERRES_MODEL_KEY": "a,"}, "Invalid model_key: must be one key, or two keys separated by a comma"),
        (
            {"SUPERRES_CLIENT_REQUESTS": "10 per 99999999999 years"},
            "Invalid client_requests '10 per 99999999999 years': the maximum period is 366 days.",
        ),
        ({"SUPERRES_CLIENT_REQUESTS": "many"}, "Invalid client_requests 'many': write it as \"60 per minute\""),
        ({"SUPERRES_REDIS_URL": "hunter2"}, "Invalid redis_url: must begin with redis://, rediss://, unix://, redis+s"),
        (
            {"SUPERRES_VARIANTS": "compact_x4,compact_x5"},
            "Invalid variants 'compact_x4,compact_x5': unknown: compact_x5. Available: compact_x4, ",
        ),
        (
            {"SUPERRES_VARIANTS": "real_x4", "SUPERRES_DEFAULT_VARIANT": "compact_x4"},
            "Invalid default_variant 'compact_x4': the setting variants offers real_x4.",
        ),
        (
            {"SUPERRES_THREADS": "4"},
            "must be at least 42, the sum of max_concurrent_jobs x small_jobs_per_slot (16), queue_size (24) and 2",
        ),
    ],
)
def test_invalid_setting_raises_with_an_explanation(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({**HOME, **environ})

    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "rest",
    ["localhost:abc", "localhost:99999", "localhost/0?foo=1", "localhost/0?db=x", "[::1", "localhost?protocol=9"],
)
def test_invalid_redis_url_is_rejected_without_showing_it(rest: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(redis_url=f"redis://:hunter2@{rest}")

    assert str(caught.value).startswith("Invalid redis_url: must look like redis://:password@host:6379/0, with")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["redis://:hunter2@host:6379/2", "rediss://host", "unix:///run/redis.sock?db=1"])
def test_valid_redis_url_is_accepted(url: str) -> None:
    assert Settings(redis_url=url).redis_url == url


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("REQUESTS_AT_ONCE", "MAX_CONCURRENT_REQUESTS"),
        ("JOBS_IN_FLIGHT", "MAX_CONCURRENT_JOBS"),
        ("QUEUE_PLACES", "QUEUE_SIZE"),
        ("QUEUE_PLACES_EACH", "QUEUE_SIZE_PER_CLIENT"),
        ("WORK_IN_MEMORY_BYTES", "MAX_JOB_MEMORY_BYTES"),
        ("UPLOADS_IN_MEMORY_BYTES", "MAX_UPLOAD_MEMORY_BYTES"),
        ("IDLE_SLEEP_S", "SCALE_TO_ZERO_AFTER_S"),
        ("WAKE_REQUESTS", "WAKE_RATE"),
        ("MONTH_BUDGET_GPU_S", "MONTHLY_GPU_BUDGET_S"),
    ],
)
def test_renamed_setting_is_reported_with_its_new_name(old: str, new: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({**HOME, f"SUPERRES_{old}": "1"})

    assert str(caught.value) == f"SUPERRES_{old} was renamed to SUPERRES_{new}."
    assert new.lower() in {row.name for row in SETTINGS}


def test_all_errors_are_reported_together() -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({**HOME, "SUPERRES_THREDS": "8", "SUPERRES_MAX_SIDE": "long", "SUPERRES_PORT": "-1"})

    lines = str(caught.value).splitlines()
    assert [next(name for name in ("THREDS", "max_side", "port") if name in line) for line in lines] == [
        "THREDS",
        "max_side",
        "port",
    ]


def test_secret_can_come_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2-hunter2\n")

    read = read_settings({**HOME, "SUPERRES_MODEL_KEY_FILE": str(tmp_path / "secret"), "SUPERRES_API_KEY": "s3cr3t"})

    assert (read.settings.model_key, read.settings.api_key) == ("hunter2-hunter2", "s3cr3t")
    assert read.sources["model_key"] == "SUPERRES_MODEL_KEY_FILE"
    shown = repr(read) + "".join(row.show(getattr(read.settings, row.name)) for row in SETTINGS)
    assert "hunter2" not in shown
    assert "s3cr3t" not in shown


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"x" * 5_000, None])
def test_invalid_secret_file_is_rejected_without_showing_it(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(SettingsError) as caught:
        read_settings({**HOME, "SUPERRES_API_KEY_FILE": str(path)})

    assert f"SUPERRES_API_KEY_FILE: the file {str(path)!r} " in str(caught.value)
    assert "two" not in str(caught.value)


@pytest.mark.parametrize("name", ["model_key", "api_key", "form_secret", "redis_url"])
@pytest.mark.parametrize("in_file", [False, True])
def test_secret_with_other_letters_is_rejected_without_showing_it(tmp_path: Path, name: str, in_file: bool) -> None:
    secret = "redis://:gehüim@localhost:6379/0" if name == "redis_url" else "gehüim-gehüim-gehüim"
    (tmp_path / "secret").write_text(secret)
    variable = f"SUPERRES_{name.upper()}"
    environ = {f"{variable}_FILE": str(tmp_path / "secret")} if in_file else {variable: secret}

    with pytest.raises(SettingsError) as caught:
        read_settings({**HOME, **environ})

    assert str(caught.value).startswith(f"Invalid {name}: must consist of ASCII ")
    assert "geh" not in str(caught.value)


@pytest.mark.parametrize("secret", ["two words", "a\tb", "a\nb", "\udcff"])
def test_key_that_no_header_can_carry_is_rejected_without_showing_it(secret: str) -> None:
    with pytest.raises(SettingsError, match="Invalid model_key: must ") as caught:
        read_settings({**HOME, "SUPERRES_MODEL_KEY": secret})
    assert secret not in str(caught.value)


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton runs in another working folder."""
    monkeypatch.chdir(tmp_path)

    settings = read_settings({"SUPERRES_STATE_DIR": "state/../here", "SUPERRES_LOG_FILE": "-"}).settings

    assert settings.state_dir == str(tmp_path / "here")
    assert settings.log_path() is None


def test_user_without_a_home_gets_an_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user has no entry in /etc/passwd."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 1_000_680_000)

    for environ in ({}, {"HOME": ""}, {"HOME": "relative"}):
        with pytest.raises(SettingsError) as caught:
            read_settings(environ)
        assert str(caught.value) == (
            "No default for state_dir: the user 1000680000 has no home folder. Set SUPERRES_STATE_DIR to a folder that "
            "this user can write."
        )
    assert read_settings({"SUPERRES_STATE_DIR": "/state"}).settings.state_dir == "/state"
    assert read_settings({"XDG_STATE_HOME": "/state"}).settings.state_dir == "/state/superres"


def test_model_key_has_two_values_during_a_rotation() -> None:
    assert Settings(model_key="new-one, old-one").model_keys() == ["new-one", "old-one"]
    assert Settings(model_key="only-one").model_keys() == ["only-one"]
    assert Settings().model_keys() == []


def test_secret_from_variable_and_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="are both set"):
        read_settings({**HOME, "SUPERRES_API_KEY": "a", "SUPERRES_API_KEY_FILE": str(tmp_path)})


def test_bundled_variants_are_offered_unless_variants_names_others() -> None:
    assert all(variant.is_bundled for variant in Settings().offered().values())
    assert list(Settings(variants="real_x4, compact_x4").offered()) == ["real_x4", "compact_x4"]
