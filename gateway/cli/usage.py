"""`superres usage`: the GPU seconds of the months, and of each client in one of them."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.config.settings import Settings
from gateway.usage.store import MonthlyUsage, open_usage_store

_KINDS = ("gpu_s", "boot_s", "work_s", "idle_s")


def describe(settings: Settings, name: str, current: str) -> str:
    """Return the table of months, and of the clients of the one named, or of the current one. Raises LedgerError."""
    months = open_usage_store(settings.path_of_meter(), settings.redis_url).read()
    month = months.get(name or current, MonthlyUsage(name or current))
    shown = sorted({*months, month.name})
    lines = _table(
        ("month", "GPU s", "boot", "work", "idle", "pictures"),
        [_row(months.get(each, month)) for each in shown],
    )
    if settings.monthly_gpu_budget_s:
        spent = months.get(current, MonthlyUsage(current)).gpu_s
        share = f"{100 * spent / settings.monthly_gpu_budget_s:.0f} %"
        lines.append(f"{current}: {share} of monthly_gpu_budget_s ({settings.monthly_gpu_budget_s:,.0f}).")
    lines += ["", f"Work of clients in {month.name}:"]
    clients = sorted(month.clients.items(), key=lambda one: -one[1].work_s)
    if not clients:
        return "\n".join([*lines[:-1], f"Nobody had a picture made in {month.name}."])
    rows = [(client, f"{use.work_s:,.1f}", f"{use.pictures:,}") for client, use in clients]
    return "\n".join([*lines, *_table(("client", "work s", "pictures"), rows)])


def _row(month: MonthlyUsage) -> tuple[str, ...]:
    pictures = sum(use.pictures for use in month.clients.values())
    return (month.name, *(f"{getattr(month, kind):,.1f}" for kind in _KINDS), f"{pictures:,}")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines: the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]
