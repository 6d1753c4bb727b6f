"""Plots cost and waiting times with matplotlib.

matplotlib is optional (`pip install 'serverless-superres[plan]'`) and imported only when a plot is drawn.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from planning.advice import IDLE_TAILS, SimulationCache
from planning.prices import Price
from planning.simulation import Service, SimulatedMonth
from planning.traffic import DAY_S

_INK, _BLUE, _ORANGE, _GREEN, _GREY = "#222222", "#2a6fbb", "#d9822b", "#3a8f4d", "#8a8f98"


_PARTS = (("work", _GREEN), ("boot", _ORANGE), ("idle", _BLUE), ("drain", _GREY), ("linger", _INK))
# Idle tails longer than this get no bar: they would flatten all others.
_MAX_BAR_TAIL_S = 315
# Up to this idle tail the curve is steep, so labels are placed to its right instead of below it.
_STEEP_S = 75


class PlotUnavailableError(RuntimeError):
    """A plot cannot be drawn; the message says what to install or to change."""


def load_pyplot() -> Any:
    """Return matplotlib's pyplot on a backend that needs no display; raises PlotUnavailableError."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra, needed for plots alone
    except ImportError as error:
        raise PlotUnavailableError(
            "Plots need matplotlib, which is not installed; run: pip install 'serverless-superres[plan]'."
        ) from error
    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    plt.rcParams.update(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": _GREY,
            "axes.labelcolor": _INK,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "svg.hashsalt": "superres",
        }
    )
    return plt


def save(figure: Any, path: Path) -> None:
    """Write a figure without a date, so that equal data gives an equal file; raises PlotUnavailableError."""
    plt = load_pyplot()
    metadata = {"Software": None} if path.suffix == ".png" else {"Date": None}
    try:
        figure.savefig(path, dpi=110, bbox_inches="tight", metadata=metadata)
    except (OSError, ValueError) as error:
        raise PlotUnavailableError(f"The plot {path} cannot be written: {error}.") from error
    finally:
        plt.close(figure)


def plot_tradeoff(path: Path, trials: SimulationCache, service: Service, price: Price) -> None:
    """Plot what a longer idle tail (window + retention) costs and how many cold starts it avoids."""
    plt = load_pyplot()
    months = [
        trials.simulate(replace(service, window_s=window_s, retention_s=retention_s, min_scale=0))
        for window_s, retention_s in IDLE_TAILS
    ]
    traffic = trials.traffic
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
    title = f"{traffic.name}: {traffic.images} images in {traffic.days:g} days, boot {service.boot_s:g} s"
    figure.suptitle(title, x=0.02, ha="left")
    _draw_bill(left, months, price)
    _draw_waiting(right, months)
    figure.tight_layout()
    save(figure, path)


def _tail_lengths_s(months: Sequence[SimulatedMonth]) -> list[float]:
    return [month.service.window_s + month.service.retention_s for month in months]


def _draw_bill(axes: Any, months: Sequence[SimulatedMonth], price: Price) -> None:
    shown = [month for month in months if month.service.window_s + month.service.retention_s <= _MAX_BAR_TAIL_S]
    labels = [f"{tail:g}" for tail in _tail_lengths_s(shown)]
    bottom = [0.0] * len(shown)
    for name, colour in _PARTS:
        heights = [price.dollars(getattr(month, f"{name}_s")) for month in shown]
        if any(heights):
            axes.bar(labels, heights, bottom=bottom, color=colour, label=name)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    for index, dollars in enumerate(bottom):
        axes.annotate(f"${dollars:.2f}", (index, dollars), ha="center", textcoords="offset points", xytext=(0, 3))
    always_usd = price.dollars(shown[0].traffic.days * DAY_S)
    axes.set_title(f"cost at {price.name} (always on: ${always_usd:.0f})")
    axes.set_xlabel("window + retention, s")
    axes.set_ylabel("dollars")
    if any(bottom):
        axes.legend(frameon=False, loc="upper left")


def _draw_waiting(axes: Any, months: Sequence[SimulatedMonth]) -> None:
    hours = [month.gpu_hours for month in months]
    shares = [100 * month.cold_share for month in months]
    axes.plot(hours, shares, "o-", color=_ORANGE)
    for x, y, tail in zip(hours, shares, _tail_lengths_s(months), strict=True):
        label_position = {"xytext": (8, 2)} if tail <= _STEEP_S else {"xytext": (0, -16), "ha": "center"}
        axes.annotate(f"{tail:g} s", (x, y), textcoords="offset points", color=_INK, **label_position)
    axes.set_title("cold starts against cost")
    axes.set_xlabel("GPU hours billed (log)")
    if all(hours):
        axes.set_xscale("log")
    axes.set_ylabel("images that wait for a boot, %")
    axes.set_ylim(0, 105)
    axes.grid(color="#e5e7ea", which="both")
