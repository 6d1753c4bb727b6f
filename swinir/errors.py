"""Why weights cannot be served, fetched or imported.

WeightsError        the text says which file, what is wrong and what to do
  MissingWeights    no file for this variant on this machine
  BadWeights        a file that is not what the variant needs
  FetchFailed       the network, or whoever answers there, did not give the file
"""

from __future__ import annotations


class WeightsError(Exception):
    """Weights that cannot be served; the text says which file, what is wrong and what to do."""


class MissingWeights(WeightsError):
    """No file for this variant on this machine."""


class BadWeights(WeightsError):
    """A file that is not what the variant needs."""


class FetchFailed(WeightsError):
    """The file could not be had from its address."""
