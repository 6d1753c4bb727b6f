"""`superres usage`: prints the GPU seconds of each month, and of each client in one month."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.config.settings import Settings
from gateway.usage.records import MonthlyUsage, format_month
from gateway.usage.store import open_usage_store
from gateway.usage.unwritten import UnwrittenUsageFile, describe_batches

_KINDS = ("gpu_s", "boot_s", "work_s", "idle_s")


def describe(settings: Settings, name: str) -> str:
    """Return a table of all months, and one of the clients in the month `name`, or in the current one.

    Raises UsageStoreError.
    """
    store = open_usage_store(settings.usage_path(), settings.redis_url)
    months = store.read()
    current = format_month(store.now())  # known after the reading, because Redis's clock decides
    month = months.get(name or current, MonthlyUsage(name or current))
    shown = sorted({*months, month.name})
    lines = _table(
        ("month", "GPU s", "boot", "work", "idle", "images"),
        [_row(months.get(each, month)) for each in shown],
    )
    if settings.monthly_gpu_budget_s:
        spent = months.get(current, MonthlyUsage(current)).gpu_s
        share = f"{100 * spent / settings.monthly_gpu_budget_s:.0f} %"
        budget = f"monthly_gpu_budget_s = {settings.monthly_gpu_budget_s:,.0f}"
        lines.append(f"{current}: {share} of the budget used ({budget}).")
    unwritten = UnwrittenUsageFile.next_to(settings.usage_path())
    if batches := unwritten.read():
        lines.append(
            f"Not included: {describe_batches(batches)} in {unwritten.path}. The next start of the gateway adds them."
        )
    lines += ["", f"Compute seconds by client in {month.name}:"]
    clients = sorted(month.clients.items(), key=lambda one: -one[1].work_s)
    if not clients:
        return "\n".join([*lines[:-1], f"No images were upscaled in {month.name}."])
    rows = [(client, f"{use.work_s:,.1f}", f"{use.images:,}") for client, use in clients]
    return "\n".join([*lines, *_table(("client", "work s", "images"), rows)])


def _row(month: MonthlyUsage) -> tuple[str, ...]:
    images = sum(use.images for use in month.clients.values())
    return (month.name, *(f"{getattr(month, kind):,.1f}" for kind in _KINDS), f"{images:,}")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: first column aligned left, numbers aligned right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    ]
