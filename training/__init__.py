"""Trains the project's own compact variants, reproducibly. No package that serves imports this one."""
