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

from swinir.custom_variants import find_row, has_weights, read_rows
from swinir.errors import UnreachableError, WeightsError
from swinir.variant_names import resolve_name
from swinir.weights_file import list_weights_files
from swinir.zoo import RELEASE_URL, TASKS, VARIANTS, UnknownVariantError, Variant

_KEY_HELP = (
    "Key of the state dict in a .pth file; default: the first of params_ema, params-ema, params, state_dict, "
    "model_state_dict, model, net."
)


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
@click.option("--again", is_flag=True, help="Download weights that are already here again.")
@click.option("--optional", "is_optional", is_flag=True, help="Exit with 0 when a download fails.")
@click.pass_obj
def fetch(folder: Path, names: tuple[str, ...], base_url: str, *, again: bool, is_optional: bool) -> None:
    """Download published weights; a running server offers them at once.

    Skips weights that are already here, resumes an interrupted download, and checks the hash.
    """
    with _errors_as_messages():
        separate = [name for text in names for name in text.split(",") if name.strip()]
        rows = {row.name: row for row in (find_row(resolve_name(name), folder) for name in separate)}
        missing = [name for name, row in rows.items() if not _is_here(row, folder, again=again)]
    weights: Any = _import_fetch() if missing else None
    failed: list[str] = []
    for name in missing:
        size = rows[name].size_bytes
        click.echo(f"{name}: downloading{f' {size / 1e6:.1f} MB' if size else ''} from {base_url}")
        try:
            with _progress_bar(name) as on_progress:
                entry = weights.fetch(name, folder, base_url=base_url, on_progress=on_progress)
        except (WeightsError, OSError) as error:
            click.echo(f"superres: {error}", err=True)
            failed.append(name)
            if isinstance(error, UnreachableError):  # so are the others
                failed = missing[missing.index(name) :]
                break
        else:
            click.echo(f"{name}: {entry.size_bytes:,} bytes, sha256 {entry.sha256} ({entry.trust})")
            click.echo(f"{name}: saved to {folder / name}.safetensors. A server that uses this folder offers it now.")
    if failed:
        click.echo(_advise(failed), err=True)
        sys.exit(0 if is_optional else 1)


def _is_here(row: Variant, folder: Path, *, again: bool) -> bool:
    """Return whether there is nothing to download for a variant, and say so."""
    from swinir.weights.lockfile import LockFile, hash_file  # noqa: PLC0415 - the gateway imports no more than it needs

    path = folder / f"{row.name}.safetensors"
    if row.is_bundled or row.is_imported:
        click.echo(f"{row.name}: {'bundled' if row.is_bundled else 'imported'}, nothing to fetch")
        return True
    if again or not has_weights(row, folder):
        return False
    entry = LockFile(folder).find(row.name)
    if entry and hash_file(path) != entry.converted_sha256:
        click.echo(f"{row.name}: {path} was changed since it was fetched")
        return False
    click.echo(f"{row.name}: already in {path}")
    return True


def _advise(failed: list[str]) -> str:
    names = " ".join(failed)
    return (
        f"Not fetched: {names.replace(' ', ', ')}. The bundled variants need no download and work anyway.\n"
        f"When this machine has internet access, run: superres weights fetch {names}\n"
        "Behind a proxy, set HTTPS_PROXY. With a file from another machine, run: "
        f"superres weights convert FILE {failed[0]}"
    )


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.pass_obj
def verify(folder: Path, names: tuple[str, ...]) -> None:
    """Check the hash and every tensor of these variants; without NAME, of all on this machine."""
    weights = _import_fetch()

    failed = False
    on_this_machine = [row.name for row in VARIANTS.values() if row.is_bundled]
    on_this_machine += list_weights_files(folder)
    for name in names or on_this_machine:
        try:
            click.echo(f"{name}: OK ({weights.verify(resolve_name(name), folder)})")
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

    name = resolve_name(name)
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
@click.option("--key", default="", help=_KEY_HELP)
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
    """Show progress on standard error: a bar if it is a terminal, otherwise a line for each quarter."""
    is_terminal = sys.stderr.isatty()
    quarters = 0

    def show_size(_: object) -> str:
        return f"{bar.pos / 1e6:.1f} of {(bar.length or 0) / 1e6:.1f} MB"

    def advance(done: int, total: int | None) -> None:
        nonlocal quarters
        bar.length = total or max(done, 1)
        bar.update(done - bar.pos)
        if not is_terminal and total and 4 * done // total > quarters:
            quarters = 4 * done // total
            click.echo(f"{name}: {done / 1e6:.1f} of {total / 1e6:.1f} MB", err=True)

    with click.progressbar(
        length=1, label=name, file=sys.stderr, hidden=not is_terminal, item_show_func=show_size
    ) as bar:
        yield advance


def _fail(text: str) -> NoReturn:
    click.echo(f"superres: {text}", err=True)
    sys.exit(1)
