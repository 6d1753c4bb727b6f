"""Who comes when: named traces of arrivals, and a trace file of one's own.

Owns the shapes of traffic (Poisson, sessions, a day's rhythm, bursts) and the reading of files with errors that name
the line. Knows nothing of pods. All chance comes from one seed.
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
_MAX_MEGAPIXELS = 100.0
"""A line above this is taken for a mistake (pixels given for megapixels)."""
_MAX_MOMENT_S = 366 * DAY_S
"""No month is simulated that is longer than a year; a moment beyond it is most likely a Unix time."""
_HEADINGS = {"at_s", "at_s,megapixels", "seconds", "seconds,megapixels"}
_SESSION_IMAGES = (0.45, 0.25, 0.15, 0.10, 0.05)
"""Assumed shares of visitors who upload 1, 2, 3, 4, 5 images; mean 2.05."""
_THINK_S = 25.0
"""Assumed mean time from one upload of a visitor to the next, beyond the least."""
_LEAST_THINK_S = 5.0
SIZE_SIGMA = 0.8
"""Assumed: sizes of images are log-normal with this sigma."""
_NIGHT_SHARE = 0.25
"""Assumed rate at the quietest hour, as a share of the busiest."""
_MEAN_SHARE = (1 + _NIGHT_SHARE) / 2


class InvalidTraceError(ValueError):
    """A trace file or a trace's name cannot be used; the message names the line or the choices."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Arrivals of images in order, over a number of days."""

    name: str
    days: float
    arrive_s: Array
    """Seconds from the beginning, ascending."""
    megapixels: Array
    """Size of each image."""
    visitors: int
    """Sessions behind the images; the number of images where nobody told."""

    @property
    def images(self) -> int:
        """How many images come."""
        return len(self.arrive_s)


@dataclass(frozen=True, slots=True)
class Trace:
    """A named shape of traffic."""

    name: str
    summary: str
    draw: Callable[[np.random.Generator, float], Array]
    """(chance, days) -> the moments at which visitors come, seconds."""
    has_sessions: bool = True
    """Whether a visitor uploads 1 to 5 images, or one arrival is one image."""


def day_share(at_s: Array) -> Array:
    """The rate at moments since midnight as a share of noon's: a cosine from `_NIGHT_SHARE` to 1."""
    return _MEAN_SHARE - (1 - _NIGHT_SHARE) / 2 * np.cos(2 * np.pi * at_s / DAY_S)


def _daily_poisson(chance: np.random.Generator, days: float, per_day: float) -> Array:
    """Poisson arrivals with a day's rhythm, by thinning."""
    peak = per_day / _MEAN_SHARE
    moments = np.sort(chance.uniform(0, days * DAY_S, chance.poisson(peak * days)))
    return moments[chance.uniform(size=len(moments)) < day_share(moments)]


def _decaying(chance: np.random.Generator, start_s: float, visitors: int, half_life_s: float) -> Array:
    """A crowd that comes at once and thins out: the time since the start is exponential."""
    return start_s + chance.exponential(half_life_s / np.log(2), visitors)


def _within(days: float, *parts: Array) -> Array:
    moments = np.sort(np.concatenate(parts))
    return moments[moments < days * DAY_S]


def draw_quiet(chance: np.random.Generator, days: float) -> Array:
    """A showcase that hardly anybody knows: four visitors a day."""
    return _daily_poisson(chance, days, 4)


def draw_spikes(chance: np.random.Generator, days: float) -> Array:
    """The quiet showcase, and twice a week somebody posts the link: 60 visitors, half of them within 15 minutes."""
    posts = chance.uniform(0, days * DAY_S, chance.poisson(days * 2 / 7))
    crowds = [_decaying(chance, float(post), 60, 900) for post in posts]
    return _within(days, draw_quiet(chance, days), *crowds)


def draw_front_page(chance: np.random.Generator, days: float) -> Array:
    """The quiet showcase with one day on a front page: 1,500 visitors who upload, half of them within three hours."""
    noon_s = (days // 2) * DAY_S + DAY_S / 2
    return _within(days, draw_quiet(chance, days), _decaying(chance, noon_s, 1500, 3 * 3600))


def draw_poisson(chance: np.random.Generator, days: float) -> Array:
    """One image every five minutes on average, day and night, independent of each other."""
    return np.sort(chance.uniform(0, days * DAY_S, chance.poisson(days * 288)))


def draw_bursty(chance: np.random.Generator, days: float) -> Array:
    """As many as `poisson`, in bursts: a two-state Markov-modulated Poisson process.

    Calm for 110 minutes on average at one image an hour, busy for 10 minutes at 133 images an hour.
    """
    calm_s, busy_s = 6600.0, 600.0
    calm_rate = 1 / 3600
    busy_rate = (288 / DAY_S * (calm_s + busy_s) - calm_rate * calm_s) / busy_s
    parts, moment = [], 0.0
    while moment < days * DAY_S:
        for mean_s, rate in ((calm_s, calm_rate), (busy_s, busy_rate)):
            length = chance.exponential(mean_s)
            parts.append(moment + chance.uniform(0, length, chance.poisson(rate * length)))
            moment += length
    return _within(days, *parts)


def draw_nobody(chance: np.random.Generator, days: float) -> Array:
    """Nobody comes."""
    del chance, days
    return np.empty(0)


TRACES: Mapping[str, Trace] = {
    trace.name: trace
    for trace in (
        Trace("quiet", "a showcase with 4 visitors a day, 1-5 images each", draw_quiet),
        Trace("spikes", "quiet, and twice a week a crowd of 60 visitors within minutes", draw_spikes),
        Trace("front-page", "quiet, and one day with 1,500 visitors", draw_front_page),
        Trace("poisson", "288 images a day, independent of each other", draw_poisson, has_sessions=False),
        Trace("bursty", "288 images a day in bursts of ten minutes (MMPP)", draw_bursty, has_sessions=False),
        Trace("nobody", "nobody comes", draw_nobody, has_sessions=False),
    )
}


def draw_traffic(name: str, *, days: float, seed: int) -> Traffic:
    """The traffic of a named trace; raises BadTrace with the choices."""
    if name not in TRACES:
        raise InvalidTraceError(f'There is no trace and no file "{name}". Traces: {", ".join(TRACES)}.')
    trace = TRACES[name]
    chance = np.random.default_rng([seed, list(TRACES).index(name)])
    visits = trace.draw(chance, days)
    return draw_images(chance, name, visits, days=days, has_sessions=trace.has_sessions)


def draw_visitors(per_day: float, *, days: float, seed: int) -> Traffic:
    """The quiet showcase's kind of traffic with another number of visitors a day."""
    chance = np.random.default_rng([seed, 1000])
    return draw_images(chance, f"{per_day:g} visitors a day", _daily_poisson(chance, days, per_day), days=days)


def draw_images(
    chance: np.random.Generator, name: str, visits: Array, *, days: float, has_sessions: bool = True
) -> Traffic:
    """Images of visitors: how many each uploads, when, how large (log-normal, median 0.5 megapixels)."""
    counts = chance.choice(len(_SESSION_IMAGES), size=len(visits), p=_SESSION_IMAGES) + 1
    if not has_sessions:
        counts = np.ones(len(visits), dtype=np.int64)
    gaps = _LEAST_THINK_S + chance.exponential(_THINK_S, int(counts.sum()))
    firsts = np.cumsum(counts) - counts
    gaps[firsts] = 0.0
    passed = np.cumsum(gaps)
    moments = np.repeat(visits, counts) + passed - np.repeat(passed[firsts], counts)
    order = np.argsort(moments, kind="stable")
    megapixels = np.clip(0.5 * np.exp(SIZE_SIGMA * chance.standard_normal(len(moments))), 0.02, 8.0)
    return Traffic(name, days, moments[order], megapixels[order], len(visits))


def read_traffic(path: Path, *, days: float | None = None) -> Traffic:
    """A trace file: CSV "seconds[,megapixels]" or JSON lines (a number, or {"at_s": ..., "megapixels": ...}).

    Blank lines, lines that begin with # and a heading (`seconds,megapixels` or `at_s,megapixels`) are skipped. Raises
    BadTrace with the line's number.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark before the first line
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidTraceError(f"The trace file {path} cannot be read: {error}.") from error
    rows = list(_read_rows(path, text))
    if not rows:
        raise InvalidTraceError(f"The trace file {path} holds no arrival; write one a line, in seconds.")
    rows.sort(key=lambda row: row[0])
    moments = np.array([row[0] for row in rows])
    span = days if days is not None else max(1.0, float(np.ceil(moments[-1] / DAY_S)))
    kept = moments < span * DAY_S
    return Traffic(path.name, span, moments[kept], np.array([row[1] for row in rows])[kept], int(kept.sum()))


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
            raise InvalidTraceError(f'{path}, line {number}: {error} The line reads "{shown}".') from None


def _split_row(line: str) -> tuple[object, object]:
    """Moment and megapixels as written; raises ValueError in words."""
    if line[0] == "{":
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"this is no JSON object ({error.msg} at column {error.colno}).") from None
        except RecursionError:
            raise ValueError("this JSON object is nested too deeply.") from None
        unknown = set(record) - {"at_s", "megapixels"}
        if unknown or "at_s" not in record:
            raise ValueError('the object must hold "at_s" and may hold "megapixels", nothing else.')
        return record["at_s"], record.get("megapixels", 1.0)
    try:
        cells = next(csv.reader([line]))
    except csv.Error as error:
        raise ValueError(f"this is no CSV ({error}).") from None
    if len(cells) > 2:
        raise ValueError(f"there are {len(cells)} columns; write seconds, or seconds,megapixels.")
    return cells[0], cells[1] if len(cells) == 2 else 1.0


def _check_row(at: object, size: object) -> tuple[float, float]:
    values = []
    for name, value in (("the moment", at), ("the size", size)):
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"{name} is no number.")  # noqa: TRY004 - one kind of error for a bad line
        try:
            values.append(float(value))
        except ValueError:
            raise ValueError(f'{name} "{value}" is no number.') from None
        except OverflowError:
            raise ValueError(f"{name} is too large a number.") from None
    at_s, megapixels = values
    if not np.isfinite(at_s) or at_s < 0:
        raise ValueError("the moment must be a number of seconds from 0 on.")
    if at_s > _MAX_MOMENT_S:
        raise ValueError("the moment is more than 366 days after the beginning; is this a Unix time?")
    if not 0 < megapixels <= _MAX_MEGAPIXELS:
        raise ValueError(f"the size must be above 0 and at most {_MAX_MEGAPIXELS:g} megapixels.")
    return at_s, megapixels
