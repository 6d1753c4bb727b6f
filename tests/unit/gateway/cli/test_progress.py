"""What is printed while images are upscaled: a changing line on terminals, and the pace of earlier runs."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from gateway.cli.pace import Pace, describe_duration
from gateway.cli.progress import ProgressReport
from testing.clock import ManualClock


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_terminal_shows_the_bands_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    clock, terminal = ManualClock(), Terminal()
    report = ProgressReport(is_quiet=False, stream=terminal, clock=clock)
    report.begin(4, 4_000)

    report.begin_image("a.png", 1_000)
    clock.now += 30
    report.show_bands(1, 2)

    assert terminal.getvalue().endswith("\r\x1b[K[1/4] a.png: 50 % (band 1 of 2), about 4 min left")


def test_image_that_was_left_out_does_not_count_for_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    clock, terminal = ManualClock(), Terminal()
    report = ProgressReport(is_quiet=False, stream=terminal, clock=clock)
    report.begin(3, 3_000)
    report.begin_image("a.png", 1_000)
    report.end_image(was_upscaled=False)
    report.begin_image("b.png", 1_000)
    clock.now += 10
    report.show_bands(1, 1)

    assert terminal.getvalue().endswith("[2/3] b.png: 100 % (band 1 of 1), about 10 s left")


def test_line_fits_the_terminal_and_holds_no_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    report = ProgressReport(is_quiet=False, stream=terminal, clock=ManualClock())
    report.begin(1, 0)

    report.begin_image("\x1b[2J" + "long " * 20, 0)
    report.close()

    assert terminal.getvalue() == "\r\x1b[K[1/1] ?[2Jlong long\r\x1b[K"


@pytest.mark.parametrize("is_quiet", [True, False])
def test_log_gets_lines_only(*, is_quiet: bool) -> None:
    log = io.StringIO()
    report = ProgressReport(is_quiet=is_quiet, stream=log, clock=ManualClock())
    report.begin(1, 100)
    report.begin_image("a.png", 100)
    report.show_bands(1, 2)
    report.say("made")
    report.error("wrong")
    report.close()

    assert log.getvalue() == ("wrong\n" if is_quiet else "made\nwrong\n")


def test_pace_is_the_median_of_the_last_images(tmp_path: Path) -> None:
    pace = Pace(tmp_path / "state" / "pace.json")
    for seconds in (1_000, *[20] * 5, *[10] * 4):  # the first of ten is forgotten
        pace.note("compact_x4", 1_000_000, seconds)
    pace.note("compact_x2", 100, 5)  # too small to say anything
    pace.save()

    again = Pace(tmp_path / "state" / "pace.json")
    assert again.estimate_s("compact_x4", 500_000) == 10
    assert again.estimate_s("compact_x2", 500_000) is None
    assert Pace(tmp_path / "state" / "pace.json", "https://a").estimate_s("compact_x4", 1) is None


@pytest.mark.parametrize("content", ["", "[]", '{"here a": "x"}', '{"here a": [NaN]}', '{"here a": [-1, 1e99]}'])
def test_damaged_record_counts_as_empty(tmp_path: Path, content: str) -> None:
    (tmp_path / "pace.json").write_text(content)

    assert Pace(tmp_path / "pace.json").estimate_s("a", 1_000_000) is None


def test_durations() -> None:
    assert [describe_duration(each) for each in (0.2, 99.4, 100, 3_600, 7_900)] == [
        "1 s",
        "99 s",
        "2 min",
        "60 min",
        "2 h 12 min",
    ]
