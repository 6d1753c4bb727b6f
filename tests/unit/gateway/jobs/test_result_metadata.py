"""`metadata=keep` reaches the result by every way in, and results say how they were made."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from PIL import Image as PilImage
from PIL.ExifTags import IFD, Base

from gateway import problems
from gateway.backend import embedded
from gateway.cli import upscale as upscale_command
from gateway.config.settings import Settings
from gateway.jobs.options import make_request, parse_options
from gateway.jobs.output_options import FORMATS
from gateway.jobs.result_cache import cache_key
from gateway.jobs.result_metadata import describe_origin
from preprocessing.codec import FORMAT_NAMES, OutputFormat
from swinir.auto import NEAREST
from swinir.zoo import VARIANTS, find_variant
from testing import images
from testing.backend import FakeBackend
from testing.fixtures import MakeApp
from testing.jobs import SETTINGS, make_runner, upscale_request
from testing.metadata_images import PHOTO, full_jpeg, xmp_packet
from testing.requests import form, post_image, read_events

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
SOFTWARE = f"Serverless SuperRes {version('serverless-superres')}"
ENHANCED = {"Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE + "algorithmicallyEnhanced"}


def upscale(data: bytes, settings: Settings = SETTINGS, **parameters: str) -> Any:
    request = make_request(data, "photo.jpg", parse_options(parameters, settings), settings)
    return make_runner(FakeBackend()).run(request, "id")


def open_result(data: bytes) -> Any:
    return PilImage.open(BytesIO(data))


def provenance(data: bytes) -> dict[str, str]:
    """Return the properties of XMP that say how a result was made."""
    xmp = open_result(data).info.get("xmp", b"")
    text = xmp if isinstance(xmp, str) else xmp.decode()
    return dict(re.findall(r'(Iptc4xmpExt:\w+|xmp:CreatorTool)="([^"]*)"', text))


@pytest.mark.parametrize("text", ["all", "KEEP", "1", "keep ", "k" * 90])
def test_invalid_metadata_is_rejected_with_the_allowed_values(text: str) -> None:
    with pytest.raises(problems.BadParameter) as caught:
        parse_options({"metadata": text}, SETTINGS)
    assert caught.value.detail == f"Invalid metadata {text[:40]!r}. Allowed: strip, keep."
    assert caught.value.extensions == {"parameter": "metadata", "allowed": ["strip", "keep"]}


def test_metadata_is_stripped_by_default() -> None:
    choices: tuple[dict[str, str], ...] = ({}, {"metadata": ""}, {"metadata": "strip"})
    for choice in choices:
        result = upscale(full_jpeg(), SETTINGS, format="jpeg", **choice)
        assert set(open_result(result.data).getexif()) == set()
        assert result.notes == ("Not in the result: EXIF (location), XMP, IPTC, text.",)


@pytest.mark.parametrize("format_", FORMATS)
def test_kept_metadata_describes_the_result(format_: OutputFormat) -> None:
    result = upscale(full_jpeg(6), format=format_, metadata="keep")
    exif = open_result(result.data).getexif()
    assert (exif[Base.Make], exif[Base.Orientation]) == ("Maker", 1)
    assert exif.get_ifd(IFD.Exif)[Base.ExifImageWidth] == result.width == 96
    assert exif.get_ifd(IFD.GPSInfo)
    assert result.notes == (
        (f"{FORMAT_NAMES[format_]} cannot hold IPTC and text of the upload: not in the result.",)
        if format_ in ("webp", "avif")
        else ()
    )


def test_api_form_and_command_line_keep_metadata(
    client: FlaskClient, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = full_jpeg()
    query = post_image(client, key, data, query="?format=jpeg&metadata=keep")
    page = client.post("/", **form(data, format="jpeg", metadata="keep"), headers={"Accept": "text/event-stream"})
    monkeypatch.setattr(embedded, "make_backend", lambda *_: FakeBackend())
    source, target = tmp_path / "photo.jpg", tmp_path / "out.jpg"
    source.write_bytes(data)
    upscale_command.run(Settings(state_dir=str(tmp_path)), [source, target], {"metadata": "keep"})

    assert b"Maker" in query.data
    assert query.headers.get("X-Superres-Notes") is None
    assert b"Maker" in client.get(read_events(page.data)[-1][1]["url"]).data
    assert b"Maker" in target.read_bytes()


def test_kept_and_stripped_results_are_never_exchanged_by_the_cache(make_app: MakeApp, key: str) -> None:
    client = make_app(cache_max_bytes=10**6).test_client()
    keys = {choice: cache_key(upscale_request(metadata=choice)) for choice in ("strip", "keep")}
    assert len({*keys.values()}) == 2
    assert cache_key(upscale_request()) == keys["strip"]
    responses = [
        post_image(client, key, full_jpeg(), query=f"?metadata={choice}") for choice in ("keep", "strip", "keep")
    ]
    assert [b"Maker" in response.data for response in responses] == [True, False, True]
    assert [response.headers["X-Superres-Cache"] for response in responses] == ["miss", "miss", "hit"]


@pytest.mark.parametrize("metadata", ["strip", "keep"])
@pytest.mark.parametrize("format_", FORMATS)
def test_result_says_how_it_was_made(format_: str, metadata: str) -> None:
    result = upscale(full_jpeg(), format=format_, metadata=metadata, variant="compact_x4")
    assert provenance(result.data) == {**ENHANCED, "xmp:CreatorTool": f"{SOFTWARE} (compact_x4)"}


@pytest.mark.parametrize("format_", FORMATS)
def test_result_with_invented_texture_says_so(format_: str) -> None:
    assert provenance(upscale(full_jpeg(), format=format_, variant="real_x4").data) == {
        "Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE + "compositeWithTrainedAlgorithmicMedia",
        "Iptc4xmpExt:AISystemUsed": "Serverless SuperRes, real_x4",
        "Iptc4xmpExt:AISystemVersionUsed": version("serverless-superres"),
        "xmp:CreatorTool": f"{SOFTWARE} (real_x4)",
    }


def test_source_type_follows_the_variant() -> None:
    found = {name: origin.source_type for name, row in VARIANTS.items() if (origin := describe_origin(row))}
    inventing = {name for name, term in found.items() if term == "compositeWithTrainedAlgorithmicMedia"}
    assert inventing == {"compact_photo_x4", "real_x2", "real_x4", "real_large_x4"}
    assert {found[name] for name in found.keys() - inventing} == {"algorithmicallyEnhanced"}
    imported = replace(find_variant("real_x4_psnr"), is_imported=True, notice="Invents texture.")
    origin = describe_origin(imported)
    assert origin is not None
    assert origin.invents_texture
    assert describe_origin(NEAREST) is None


def test_repeated_pixels_need_no_provenance() -> None:
    settings = replace(SETTINGS, variants="nearest_x4", default_variant="nearest_x4")
    assert provenance(upscale(full_jpeg(), settings).data) == {}


@pytest.mark.parametrize("metadata", ["strip", "keep"])
def test_provenance_can_be_turned_off(metadata: str) -> None:
    settings = replace(SETTINGS, provenance="off")
    result = upscale(full_jpeg(), settings, format="png", metadata=metadata)
    assert provenance(result.data) == {}
    assert ("xmp" in open_result(result.data).info) == (metadata == "keep")
    with pytest.raises(ValueError, match="provenance"):
        Settings(provenance="no")


@pytest.mark.parametrize("metadata", ["strip", "keep"])
@pytest.mark.parametrize("term", ["trainedAlgorithmicMedia", "compositeSynthetic"])
def test_label_of_an_upload_made_by_a_model_stays(term: str, metadata: str) -> None:
    packet = xmp_packet(
        f"<e:DigitalSourceType>{SOURCE_TYPE}{term}</e:DigitalSourceType>",
        namespaces='xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"',
    )
    data = images.encode_jpeg(PHOTO, xmp=packet)
    result = upscale(data, metadata=metadata)
    assert provenance(result.data)["Iptc4xmpExt:DigitalSourceType"] == SOURCE_TYPE + term
    assert result.data.count(b"DigitalSourceType") == 1


@pytest.mark.parametrize("format_", FORMATS)
def test_equal_requests_give_equal_bytes(format_: str) -> None:
    assert len({upscale(full_jpeg(), format=format_, metadata="keep").data for _ in range(2)}) == 1
