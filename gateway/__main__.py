"""`python -m gateway` is `superres`."""

from gateway.cli import cli

cli(prog_name="superres")
