"""Why weights cannot be served, fetched or imported.

WeightsError        the text says which file, what is wrong and what to do
  MissingWeights    no file for this variant on this machine
  BadWeights        a file that is not what the variant needs
  FetchFailed       the network, or whoever answers there, did not give the file
"""

from __future__ import annotations


class WeightsError(Exception):
    """Weights that cannot be served; the text says which file, what is wrong and what to do."""


class MissingWeightsError(WeightsError):
    """No file for this variant on this machine."""


class InvalidWeightsError(WeightsError):
    """A file that is not what the variant needs."""


class FetchError(WeightsError):
    """The file could not be had from its address."""
