"""Starts CUDA in a thread, before and while torch is imported. Imports no torch."""

from __future__ import annotations

import ctypes
import logging
import threading
import time

log = logging.getLogger(__name__)

DRIVER = "libcuda.so.1"


def start_context() -> threading.Thread:
    """Create the primary context of the first GPU in a thread of its own, which is returned.

    torch uses this context; without it torch creates the same one when the first tensor goes to the GPU. A call of CUDA
    waits while the thread runs. Failures only cost the time saved: torch meets the same one, and reports it or
    chooses the CPU.
    """
    thread = threading.Thread(target=_create_context, name="cuda-context", daemon=True)
    thread.start()
    return thread


def _create_context() -> None:
    started = time.monotonic()
    try:
        driver = ctypes.CDLL(DRIVER)  # a call of it does not hold the lock of Python's interpreter
        device, context = ctypes.c_int(), ctypes.c_void_p()
        status = (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), 0)
            or driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)  # never released: until the process ends
        )
    except (OSError, AttributeError) as error:  # no driver, or one without these functions
        log.info("CUDA is not started in advance: %s", error)
        return
    if status:
        log.info("CUDA is not started in advance: error %d of its driver", status)
    else:
        log.info("CUDA was started in advance in %.2f s", time.monotonic() - started)
