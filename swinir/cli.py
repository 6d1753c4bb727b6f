"""The commands of ``superres weights``: list, fetch, verify, convert and import.

Imports nothing of the gateway: the group of these commands passes the folder of the weights as click's object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click

from swinir.custom_variants import has_weights, read_rows
from swinir.errors import WeightsError
from swinir.zoo import RELEASE_URL, TASKS, VARIANTS, UnknownVariantError, Variant


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per variant.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table of docs/reference/variants.md.")
@click.pass_obj
def list_(folder: Path, *, as_json: bool, as_markdown: bool) -> None:
    """List all variants: task, network, and whether the weights are on this machine."""
    rows = describe_rows(folder)
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if as_markdown:
        click.echo("\n".join(markdown_table()))
        return
    columns = ("name", "task", "scale", "architecture", "window", "here", "megabytes", "hash")
    table = [columns, *(tuple(str(row[column]) for column in columns) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(columns))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--from", "base_url", default=RELEASE_URL, show_default=True, help="URL of the folder with the published files."
)
@click.pass_obj
def fetch(folder: Path, names: tuple[str, ...], base_url: str) -> None:
    """Download published weights. Resumes an interrupted download and checks the hash."""
    weights = _import_fetch()

    for name in names:
        with _errors_as_messages(), _progress_bar(name) as on_progress:
            entry = weights.fetch(name, folder, base_url=base_url, on_progress=on_progress)
        click.echo(f"{name}: {entry.size_bytes:,} bytes, sha256 {entry.sha256} ({entry.trust})")


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def verify(folder: Path, names: tuple[str, ...]) -> None:
    """Check the hash and every tensor of these variants; without NAME, of all on this machine."""
    weights = _import_fetch()

    failed = False
    on_this_machine = [row.name for row in VARIANTS.values() if row.is_bundled]
    on_this_machine += sorted(path.stem for path in folder.glob("*.safetensors"))
    for name in names or on_this_machine:
        try:
            click.echo(f"{name}: OK ({weights.verify(name, folder)})")
        except (WeightsError, UnknownVariantError) as error:
            click.echo(f"{name}: {error}", err=True)
            failed = True
    if failed:
        sys.exit(1)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("name")
@click.pass_obj
def convert(folder: Path, source: Path, name: str) -> None:
    """Convert a published checkpoint file SOURCE to the weights of the variant NAME."""
    weights = _import_fetch()

    with _errors_as_messages():
        entry = weights.convert_local(source, name, folder)
    click.echo(f"{name}: {entry.size_bytes:,} bytes, sha256 {entry.sha256} ({entry.trust})")


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name of the new variant.")
@click.option("--task", required=True, type=click.Choice(TASKS), help="Task that the network was trained for.")
@click.option(
    "--img-range",
    required=True,
    type=float,
    help="Factor of the input in training: 255 for the published JPEG networks, 1 for all others. Not in the file.",
)
@click.option("--summary", default="", help="Description in one line.")
@click.option("--notice", default="", help="Warning shown with every result, for example of a GAN.")
@click.option("--credit", default="unknown", show_default=True, help="Author of the weights.")
@click.option("--licence", default="unknown", show_default=True, help="Licence of the weights.")
@click.option("--key", default="", help="Key of the state dict in a .pth file; default: params_ema, then params.")
@click.option("--replace", "is_replacing", is_flag=True, help="Replace an existing variant of that name.")
@click.pass_obj
def import_(folder: Path, /, source: Path, *, is_replacing: bool, **described: Any) -> None:
    """Import a checkpoint file SOURCE (.pth, .safetensors) of any SwinIR as a new variant."""
    weights = _import_fetch()

    described["summary"] = described["summary"] or f"Imported from {source.name}."
    with _errors_as_messages():
        description = weights.Description(**described)
        row = weights.import_checkpoint(source, description, folder, is_replacing=is_replacing)
    config = " ".join(f"{name}={value}" for name, value in row.config.items())
    click.echo(f"{row.name}: {row.task}, {row.scale}x, read from the tensors: {config}")


COMMANDS = (list_, fetch, verify, convert, import_)


def markdown_table() -> list[str]:
    """Return the lines of the table in docs/reference/variants.md, which is the same on every machine."""
    lines = ["| variant | scale | use | network | window | MB | sha256 |", "|---|---|---|---|---|---|---|"]
    for variant in VARIANTS.values():
        row = _describe(variant, Path())
        digest = f"`{variant.sha256[:12]}` {row['hash']}" if variant.sha256 else row["hash"]
        use = variant.summary + (" " + variant.notice if variant.notice else "")
        cells = (
            f"`{variant.name}`",
            variant.scale,
            use,
            row["architecture"],
            variant.window,
            row["megabytes"],
            digest,
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return lines


def describe_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of ``weights list``: every variant of the zoo and every imported one."""
    return [_describe(row, folder) for row in (*VARIANTS.values(), *read_rows(folder).values())]


def _describe(row: Variant, folder: Path) -> dict[str, Any]:
    config = row.config
    groups, heads = len(config["depths"]), config["num_heads"][0]
    upsampler = config["upsampler"] or "residual"
    if row.is_bundled:
        here = "bundled"
    elif row.is_imported:
        here = "imported"
    else:
        is_here = (folder / f"{row.name}.safetensors").exists()
        here = "fetched" if has_weights(row, folder) else "damaged" if is_here else "no"
    if row.sha256:
        sources = {"many": "many projects", "1": "1 project"}.get(row.sha256_sources, f"{row.sha256_sources} projects")
        certainty = f"pinned by {sources}"
    else:
        certainty = "bundled" if row.is_bundled else "recorded at import" if row.is_imported else "trusted on first use"
    return {
        "name": row.name,
        "task": row.task,
        "scale": row.scale,
        "strength": row.strength,
        "architecture": f"{groups}x{config['depths'][0]} dim {config['embed_dim']} heads {heads} {upsampler}",
        "window": row.window,
        "here": here,
        "megabytes": f"{row.size_bytes / 1e6:.1f}" if row.size_bytes else "?" if row.file else "-",
        "hash": certainty,
        "sha256": row.sha256,
        "size_bytes": row.size_bytes,
        "url": row.url,
        "checkpoint_key": row.checkpoint_key if row.file else "",
        "summary": row.summary,
        "notice": row.notice,
        "credit": row.credit,
        "licence": row.licence,
    }


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    try:
        yield
    except (WeightsError, UnknownVariantError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename or 'the weights folder'}: {error.strerror}")


def _import_fetch() -> Any:
    """Return swinir.weights.fetch, which needs torch: two seconds that `list` does not wait for."""
    try:
        from swinir.weights import fetch  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in {"torch", "safetensors"}:
            raise
        _fail(f"{error.name} is not installed, and this command needs it: pip install 'serverless-superres[embedded]'")
    return fetch


@contextmanager
def _progress_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a progress bar on standard error if it is a terminal."""
    with click.progressbar(length=1, label=name, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def advance(done: int, total: int | None) -> None:
            bar.length = total or max(done, 1)
            bar.update(done - bar.pos)

        yield advance


def _fail(text: str) -> NoReturn:
    click.echo(f"superres: {text}", err=True)
    sys.exit(1)
