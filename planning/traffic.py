"""Traffic for the simulation: named traces and trace files.

Generates arrivals (Poisson, sessions, a daily rhythm, bursts) from one seed. Reads trace files; errors name the line.
"""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

DAY_S = 86_400.0
# A larger image in a trace file is probably a mistake: pixels instead of megapixels.
_MAX_MEGAPIXELS = 100.0
# At most a year is simulated. A later moment in a trace file is probably a Unix time.
_MAX_MOMENT_S = 366 * DAY_S
_HEADINGS = {"at_s", "at_s,megapixels", "seconds", "seconds,megapixels"}
# Assumed shares of visitors who upload 1, 2, 3, 4 and 5 images; the mean is 2.05.
_SESSION_IMAGES = (0.45, 0.25, 0.15, 0.10, 0.05)
# Assumed time between two uploads of a visitor: the minimum plus an exponential time with this mean.
_MEAN_EXTRA_THINK_S = 25.0
_MIN_THINK_S = 5.0
SIZE_SIGMA = 0.8
"""Sigma of the log-normal image sizes (assumed)."""
# Assumed rate at the quietest hour as a share of the busiest hour's.
_NIGHT_SHARE = 0.25
_MEAN_SHARE = (1 + _NIGHT_SHARE) / 2


class InvalidTraceError(ValueError):
    """A trace file or trace name is invalid; the message names the line or the valid names."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Arrivals of images over a number of days, in order."""

    name: str
    days: float
    arrive_s: Array
    """Seconds since the beginning, ascending."""
    megapixels: Array
    """Size of each image."""
    visitors: int
    """Number of sessions that the images belong to. Without sessions, the number of images."""

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.arrive_s)


@dataclass(frozen=True, slots=True)
class Trace:
    """A named shape of traffic."""

    name: str
    summary: str
    draw: Callable[[np.random.Generator, float], Array]
    """(random numbers, days) -> the seconds at which visitors arrive."""
    has_sessions: bool = True
    """Whether a visitor uploads 1 to 5 images. Otherwise each arrival is one image."""


def day_share(at_s: Array) -> Array:
    """Return the rate at seconds since midnight as a share of the rate at noon: a cosine from `_NIGHT_SHARE` to 1."""
    return _MEAN_SHARE - (1 - _NIGHT_SHARE) / 2 * np.cos(2 * np.pi * at_s / DAY_S)


def _daily_poisson(rng: np.random.Generator, days: float, per_day: float) -> Array:
    """Draw Poisson arrivals with a daily rhythm, by thinning."""
    peak = per_day / _MEAN_SHARE
    moments = np.sort(rng.uniform(0, days * DAY_S, rng.poisson(peak * days)))
    return moments[rng.uniform(size=len(moments)) < day_share(moments)]


def _decaying(rng: np.random.Generator, start_s: float, visitors: int, half_life_s: float) -> Array:
    """Draw visitors who arrive after an event; the time since the event is exponential."""
    return start_s + rng.exponential(half_life_s / np.log(2), visitors)


def _within(days: float, *parts: Array) -> Array:
    moments = np.sort(np.concatenate(parts))
    return moments[moments < days * DAY_S]


def draw_quiet(rng: np.random.Generator, days: float) -> Array:
    """Draw the visitors of a little-known showcase: four per day."""
    return _daily_poisson(rng, days, 4)


def draw_spikes(rng: np.random.Generator, days: float) -> Array:
    """Draw `quiet` plus a posted link twice a week: 60 visitors each, half of them within 15 minutes."""
    posts = rng.uniform(0, days * DAY_S, rng.poisson(days * 2 / 7))
    bursts = [_decaying(rng, float(post), 60, 900) for post in posts]
    return _within(days, draw_quiet(rng, days), *bursts)


def draw_front_page(rng: np.random.Generator, days: float) -> Array:
    """Draw `quiet` plus one day on a front page: 1,500 visitors, half of them within three hours."""
    noon_s = (days // 2) * DAY_S + DAY_S / 2
    return _within(days, draw_quiet(rng, days), _decaying(rng, noon_s, 1500, 3 * 3600))


def draw_poisson(rng: np.random.Generator, days: float) -> Array:
    """Draw independent images, on average one every five minutes, day and night."""
    return np.sort(rng.uniform(0, days * DAY_S, rng.poisson(days * 288)))


def draw_bursty(rng: np.random.Generator, days: float) -> Array:
    """Draw as many images as `poisson` in bursts: a two-state Markov-modulated Poisson process.

    Calm periods last 110 minutes on average with one image per hour, busy ones 10 minutes with 133 images per hour.
    """
    calm_s, busy_s = 6600.0, 600.0
    calm_rate = 1 / 3600
    busy_rate = (288 / DAY_S * (calm_s + busy_s) - calm_rate * calm_s) / busy_s
    parts, moment = [], 0.0
    while moment < days * DAY_S:
        for mean_s, rate in ((calm_s, calm_rate), (busy_s, busy_rate)):
            length = rng.exponential(mean_s)
            parts.append(moment + rng.uniform(0, length, rng.poisson(rate * length)))
            moment += length
    return _within(days, *parts)


def draw_nobody(rng: np.random.Generator, days: float) -> Array:
    """Draw no arrivals."""
    del rng, days
    return np.empty(0)


TRACES: Mapping[str, Trace] = {
    trace.name: trace
    for trace in (
        Trace("quiet", "4 visitors per day with 1 to 5 images each", draw_quiet),
        Trace("spikes", "quiet, plus 60 visitors within minutes twice a week", draw_spikes),
        Trace("front-page", "quiet, plus one day with 1,500 visitors", draw_front_page),
        Trace("poisson", "288 independent images per day", draw_poisson, has_sessions=False),
        Trace("bursty", "288 images per day in bursts of ten minutes", draw_bursty, has_sessions=False),
        Trace("nobody", "no images", draw_nobody, has_sessions=False),
    )
}


def draw_traffic(name: str, *, days: float, seed: int) -> Traffic:
    """Return the traffic of a named trace; raises InvalidTraceError with the valid names."""
    if name not in TRACES:
        raise InvalidTraceError(f'Unknown trace "{name}", and no such file. Named traces: {", ".join(TRACES)}.')
    trace = TRACES[name]
    rng = np.random.default_rng([seed, list(TRACES).index(name)])
    visits = trace.draw(rng, days)
    return draw_images(rng, name, visits, days=days, has_sessions=trace.has_sessions)


def draw_visitors(per_day: float, *, days: float, seed: int) -> Traffic:
    """Return traffic like `quiet` with another number of visitors per day."""
    rng = np.random.default_rng([seed, 1000])
    return draw_images(rng, f"{per_day:g} visitors a day", _daily_poisson(rng, days, per_day), days=days)


def draw_images(
    rng: np.random.Generator, name: str, visits: Array, *, days: float, has_sessions: bool = True
) -> Traffic:
    """Draw the images of visitors: how many each uploads, when, and how large (log-normal, median 0.5 megapixels)."""
    counts = rng.choice(len(_SESSION_IMAGES), size=len(visits), p=_SESSION_IMAGES) + 1
    if not has_sessions:
        counts = np.ones(len(visits), dtype=np.int64)
    gaps = _MIN_THINK_S + rng.exponential(_MEAN_EXTRA_THINK_S, int(counts.sum()))
    firsts = np.cumsum(counts) - counts
    gaps[firsts] = 0.0
    passed = np.cumsum(gaps)
    moments = np.repeat(visits, counts) + passed - np.repeat(passed[firsts], counts)
    order = np.argsort(moments, kind="stable")
    megapixels = np.clip(0.5 * np.exp(SIZE_SIGMA * rng.standard_normal(len(moments))), 0.02, 8.0)
    return Traffic(name, days, moments[order], megapixels[order], len(visits))


def read_traffic(path: Path, *, days: float | None = None) -> Traffic:
    """Read a trace file: CSV "seconds[,megapixels]" or JSON lines (a number or {"at_s": ..., "megapixels": ...}).

    Skips blank lines, lines that begin with # and the headings `seconds,megapixels` and `at_s,megapixels`. Raises
    InvalidTraceError with the number of the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTraceError(f"The trace file {path} cannot be read: {error}.") from error
    rows = list(_read_rows(path, text))
    if not rows:
        raise InvalidTraceError(f"The trace file {path} has no arrivals. Write one arrival per line, in seconds.")
    rows.sort(key=lambda row: row[0])
    moments = np.array([row[0] for row in rows])
    span = days if days is not None else max(1.0, float(np.ceil(moments[-1] / DAY_S)))
    inside = moments < span * DAY_S
    return Traffic(path.name, span, moments[inside], np.array([row[1] for row in rows])[inside], int(inside.sum()))


def _read_rows(path: Path, text: str) -> Iterator[tuple[float, float]]:
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.lower().replace(" ", "") in _HEADINGS:
            continue
        try:
            yield _check_row(*_split_row(stripped))
        except ValueError as error:
            shown = stripped if len(stripped) <= 60 else stripped[:57] + "..."
            raise InvalidTraceError(f'{path}, line {number}: {error} Line: "{shown}".') from None


def _split_row(line: str) -> tuple[object, object]:
    """Return moment and megapixels as written; raises ValueError with a sentence for the user."""
    if line[0] == "{":
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"invalid JSON ({error.msg} at column {error.colno}).") from None
        except RecursionError:
            raise ValueError("the JSON object is nested too deeply.") from None
        unknown = set(record) - {"at_s", "megapixels"}
        if unknown or "at_s" not in record:
            raise ValueError('the object needs the key "at_s" and may have "megapixels", nothing else.')
        return record["at_s"], record.get("megapixels", 1.0)
    try:
        cells = next(csv.reader([line]))
    except csv.Error as error:
        raise ValueError(f"invalid CSV ({error}).") from None
    if len(cells) > 2:
        raise ValueError(f"{len(cells)} columns; write seconds or seconds,megapixels.")
    return cells[0], cells[1] if len(cells) == 2 else 1.0


def _check_row(at: object, size: object) -> tuple[float, float]:
    values = []
    for name, value in (("the moment", at), ("the size", size)):
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{name} is not a number.")  # noqa: TRY004 - one exception type for an invalid line
        try:
            values.append(float(value))
        except ValueError:
            raise ValueError(f'{name} "{value}" is not a number.') from None
        except OverflowError:
            raise ValueError(f"{name} is too large.") from None
    at_s, megapixels = values
    if not np.isfinite(at_s) or at_s < 0:
        raise ValueError("the moment must be at least 0 seconds.")
    if at_s > _MAX_MOMENT_S:
        raise ValueError(
            "the moment is beyond 366 days. Count seconds from the beginning of the trace, not in Unix time."
        )
    if not 0 < megapixels <= _MAX_MEGAPIXELS:
        raise ValueError(f"the size must be above 0 and at most {_MAX_MEGAPIXELS:g} megapixels.")
    return at_s, megapixels
