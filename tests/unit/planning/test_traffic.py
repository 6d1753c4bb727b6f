"""Arrivals: named traces, sessions, and trace files with errors that name the line."""

from pathlib import Path

import numpy as np
import pytest

from planning.traffic import DAY_S, TRACES, InvalidTraceError, draw_traffic, draw_visitors, read_traffic


@pytest.mark.parametrize("name", sorted(TRACES))
def test_trace_is_ordered_and_repeatable(name: str) -> None:
    traffic = draw_traffic(name, days=7, seed=4)
    again = draw_traffic(name, days=7, seed=4)

    assert (np.diff(traffic.arrive_s) >= 0).all()
    assert (traffic.arrive_s >= 0).all()
    assert (traffic.megapixels > 0).all()
    assert len(traffic.megapixels) == traffic.images
    assert np.array_equal(traffic.arrive_s, again.arrive_s)
    assert np.array_equal(traffic.megapixels, again.megapixels)


@pytest.mark.parametrize(("name", "visitors"), [("quiet", 4 * 300), ("poisson", 288 * 300), ("nobody", 0)])
def test_trace_has_its_stated_number_of_visitors(name: str, visitors: int) -> None:
    assert draw_traffic(name, days=300, seed=1).visitors == pytest.approx(visitors, rel=0.1)


def test_bursty_trace_has_the_mean_of_poisson_but_in_bursts() -> None:
    poisson, bursty = (draw_traffic(name, days=90, seed=2) for name in ("poisson", "bursty"))

    def dispersion(moments: np.ndarray) -> float:  # type: ignore[type-arg]
        counts, _ = np.histogram(moments, bins=np.arange(0, 90 * DAY_S + 1, 3600))
        return float(counts.var() / counts.mean())

    assert bursty.images == pytest.approx(poisson.images, rel=0.15)
    assert dispersion(poisson.arrive_s) == pytest.approx(1, abs=0.15)
    assert dispersion(bursty.arrive_s) > 5


def test_front_page_brings_half_its_traffic_in_three_hours() -> None:
    traffic = draw_traffic("front-page", days=30, seed=1)
    noon_s = 15.5 * DAY_S
    visitors = traffic.arrive_s[(traffic.arrive_s > noon_s) & (traffic.arrive_s < noon_s + DAY_S)]

    assert (visitors < noon_s + 3 * 3600).mean() == pytest.approx(0.5, abs=0.06)


def test_session_has_one_to_five_images() -> None:
    traffic = draw_visitors(1, days=2000, seed=3)

    gaps = np.diff(traffic.arrive_s)
    assert traffic.images / traffic.visitors == pytest.approx(2.05, rel=0.05)
    assert gaps[gaps < 3600].min() >= 5 or (gaps < 5).mean() < 0.01  # two visits may coincide


def test_night_is_quieter_than_day() -> None:
    traffic = draw_visitors(50, days=100, seed=3)
    hours = traffic.arrive_s % DAY_S / 3600

    assert ((hours < 3) | (hours > 21)).sum() < 0.6 * ((hours > 9) & (hours < 15)).sum()


def test_unknown_trace_is_rejected_with_the_choices() -> None:
    with pytest.raises(InvalidTraceError, match="Named traces: quiet, spikes, front-page, poisson, bursty, nobody"):
        draw_traffic("loud", days=1, seed=1)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    return path


def test_trace_file_is_csv_or_json_lines(tmp_path: Path) -> None:
    text = 'at_s,megapixels\n# a comment\n\n30\n10.5,2\n{"at_s": 90000, "megapixels": 0.25}\n{"at_s": 12}\n'
    traffic = read_traffic(written(tmp_path, text))

    assert traffic.arrive_s.tolist() == [10.5, 12, 30, 90000]
    assert traffic.megapixels.tolist() == [2, 1, 1, 0.25]
    assert traffic.days == 2


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert read_traffic(written(tmp_path, "\ufeff10\n20\n")).arrive_s.tolist() == [10, 20]
    assert read_traffic(written(tmp_path, "\ufeffseconds\n20\n")).arrive_s.tolist() == [20]


def test_days_cut_a_trace_file_off(tmp_path: Path) -> None:
    traffic = read_traffic(written(tmp_path, "10\n90000\n"), days=1)

    assert (traffic.images, traffic.days) == (1, 1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ten", 'the moment "ten" is not a number'),
        ("-1", "must be at least 0 seconds"),
        ("nan", "must be at least 0 seconds"),
        ("inf", "must be at least 0 seconds"),
        ("1764210000", "beyond 366 days. Count seconds from the beginning of the trace, not in Unix time"),
        ('{"at_s": 99999999999}', "not in Unix time"),
        ('{"at_s": 1' + 400 * "0" + "}", "the moment is too large"),
        ('{"at_s":' * 100_000, "nested too deeply"),
        ("5," + "7" * 200_000, "invalid CSV"),
        ("1,2,3", "3 columns"),
        ("1,0", "above 0 and at most 100 megapixels"),
        ("1,8000000", "above 0 and at most 100 megapixels"),
        ("1,", 'the size "" is not a number'),
        ('{"at_s": 1', "invalid JSON"),
        ('{"moment": 1}', 'the object needs the key "at_s"'),
        ('{"at_s": 1, "mp": 2}', "nothing else"),
        ('{"at_s": true}', "the moment is not a number"),
        ('{"at_s": [1]}', "the moment is not a number"),
    ],
)
def test_bad_line_is_named_by_its_number_and_its_fault(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(InvalidTraceError) as caught:
        read_traffic(written(tmp_path, f"5\n6\n{line}\n7\n"))

    assert "mine.csv, line 3: " in str(caught.value)
    assert words in str(caught.value)


def test_invalid_first_line_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidTraceError, match="line 1"):
        read_traffic(written(tmp_path, "when,size\n5,1\n"))


def test_long_bad_line_is_shown_shortened(tmp_path: Path) -> None:
    with pytest.raises(InvalidTraceError) as caught:
        read_traffic(written(tmp_path, "5\n" + "x" * 10_000))

    assert len(str(caught.value)) < 20_000
    assert "..." in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "at_s\n"])
def test_file_without_arrivals_is_rejected(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidTraceError, match="has no arrivals"):
        read_traffic(written(tmp_path, text))


def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "binary"
    path.write_bytes(b"\xff\xfe\x00\x81")

    for wrong in (path, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InvalidTraceError, match="cannot be read"):
            read_traffic(wrong)
