"""Runs `superres plan` as `python -m planning`, without the rest of the project."""

from planning.cli import plan

if __name__ == "__main__":
    plan(prog_name="python -m planning")
