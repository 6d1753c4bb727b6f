"""The command line `superres`, and the one setting that has to be made before NumPy is imported."""

from swinir.settings import limit_numpy_threads

limit_numpy_threads()
