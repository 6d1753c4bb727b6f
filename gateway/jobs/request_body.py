"""Parses the request body of an upload: extracts the image and the options, within every limit and without decoding.

A body is multipart with a field `image`, or the image itself. The announced length is checked first, the first bytes
next, and nothing beyond the limit is read or kept. Nothing is written to disk. The time limit is that of the socket
(`gateway.wsgi.timeouts`), which raises TimeoutError here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any, TypeAlias, cast

from flask import Request
from werkzeug.datastructures import FileStorage, MultiDict
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from gateway import problems
from gateway.config.settings import Settings
from gateway.jobs.filenames import safe_stem
from gateway.jobs.limits import accepted_formats
from gateway.jobs.options import (
    PARAMETERS,
    UpscaleOptions,
    UpscaleRequest,
    make_request,
    parse_options,
    reject_early,
)
from preprocessing.codec import describe_formats

IMAGE_FIELD = "image"
# The image, the token and every parameter.
MAX_FORM_PARTS = 24

# Maximum size of a text field. Werkzeug's parser buffers 64 KiB at a time and rejects a larger buffer than this.
MAX_FIELD_BYTES = 131_072

# Boundaries, part headers and text fields, in addition to `max_upload_bytes`.
FORM_OVERHEAD_BYTES = 65_536

# Checked before the rest is read. It contains the header of nearly every image.
FIRST_BYTES = 65_536

READ_BYTES = 65_536


Fields: TypeAlias = dict[str, str]
"""Parameters by name."""


def read_upscale_request(
    request: Request, settings: Settings, *, take_extra_fields: Callable[[Fields], None] = lambda _: None
) -> UpscaleRequest:
    """Read the image and the options of a request; raise a Problem at the first check that fails.

    `take_extra_fields` removes the fields that are not upscale options, such as the form's token, from the parameters.
    """
    query = _single_values(request.args)
    if request.mimetype == "multipart/form-data":
        files, fields = _read_form(request, settings)
        image = _find_image(files, fields, settings)
        parameters = _merge(query, _single_values(fields))
        take_extra_fields(parameters)
        options = parse_options(parameters, settings)
        return make_request(_buffer(image).getvalue(), image.filename or "", options, settings)
    take_extra_fields(query)
    options = parse_options(query, settings)
    return make_request(_read_raw(request, options, settings), "", options, settings)


@dataclass(frozen=True)
class SentImage:
    """One of several images of a request: what to upscale, or why it is rejected."""

    stem: str
    request: UpscaleRequest | None
    problem: problems.Problem | None


def read_images(
    request: Request, settings: Settings, *, take_extra_fields: Callable[[Fields], None] = lambda _: None
) -> list[SentImage]:
    """Read the images of a form and the options for all of them; raise a Problem for what concerns the whole request.

    An invalid image has its problem, and the others are read all the same. All together have at most
    `max_upload_bytes`.
    """
    if request.mimetype != "multipart/form-data":
        raise problems.MissingImage(
            f"A ZIP needs a form with the images as fields `{IMAGE_FIELD}`, as curl -F sends it."
        )
    files, fields = _read_form(request, settings, settings.max_images)
    found = _find_images(files, fields, settings)
    if len(found) > settings.max_images:
        raise problems.TooLarge(
            f"The form has {len(found)} images; the maximum is {settings.max_images}. Send several requests.",
            max_images=settings.max_images,
        )
    parameters = _merge(_single_values(request.args), _single_values(fields))
    take_extra_fields(parameters)
    options = parse_options(parameters, settings)
    sent = [_make_image(file, options, settings) for file in found]
    pixels = sum(image.request.pixels for image in sent if image.request)
    if pixels > settings.max_images_pixels:
        raise problems.TooManyPixels(
            f"The {len(sent)} images have {pixels:,} pixels; the maximum for one request is "
            f"{settings.max_images_pixels:,}. Send fewer images in one request.",
            max_pixels=settings.max_images_pixels,
        )
    return sent


def _read_raw(request: Request, options: UpscaleOptions, settings: Settings) -> bytes:
    body = _BoundedBody(request, settings.max_upload_bytes)
    upload = _UploadBuffer(options, settings)
    while data := body.read(READ_BYTES):
        upload.write(data)
    return upload.getvalue()


def _make_image(file: FileStorage, options: UpscaleOptions, settings: Settings) -> SentImage:
    buffer, filename = _buffer(file), file.filename or ""
    try:
        if buffer.problem:
            raise buffer.problem
        request = make_request(buffer.getvalue(), filename, options, settings)
    except problems.Problem as problem:
        return SentImage(safe_stem(filename), None, problem)
    return SentImage(request.stem, request, None)


def _merge(query: Fields, fields: Fields) -> Fields:
    if both := query.keys() & fields.keys():
        raise problems.BadParameter(
            f"The parameter {min(both)[:40]!r} is in both the form and the query string. Send it once."
        )
    return {**query, **fields}


def _read_form(
    request: Request, settings: Settings, max_images: int = 1
) -> tuple[MultiDict[str, FileStorage], MultiDict[str, str]]:
    """Return the files of a form, whose streams are upload buffers, and its text fields."""
    body = _BoundedBody(request, settings.max_upload_bytes + FORM_OVERHEAD_BYTES)
    max_parts = MAX_FORM_PARTS + (max_images if max_images > 1 else 0)

    def keep_in_memory(
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        del total_content_length, content_type, filename, content_length  # the client's claims; the body is counted
        return _UploadBuffer(None, settings, keeps_problem=max_images > 1)  # the options may follow

    parser = FormDataParser(
        stream_factory=keep_in_memory, max_form_memory_size=MAX_FIELD_BYTES, max_form_parts=max_parts, silent=False
    )
    try:
        _, fields, files = parser.parse(
            cast("IO[bytes]", body), request.mimetype, request.content_length, request.mimetype_params
        )
    except RequestEntityTooLarge as error:
        raise problems.MalformedForm(
            f"The form has more than {max_parts} parts or a text field over {MAX_FIELD_BYTES:,} bytes. "
            f"Send one file, `{IMAGE_FIELD}`, and the fields {', '.join(PARAMETERS)}."
        ) from error
    except ValueError as error:
        raise problems.MalformedForm(
            f"Invalid multipart body ({str(error)[:80]}). Send it as browsers and curl -F do."
        ) from error
    if None in fields or None in files:  # what the parser makes of a part without a name
        raise problems.MalformedForm(
            f"A part of the form has no name. Name the image `{IMAGE_FIELD}`, as browsers and curl -F do."
        )
    while body.read(READ_BYTES):  # the epilogue, bounded like the rest
        pass
    return files, fields


def _find_image(files: MultiDict[str, FileStorage], fields: MultiDict[str, str], settings: Settings) -> FileStorage:
    sent = _find_images(files, fields, settings)
    if len(sent) > 1:
        raise problems.MissingImage(
            f"The form has {len(sent)} images. Send one per request. The API also takes several, with the header "
            "`Accept: application/zip`, and responds with a ZIP."
        )
    return sent[0]


def _find_images(
    files: MultiDict[str, FileStorage], fields: MultiDict[str, str], settings: Settings
) -> list[FileStorage]:
    sent = list(files.items(multi=True))
    for name, _ in sent:
        if name != IMAGE_FIELD:
            raise problems.MalformedForm(f"Unknown file field {name[:40]!r}. Name the image `{IMAGE_FIELD}`.")
    if IMAGE_FIELD in fields:
        raise problems.MissingImage(f"The field `{IMAGE_FIELD}` holds text. Send a file (curl -F {IMAGE_FIELD}=@FILE).")
    if not sent or (len(sent) == 1 and not sent[0][1].filename and not _buffer(sent[0][1]).getvalue()):
        raise problems.MissingImage(
            f"No image was chosen. Choose a {describe_formats(accepted_formats(settings))}; in a program, send it as "
            f"the file field `{IMAGE_FIELD}`."
        )
    return [file for _, file in sent]


def _buffer(file: FileStorage) -> _UploadBuffer:
    return cast("_UploadBuffer", file.stream)


def _single_values(values: MultiDict[str, str]) -> dict[str, str]:
    """Return values by name; raise BadParameter for a name that occurs more than once."""
    for name, occurrences in values.lists():
        if len(occurrences) > 1:
            raise problems.BadParameter(f"The parameter {name[:40]!r} occurs {len(occurrences)} times. Send it once.")
    return values.to_dict()


class _UploadBuffer(BytesIO):
    """Collects an upload and raises a Problem as soon as its first bytes show that it will be rejected.

    With `keeps_problem` it keeps the problem instead and drops the bytes, so that the images behind it are read.
    """

    def __init__(self, options: UpscaleOptions | None, settings: Settings, *, keeps_problem: bool = False) -> None:
        super().__init__()
        self.problem: problems.Problem | None = None
        self._keeps_problem = keeps_problem
        self._options = options
        self._settings = settings
        self._is_checked = False

    def write(self, data: Any, /) -> int:  # the buffer protocol has no public type before Python 3.12
        if self.problem:
            return len(data)
        written = super().write(data)
        if not self._is_checked and self.tell() >= FIRST_BYTES:
            self._is_checked = True
            try:
                reject_early(self.getvalue(), self._options, self._settings)
            except problems.Problem as problem:
                if not self._keeps_problem:
                    raise
                self.problem = problem
                self.seek(0)
                self.truncate()
        return written


class _BoundedBody:
    """A request body that cannot be read beyond the limit. Every failure is a Problem."""

    def __init__(self, request: Request, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._length = request.content_length
        self._read = 0
        self._stream: IO[bytes] = request.environ["wsgi.input"]
        if self._length is None and not request.environ.get("wsgi.input_terminated"):
            self._length = 0  # PEP 3333: without a length, the end of the body is unknown
        if self._length is not None and self._length > max_bytes:
            raise self._too_large(f"announces {self._length:,} bytes")

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end of the body."""
        remaining = (self._max_bytes + 1 if self._length is None else self._length) - self._read
        if remaining <= 0:
            return b""
        data = self._read_stream(min(size, remaining))
        self._read += len(data)
        if not data and self._length is not None:
            raise problems.IncompleteBody(
                f"The body ended after {self._read:,} of {self._length:,} announced bytes. Send it again."
            )
        if self._read > self._max_bytes:
            raise self._too_large(f"has more than {self._max_bytes:,} bytes")
        return data

    def _read_stream(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except TimeoutError as error:
            raise problems.SlowBody(
                f"The upload did not arrive in time ({self._read:,} bytes did). "
                "Use a faster connection, or a smaller image."
            ) from error
        except Exception as error:  # each WSGI server has its own exceptions for a broken body
            raise problems.IncompleteBody(
                f"The upload was interrupted or malformed after {self._read:,} bytes. Send it again."
            ) from error

    def _too_large(self, excess: str) -> problems.TooManyBytes:
        return problems.TooManyBytes(
            f"The request {excess}; the maximum is {self._max_bytes:,}. "
            "Upload a smaller image, or save it as JPEG or WebP.",
            max_bytes=self._max_bytes,
        )
