"""The decoder process: decodes one image, or converts CMYK pixels, within limits that it sets on itself.

Started as `python -I -S` with two folders, this program and one argument of JSON (see `preprocessing.sandbox.process`).
It imports what it needs, gives up files, processes, memory and time, and only then reads the image from standard input.
It writes READY, then one line of JSON, then the raw pixels. It never writes a file and imports no numpy.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
from io import BytesIO
from typing import Any

from preprocessing.sandbox.seccomp import deny_system_calls, die_with_parent

# Module of Pillow, or of pi-heif, that decodes each format.
_PLUGINS = {
    "AVIF": "PIL.AvifImagePlugin",
    "BMP": "PIL.BmpImagePlugin",
    "GIF": "PIL.GifImagePlugin",
    "HEIF": "pi_heif",
    "TIFF": "PIL.TiffImagePlugin",
}
# Imported by Pillow inside functions, where no file can be opened any more.
_LAZY_MODULES = (
    "copy",
    "PIL.ExifTags",
    "PIL.ImageChops",
    "PIL.ImageCms",
    "PIL.ImageFile",
    "PIL.ImageOps",
    "PIL.ImagePalette",
    "PIL.ImageSequence",
    "PIL.TiffImagePlugin",
    "PIL.TiffTags",
)
_MODES = ("L", "LA", "RGB", "RGBA", "I;16", "I;16B")
_MAX_REASON = 120
# Written once the limits are set. Any other first byte begins a text that says why the process could not start.
READY = b"R"


class RefusedError(Exception):
    """The image cannot be decoded; the text says why."""


def main() -> None:
    """Decode the image on standard input as the argument says, and write it to standard output."""
    job = json.loads(sys.argv[3])
    try:
        _import_decoders(job["format"])
        _limit(job)
    except Exception as error:  # noqa: BLE001 - the gateway logs it
        sys.stdout.buffer.write(f"{type(error).__name__}: {error}".encode())
        sys.exit(1)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()  # before a decoder can crash
    try:
        data = sys.stdin.buffer.read()
        facts, pixels = _decode(data, job)
    except MemoryError:
        facts, pixels = {"error": "memory"}, b""
    except Exception as error:  # noqa: BLE001 - decoders raise errors of many classes
        facts, pixels = {"error": (str(error) or type(error).__name__)[:_MAX_REASON]}, b""
    sys.stdout.buffer.write(json.dumps(facts).encode() + b"\n")
    sys.stdout.buffer.write(pixels)
    sys.stdout.buffer.flush()
    os._exit(0)  # no clean-up in a process that has read hostile bytes


def _import_decoders(format_: str) -> None:
    from PIL import Image as PilImage  # noqa: PLC0415 - found only now: sys.path is set by the arguments

    PilImage._initialized = 2  # noqa: SLF001 - or Pillow imports its other plugins
    for name in _LAZY_MODULES:
        importlib.import_module(name)
    if format_ in _PLUGINS:
        plugin = importlib.import_module(_PLUGINS[format_])
        if format_ == "AVIF":
            vars(plugin)["DEFAULT_MAX_THREADS"] = 1
        elif format_ == "HEIF":
            plugin.options.DECODE_THREADS = 0  # decodes in this thread
            plugin.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)


def _limit(job: dict[str, Any]) -> None:
    """Give up memory, time, files, sockets, processes and most system calls."""
    needs_thread = job["format"] == "HEIF"  # libde265 decodes in a thread of its own
    die_with_parent(job["parent_pid"])
    signal.setitimer(signal.ITIMER_REAL, job["max_s"])  # SIGALRM ends the process, also inside a decoder
    for kind, amount in (
        (resource.RLIMIT_AS, job["max_memory_bytes"]),
        (resource.RLIMIT_CPU, job["max_s"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 0),  # no new file, socket or pipe
        *(() if needs_thread else ((resource.RLIMIT_NPROC, 0),)),
    ):
        _, hard = resource.getrlimit(kind)
        lowered = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        resource.setrlimit(kind, (lowered, lowered))
    deny_system_calls(allows_threads=needs_thread)


def _decode(data: bytes, job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return the facts of the line of JSON, and the raw pixels, upright."""
    from PIL import Image as PilImage  # noqa: PLC0415

    size = (job["width"], job["height"])
    profile, data = data[: job["profile_bytes"]], data[job["profile_bytes"] :]
    default_profile, data = data[: job["default_profile_bytes"]], data[job["default_profile_bytes"] :]
    if job["format"] == "CMYK":
        image = PilImage.frombytes("CMYK", size, data)
    else:
        image = _open(data, job["format"])
        if job["format"] in ("AVIF", "GIF", "BMP") and image.size != size:
            raise RefusedError(
                f"{size[0]} x {size[1]} pixels in its header, {image.width} x {image.height} in its data"
            )
        frame = image.tile[0][1] if job["format"] == "GIF" else None
        image.load()
        if frame is not None:
            image = _clear_outside(image, frame)
    low_bytes = _read_low_bytes(data) if job["keeps_16_bits"] else b""
    if job["transposition"] is not None:
        image = image.transpose(PilImage.Transpose(job["transposition"]))
    is_default_used = False
    if image.mode == "CMYK":
        image, is_default_used = _convert_cmyk(image, profile, default_profile)
    image = _simplify(image)
    facts = {
        "mode": f"{image.mode};16" if low_bytes else image.mode,
        "width": image.width,
        "height": image.height,
        "is_default_profile_used": is_default_used,
    }
    return facts, image.tobytes() + low_bytes


def _open(data: bytes, format_: str) -> Any:
    from PIL import Image as PilImage  # noqa: PLC0415
    from PIL import UnidentifiedImageError  # noqa: PLC0415

    try:
        return PilImage.open(BytesIO(data), formats=[format_])
    except UnidentifiedImageError:  # its text holds a memory address and nothing useful
        raise RefusedError("its headers contradict each other") from None


def _read_low_bytes(data: bytes) -> bytes:
    """Return the low bytes of a TIFF's colours of 16 bits, of which Pillow reads the high bytes; else nothing.

    Colours that were multiplied by their alpha keep 8 bits.
    """
    image = _open(data, "TIFF")
    swapped = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
    tiles = []
    for tile in image.tile:
        kind, _, order = tile.args[0].partition(";16")
        if kind not in ("RGB", "RGBA", "RGBX") or order not in swapped:
            return b""
        tiles.append(tile._replace(args=(f"{kind};16{swapped[order]}", *tile.args[1:])))
    image.tile = tiles
    image.load()
    return bytes(image.tobytes())


def _clear_outside(image: Any, frame: tuple[int, int, int, int]) -> Any:
    """Return a GIF whose pixels outside the first frame are transparent, as browsers show them."""
    from PIL import Image as PilImage  # noqa: PLC0415

    if frame == (0, 0, *image.size):
        return image
    coloured = image.convert("RGBA")
    cleared = PilImage.new("RGBA", image.size)
    cleared.paste(coloured.crop(frame), frame[:2])
    return cleared


def _simplify(image: Any) -> Any:
    """Return the image in one of the modes that the gateway reads."""
    if image.mode == "P":
        palette = image.getpalette("RGB") or []
        is_grey = palette[::3] == palette[1::3] == palette[2::3]
        is_transparent = "transparency" in image.info
        return image.convert(("LA" if is_grey else "RGBA") if is_transparent else ("L" if is_grey else "RGB"))
    if image.mode in _MODES:
        return image
    targets = {"1": "L", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "PA": "RGBA", "YCbCr": "RGB"}
    if image.mode not in targets:
        raise RefusedError(f"pixels of the kind {image.mode}")
    return image.convert(targets[image.mode])


def _convert_cmyk(image: Any, profile: bytes, default_profile: bytes) -> tuple[Any, bool]:
    """Return the image in sRGB, and whether the default profile was used because the other is missing or broken.

    Relative colorimetric without black point compensation: of the intents it is the nearest to the original of an
    image in the inks of ghostscript's profile (3.6 levels; perceptual 4.7, with compensation 8.7) and to Chromium (9.1,
    14.7 and 19.4).
    """
    from PIL import ImageCms  # noqa: PLC0415

    target = ImageCms.createProfile("sRGB")
    for source, is_default in ((profile, False), (default_profile, True)):
        try:
            opened = ImageCms.ImageCmsProfile(BytesIO(source))
            if opened.profile.xcolor_space.strip() != "CMYK":
                continue
            converted = ImageCms.profileToProfile(
                image,
                opened,
                target,
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
            )
        except (OSError, ValueError, ImageCms.PyCMSError):
            continue
        return converted, is_default
    raise RefusedError("its CMYK colours cannot be converted")
