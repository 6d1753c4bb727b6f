"""Decides what of an upload's metadata its result has, and names the rest for the user."""

from __future__ import annotations

from preprocessing.formats.exif import MAKER_NOTE, THUMBNAIL, describe_exif, find_parts
from preprocessing.metadata.metadata import Metadata
from preprocessing.metadata.xmp import find_ai_source_type, rewrite_xmp
from preprocessing.upload import Upload


def select_metadata(upload: Upload, dpi: tuple[float, float] | None, *, keeps: bool) -> tuple[Metadata, list[str]]:
    """Return the metadata of the result, and what of the upload's it will not have, in words.

    With `keeps`, everything that can be parsed and written again; without, only the sign that a trained model made the
    upload, which the result's own metadata repeat.
    """
    container = upload.container
    names = [*container.dropped]
    ai_source_type = find_ai_source_type(container.xmp)
    has_texts = bool(container.texts.found)
    if not keeps:
        found = {
            describe_exif(container.exif): True,
            "XMP": container.xmp,
            "IPTC": container.iptc,
            "text": has_texts or container.texts.has_unkept,
        }
        return Metadata(ai_source_type=ai_source_type), [name for name, is_there in found.items() if is_there] + names
    metadata = Metadata(
        exif=container.exif,
        xmp=container.xmp,
        iptc=container.iptc,
        texts=tuple(container.texts.found),
        ai_source_type=ai_source_type,
    )
    written = metadata.rewrite(upload.width, upload.height, dpi, None)
    lost = {
        describe_exif(container.exif): not written.exif,
        **{f"the {part} in EXIF": True for part in find_parts(container.exif) if part in (THUMBNAIL, MAKER_NOTE)},
        "XMP": container.xmp and not written.xmp,
        "what XMP says of other images": rewrite_xmp(container.xmp, upload.width, upload.height, {})[1],
        "text": container.texts.has_unkept,
    }
    return metadata, [name for name, is_lost in lost.items() if is_lost] + names
