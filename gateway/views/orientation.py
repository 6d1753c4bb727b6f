"""Turns the upload on the result page as the gateway turned it, where the browser does not."""

from __future__ import annotations

from preprocessing.codec import Upload

# How (x, y) of the stored image becomes (a x + c y, b x + d y), before the image is moved into view.
_AXES = {
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


def svg_transform(upload: Upload) -> str:
    """Return the transform attribute of an SVG image that shows the upload upright; empty when the browser turns it."""
    if upload.is_turned_by_browsers:
        return ""
    a, b, c, d = _AXES[upload.orientation]
    return f"matrix({a} {b} {c} {d} {upload.width if a + c < 0 else 0} {upload.height if b + d < 0 else 0})"
