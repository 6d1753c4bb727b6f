"""Uploads: takes the image out of a request's body, within every limit and before anything is decoded.

A body is multipart with a field `image`, or the image itself. Its announced length is looked at first, its first bytes
next, and no more is ever read or kept than the limit; nothing is written to disk. Time is the socket's affair
(`gateway.wsgi.timeouts`), which raises TimeoutError here.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import IO, Any, TypeAlias, cast

from flask import Request
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from gateway import problems
from gateway.config.settings import Settings
from gateway.jobs.options import UpscaleRequest, make_request, parse_options, refuse_early

IMAGE_FIELD = "image"
MAX_FORM_PARTS = 8
MAX_FIELD_BYTES = 131_072
"""Of a text field. The multipart parser buffers 64 KiB at a time and refuses a buffer larger than this, so not less."""
FORM_OVERHEAD_BYTES = 65_536
"""Boundaries, part headers and text fields beside the image, on top of `max_upload_bytes`."""
HEAD_BYTES = 65_536
"""Looked at before the rest is read: headers of most images end within it."""
READ_BYTES = 65_536


Fields: TypeAlias = dict[str, str]
"""Parameters by name."""


def read_upscale_request(
    request: Request, settings: Settings, *, take_own: Callable[[Fields], None] = lambda _: None
) -> UpscaleRequest:
    """Read a request's image and parameters, in the order of doors; raise a Problem at the first that is closed.

    `take_own` takes the fields that are no choices, the form's own, out of the parameters.
    """
    query = _once(request.args)
    if request.mimetype == "multipart/form-data":
        data, filename, fields = _read_multipart(request, settings)
        if both := query.keys() & fields.keys():
            raise problems.BadParameter(
                f"The parameter {min(both)[:40]!r} stands in the form and in the address: send it once."
            )
        parameters = {**query, **fields}
        take_own(parameters)
        return make_request(data, filename, parse_options(parameters, settings), settings)
    take_own(query)
    choices = parse_options(query, settings)
    return make_request(_read_raw(request, settings), "", choices, settings)


def _read_raw(request: Request, settings: Settings) -> bytes:
    body = _Body(request, settings.max_upload_bytes)
    upload = _Head(settings)
    while data := body.read(READ_BYTES):
        upload.write(data)
    return upload.getvalue()


def _read_multipart(request: Request, settings: Settings) -> tuple[bytes, str, dict[str, str]]:
    """Return the image's bytes, the name it came with, and the text fields."""
    body = _Body(request, settings.max_upload_bytes + FORM_OVERHEAD_BYTES)

    def keep_in_memory(
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        del total_content_length, content_type, filename, content_length  # claims of the client; the body is counted
        return _Head(settings)

    parser = FormDataParser(
        stream_factory=keep_in_memory, max_form_memory_size=MAX_FIELD_BYTES, max_form_parts=MAX_FORM_PARTS, silent=False
    )
    try:
        _, fields, files = parser.parse(
            cast("IO[bytes]", body), request.mimetype, request.content_length, request.mimetype_params
        )
    except RequestEntityTooLarge as error:
        raise problems.MalformedForm(
            f"The form has more than {MAX_FORM_PARTS} parts or a text over {MAX_FIELD_BYTES:,} bytes. "
            f"It has one file, `{IMAGE_FIELD}`, and the fields variant, format and quality."
        ) from error
    except ValueError as error:
        raise problems.MalformedForm(
            f"The multipart body cannot be taken apart ({str(error)[:80]}). Send it as browsers and curl -F do."
        ) from error
    if None in fields or None in files:  # what the parser makes of a part without a name
        raise problems.MalformedForm(
            f"A part of the form has no name. The image goes into `{IMAGE_FIELD}`. Send it as browsers and curl -F do."
        )
    while body.read(READ_BYTES):  # an epilogue, bounded like the rest
        pass
    image = _find_image(files, fields)
    return cast("_Head", image.stream).getvalue(), image.filename or "", _once(fields)


def _find_image(files: MultiDict[str, FileStorage], fields: MultiDict[str, str]) -> FileStorage:
    sent = list(files.items(multi=True))
    for name, _ in sent:
        if name != IMAGE_FIELD:
            raise problems.MalformedForm(f"There is no file field {name[:40]!r}: the image goes into `{IMAGE_FIELD}`.")
    if IMAGE_FIELD in fields:
        raise problems.MissingImage(f"The field `{IMAGE_FIELD}` holds text: send a file (curl -F {IMAGE_FIELD}=@FILE).")
    if len(sent) > 1:
        raise problems.MissingImage(f"The form has {len(sent)} images: send one at a time.")
    if not sent or (not sent[0][1].filename and not cast("_Head", sent[0][1].stream).getvalue()):
        raise problems.MissingImage(
            f"No image was chosen. Choose a JPEG, PNG or WebP; a program sends it as the file field `{IMAGE_FIELD}`."
        )
    return sent[0][1]


def _once(values: MultiDict[str, str]) -> dict[str, str]:
    """Return values by name; raise BadParameter for a name that stands there twice."""
    for name, given in values.lists():
        if len(given) > 1:
            raise problems.BadParameter(f"The parameter {name[:40]!r} is given {len(given)} times: send it once.")
    return values.to_dict()


class _Head(BytesIO):
    """Collects an upload and gives up on it as soon as its first bytes tell that it is refused."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._looked = False

    def write(self, data: Any, /) -> int:  # the buffer protocol has no public type before Python 3.12
        written = super().write(data)
        if not self._looked and self.tell() >= HEAD_BYTES:
            self._looked = True
            refuse_early(self.getvalue(), self._settings)
        return written


class _Body:
    """A request's body that cannot be read past the limit, and whose every failure is a Problem."""

    def __init__(self, request: Request, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._length = request.content_length
        self._read = 0
        self._stream: IO[bytes] = request.environ["wsgi.input"]
        if self._length is None and not request.environ.get("wsgi.input_terminated"):
            self._length = 0  # PEP 3333: without a length there is no telling where the body ends
        if self._length is not None and self._length > max_bytes:
            raise self._too_large(f"announces {self._length:,} bytes")

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end of the body."""
        left = (self._max_bytes + 1 if self._length is None else self._length) - self._read
        if left <= 0:
            return b""
        data = self._take(min(size, left))
        self._read += len(data)
        if not data and self._length is not None:
            raise problems.IncompleteBody(
                f"The body ended after {self._read:,} of its announced {self._length:,} bytes. Send it again."
            )
        if self._read > self._max_bytes:
            raise self._too_large(f"has more than {self._max_bytes:,} bytes")
        return data

    def _take(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except TimeoutError as error:
            raise problems.SlowBody(
                f"The upload did not arrive in time ({self._read:,} bytes did). "
                "Use a faster connection, or a smaller image."
            ) from error
        except Exception as error:  # each WSGI server has exceptions of its own for a broken body
            raise problems.IncompleteBody(
                f"The body broke off or broke its own framing after {self._read:,} bytes. Send it again."
            ) from error

    def _too_large(self, what: str) -> problems.TooManyBytes:
        return problems.TooManyBytes(
            f"The request {what}; {self._max_bytes:,} is the limit. Send a smaller image, or save it as JPEG or WebP.",
            max_bytes=self._max_bytes,
        )
