"""`python -m gateway` is `superres`."""

from gateway.cli.main import cli

cli(prog_name="superres")
