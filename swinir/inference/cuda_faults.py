"""Faults of a GPU after which a process can compute nothing more, as after a kernel that read an illegal address."""

from __future__ import annotations

import torch


def is_context_lost(device: torch.device) -> bool:
    """Return whether every further call of CUDA in this process fails. Call it after an error.

    Other errors are reported once: memory that ran out, or a CUDA graph that could not be recorded. Their message does
    not tell them apart ("CUDA error: ..."), so CUDA is called twice: the first call may report what was queued.
    """
    if device.type != "cuda":
        return False
    for _ in range(2):
        try:
            torch.cuda.synchronize(device)
        except RuntimeError:  # torch.AcceleratorError is one
            continue
        return False
    return True
