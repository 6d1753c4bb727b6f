"""Runs the command line `superres` as `python -m gateway`."""

from gateway.cli.main import cli

cli(prog_name="superres")
