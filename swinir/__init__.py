"""SwinIR: the zoo of variants, and in `network`, `weights` and `inference` the parts that import torch.

Imports neither Flask nor Triton. The modules at this level import no torch, so that the gateway can use them.
"""
