"""`python -m planning` is `superres plan` without the rest of the project."""

from planning.cli import plan

if __name__ == "__main__":
    plan(prog_name="python -m planning")
