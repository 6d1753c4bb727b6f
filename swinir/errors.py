"""Errors of weights that cannot be served, fetched or imported.

WeightsError             the message names the file, what is wrong and what to do
  MissingWeightsError    no file for this variant on this machine
  InvalidWeightsError    a file that does not fit the variant
  FetchError             a download that failed
    UnreachableError     the server cannot be reached at all: usually internet access is missing
"""

from __future__ import annotations


class WeightsError(Exception):
    """Weights cannot be served; the message names the file, what is wrong and what to do."""


class MissingWeightsError(WeightsError):
    """This machine has no weights file for the variant."""


class InvalidWeightsError(WeightsError):
    """A weights file does not fit its variant, or is damaged."""


class FetchError(WeightsError):
    """A download failed."""


class UnreachableError(FetchError):
    """The server's name is unknown here, or no route leads to it: usually internet access is missing."""
