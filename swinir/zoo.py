"""The zoo: the table of all variants. CLI, API, form and docs follow from it.

A row says what a variant is for, how its network is built, where its published checkpoint is and how well its hash is
known. Imports no torch, so that the gateway and Triton's tile step can read it.

Sources: SwinIR's release v0.0 (names, sizes), other projects that pin its files (hashes; ``sha256_sources`` counts
them) and the tables of the paper (architectures). None of the published files could be hashed for this table, because
this project was made without internet access.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from swinir.credits import GAN_NOTICE, OWN_CREDIT, PUBLISHED_CREDIT, TEACHER_CREDIT

DEFAULT_VARIANT = "compact_x4"
# The default of the form: users upload photos from phones and the web (comparison in docs/reference/variants.md).
PHOTO_VARIANT = "compact_real_x4"
RELEASE_URL = "https://github.com/JingyunLiang/SwinIR/releases/download/v0.0/"
TASKS = ("classical_sr", "lightweight_sr", "real_sr", "gray_denoise", "color_denoise", "gray_jpeg", "color_jpeg")


class UnknownVariantError(LookupError):
    """No variant has that name, or its file is invalid; the message suggests a name and lists the available ones."""

    def __init__(self, name: str, imported: tuple[str, ...] = (), reason: str = "") -> None:
        names = (*VARIANTS, *imported)
        if reason:
            problem = f"Variant {name[:80]!r} cannot be served: {reason}."
        else:
            similar = difflib.get_close_matches(name[:80], names, n=1)
            problem = f"Unknown variant {name[:80]!r}." + (f" Did you mean {similar[0]}?" if similar else "")
        super().__init__(f"{problem} Available: {', '.join(names)}.")


@dataclass(frozen=True)
class Variant:
    """A row of the zoo."""

    name: str
    task: str
    scale: int
    """Output side / input side: 1, 2, 3, 4 or 8."""
    summary: str
    """What the variant is for, in one line."""
    config: Mapping[str, Any]
    """Keywords of ``swinir.network.swinir.SwinIR``."""
    halo: int
    """Pixels at the border of a tile whose output is dropped."""
    max_tile_px: int
    """Maximum side of a tile, halo included."""
    margin: int = 0
    """Reflected pixels around an image whose output is dropped: a multiple of the window, at most the halo."""
    strength: int | None = None
    """Noise sigma in levels, or JPEG quality, that the weights were trained for."""
    notice: str = ""
    """Warning shown with every result; empty when none is needed."""
    credit: str = PUBLISHED_CREDIT
    licence: str = "Apache-2.0"
    file: str = ""
    """Name of the published checkpoint; empty for bundled variants (``swinir/bundled``) and imported ones."""
    checkpoint_key: str = "params"
    """Key of the state dict in the published file."""
    size_bytes: int | None = None
    sha256: str = ""
    """Hash of the published checkpoint; empty when no project pins it: then it is trusted on first use."""
    sha256_sources: str = ""
    """Number of other projects known to pin this hash, or "many"; empty without a hash."""
    is_imported: bool = False
    """Whether the weights were added with ``superres weights import``."""

    @property
    def window(self) -> int:
        """Attention window in pixels."""
        return int(self.config["window_size"])

    @property
    def channels(self) -> int:
        """Input channels: 3 for RGB, 1 for luminance only."""
        return int(self.config["in_chans"])

    @property
    def keeps_size(self) -> bool:
        """Whether the result has the size of the upload, as with denoising and JPEG repair: they can be mixed."""
        return self.scale == 1

    @property
    def is_bundled(self) -> bool:
        """Whether the weights are part of this package."""
        return not self.file and not self.is_imported

    @property
    def url(self) -> str:
        """URL of the published checkpoint; empty for bundled and imported variants."""
        return RELEASE_URL + self.file if self.file else ""


def find_variant(name: str) -> Variant:
    """Return the row of a variant of the zoo; raises UnknownVariantError."""
    try:
        return VARIANTS[name]
    except KeyError:
        raise UnknownVariantError(name) from None


def _config(
    groups: int, depth: int, dim: int, heads: int, scale: int, upsampler: str, **others: Any
) -> Mapping[str, Any]:
    shared = {"mlp_ratio": 2, "window_size": 8, "img_range": 1.0, "in_chans": 3, "resi_connection": "1conv"}
    sizes = {"depths": [depth] * groups, "embed_dim": dim, "num_heads": [heads] * groups}
    return MappingProxyType({**shared, **sizes, "upscale": scale, "upsampler": upsampler, **others})


# Halos of bundled variants: measured, at least 84 dB in tiles of 96 px; margins: measured, one window where it loses
# nothing (docs/explanation/tiling.md). The published networks are deeper; their seams could not be measured without
# their weights, and they keep the padding that they were published with.
_COMPACT: dict[str, Any] = {"halo": 24, "max_tile_px": 256, "credit": OWN_CREDIT}
_LIGHT: dict[str, Any] = {"halo": 24, "max_tile_px": 256}
_MEDIUM: dict[str, Any] = {"halo": 32, "max_tile_px": 192}
_LARGE: dict[str, Any] = {"halo": 32, "max_tile_px": 192}
_JPEG = {"window_size": 7, "img_range": 255.0}


def _compact_sr(scale: int) -> Variant:
    return Variant(
        name=f"compact_x{scale}",
        task="lightweight_sr",
        scale=scale,
        summary=f"{scale}x for clean images. Small and fast on any machine.",
        config=_config(2, 4, 48, 4, scale, "pixelshuffledirect"),
        **_COMPACT,
    )


def _compact_real(scale: int) -> Variant:
    return replace(
        _compact_sr(scale),
        name=f"compact_real_x{scale}",
        task="real_sr",
        summary=f"{scale}x for photos from phones and the web (blur, noise, JPEG damage). Small; invents no detail.",
        halo=32,
    )


def _compact_photo(scale: int) -> Variant:
    return replace(
        _compact_real(scale),
        name=f"compact_photo_x{scale}",
        summary=f"{scale}x for photos from phones and the web, with texture; not for text. Small; invents texture.",
        notice=GAN_NOTICE,
        credit=f"{OWN_CREDIT}; taught by {TEACHER_CREDIT}",
    )


def _compact_denoise(sigma: int, *, grey: bool) -> Variant:
    colour = "gray" if grey else "color"
    return Variant(
        name=f"compact_{colour}_denoise_{sigma}",
        task=f"{colour}_denoise",
        scale=1,
        strength=sigma,
        summary=f"Removes {'grey' if grey else 'colour'} noise of strength {sigma} (of 255); same size. Small.",
        config=_config(2, 4, 48, 4, 1, "", in_chans=1 if grey else 3),
        margin=8,
        **_COMPACT,
    )


def _compact_jpeg(quality: int, *, grey: bool) -> Variant:
    colour = "gray" if grey else "color"
    return Variant(
        name=f"compact_{colour}_jpeg_{quality}",
        task=f"{colour}_jpeg",
        scale=1,
        strength=quality,
        summary=f"Removes the damage of {'grey ' if grey else ''}JPEG quality {quality}; same size. Small.",
        config=_config(2, 4, 48, 4, 1, "", in_chans=1 if grey else 3, **_JPEG),
        **{**_COMPACT, "halo": 21, "max_tile_px": 252, "margin": 7},
    )


def _classical(scale: int, training_set: str, **checkpoint: Any) -> Variant:
    infix, patch = ("_div2k", 48) if training_set == "DIV2K" else ("", 64)
    return Variant(
        name=f"classical{infix}_x{scale}",
        task="classical_sr",
        scale=scale,
        summary=f"{scale}x for clean, sharp images without JPEG damage. Faithful and slow (trained on {training_set}).",
        config=_config(6, 6, 180, 6, scale, "pixelshuffle"),
        file=f"001_classicalSR_{training_set}_s{patch}w8_SwinIR-M_x{scale}.pth",
        **_MEDIUM,
        **checkpoint,
    )


def _lightweight(scale: int, **checkpoint: Any) -> Variant:
    return Variant(
        name=f"lightweight_x{scale}",
        task="lightweight_sr",
        scale=scale,
        summary=f"{scale}x for clean images, in a quarter of the time of classical.",
        config=_config(4, 6, 60, 6, scale, "pixelshuffledirect"),
        file=f"002_lightweightSR_DIV2K_s64w8_SwinIR-S_x{scale}.pth",
        **_LIGHT,
        **checkpoint,
    )


def _real(name: str, scale: int, *, large: bool, gan: bool, **checkpoint: Any) -> Variant:
    character = "Sharp; invents texture" if gan else "Smooth; invents no detail"
    data, size = ("DFOWMFC", "L") if large else ("DFO", "M")
    config = (
        _config(9, 6, 240, 8, scale, "nearest+conv", resi_connection="3conv")
        if large
        else _config(6, 6, 180, 6, scale, "nearest+conv")
    )
    return Variant(
        name=name,
        task="real_sr",
        scale=scale,
        summary=f"{scale}x for photos from phones and the web (blur, noise, JPEG damage). {character}.",
        config=config,
        notice=GAN_NOTICE if gan else "",
        checkpoint_key="params_ema",
        file=f"003_realSR_BSRGAN_{data}_s64w8_SwinIR-{size}_x{scale}_{'GAN' if gan else 'PSNR'}.pth",
        **(_LARGE if large else _MEDIUM),
        **checkpoint,
    )


def _denoise(sigma: int, *, grey: bool, **checkpoint: Any) -> Variant:
    number, colour = ("004_grayDN", "gray") if grey else ("005_colorDN", "color")
    return Variant(
        name=f"{colour}_denoise_{sigma}",
        task=f"{colour}_denoise",
        scale=1,
        strength=sigma,
        summary=f"Removes {'grey' if grey else 'colour'} noise of strength {sigma} (of 255); same size.",
        config=_config(6, 6, 180, 6, 1, "", in_chans=1 if grey else 3),
        file=f"{number}_DFWB_s128w8_SwinIR-M_noise{sigma}.pth",
        **_MEDIUM,
        **checkpoint,
    )


def _jpeg(quality: int, *, grey: bool, **checkpoint: Any) -> Variant:
    number, colour = ("006_CAR", "gray") if grey else ("006_colorCAR", "color")
    return Variant(
        name=f"{colour}_jpeg_{quality}",
        task=f"{colour}_jpeg",
        scale=1,
        strength=quality,
        summary=f"Removes the damage of {'grey ' if grey else ''}JPEG quality {quality}; same size.",
        config=_config(6, 6, 180, 6, 1, "", in_chans=1 if grey else 3, **_JPEG),
        file=f"{number}_DFWB_s126w7_SwinIR-M_jpeg{quality}.pth",
        halo=35,
        max_tile_px=189,
        **checkpoint,
    )


def _pin(size_bytes: int, sha256: str, sources: str) -> dict[str, Any]:
    return {"size_bytes": size_bytes, "sha256": sha256, "sha256_sources": sources}


_ROWS = (
    _compact_sr(4),
    _compact_sr(2),
    _compact_real(4),
    _compact_photo(4),
    _compact_denoise(25, grey=False),
    _compact_jpeg(20, grey=False),
    _compact_denoise(25, grey=True),
    _compact_jpeg(20, grey=True),
    _classical(2, "DF2K", **_pin(67277475, "2032ebf8f401dd3ce2fae5f3852117cb72101ec6ed8358faa64c2a3fa09ed4ac", "many")),
    _classical(3, "DF2K"),
    _classical(
        4, "DF2K", sha256="4e78e33f22c1aa8a773db0cf4a7381bae97c2362c717f155439ebc690cbd9215", sha256_sources="1"
    ),
    _classical(8, "DF2K"),
    _classical(2, "DIV2K"),
    _classical(3, "DIV2K"),
    _classical(4, "DIV2K", **_pin(59611499, "129dc773ba2d4c07f3eb0bb116fbe692011b7cc072d9ca12797cd3748198610a", "2")),
    _classical(8, "DIV2K"),
    _lightweight(2, **_pin(17147989, "193b229909ca89cd8b55de9c9e7fce146ae759d59dfcd78d8feb9dd1d6fa0fd7", "many")),
    _lightweight(3),
    _lightweight(4, **_pin(17225941, "09fad24e32ae62722e1a055efde9921328f4137981bab0a42a4a3a806306c58e", "2")),
    _real(
        "real_x2",
        2,
        large=False,
        gan=True,
        **_pin(66974517, "f397408977a3e07eb06afb7238d453a12ef35ebab7328a54241f307860dbe342", "2"),
    ),
    _real(
        "real_x4",
        4,
        large=False,
        gan=True,
        **_pin(67129861, "b9afb61e65e04eb7f8aba5095d070bbe9af28df76acd0c9405aeb33b814bcfc6", "3"),
    ),
    _real(
        "real_x4_psnr",
        4,
        large=False,
        gan=False,
        **_pin(67129849, "1fd8fed99684bd271db55563e4906d36459cf535446820053f7a1081d4781dc5", "1"),
    ),
    _real(
        "real_large_x4",
        4,
        large=True,
        gan=True,
        **_pin(142473939, "99adfa91350a84c99e946c1eb3d8fce34bc28f57d807b09dc8fe40a316328c0a", "many"),
    ),
    _real(
        "real_large_x4_psnr",
        4,
        large=True,
        gan=False,
        **_pin(142473947, "450be6eac63a59959b55a83df6743444de9f018547f81d16f699b3680d366ad7", "1"),
    ),
    *(_denoise(sigma, grey=True) for sigma in (15, 25, 50)),
    _denoise(15, grey=False),
    _denoise(
        25, grey=False, **_pin(122905743, "39e264322ba762682de5acee4705aaeda7077b947204b9ce1899519ebd540724", "1")
    ),
    _denoise(50, grey=False),
    *(_jpeg(quality, grey=True) for quality in (10, 20, 30, 40)),
    _jpeg(10, grey=False),
    _jpeg(20, grey=False, **_pin(102873665, "1b47fa32f358630e3de3430c91296535a0011b16f0518dacd5b847f123023d45", "1")),
    *(_jpeg(quality, grey=False) for quality in (30, 40)),
)

VARIANTS: Mapping[str, Variant] = MappingProxyType({row.name: row for row in _ROWS})
