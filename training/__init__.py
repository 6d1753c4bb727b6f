"""Trains the project's own compact variants, reproducibly. Nothing that serves imports this room."""
