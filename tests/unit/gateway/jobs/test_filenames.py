"""Names of uploads stay readable in every script, and hostile names become harmless."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.filenames import MAX_NAME_BYTES, MAX_STEM_BYTES, fit_name, safe_stem

SCRIPTS = {
    "Hindi": "मेरी_फोटो",
    "Thai": "กิน",
    "vowelled Arabic": "صُورَة",
    "Vietnamese": "Ảnh_đẹp",
    "Japanese": "がぎ",
    "Korean": "사진",
    "Hebrew with points": "שָׁלוֹם",
    "Tamil": "புகைப்படம்",
    "Persian with ZWNJ": "می\u200c\u062e\u0648\u0627\u0647\u0645",
    "Bengali with ZWJ": "র\u200d্যাব",
    "emoji of several parts": "👩\u200d👩\u200d👧",
    "flag": "🇻🇳",
    "brackets": "「写真」",
    "math": "x²≤½",
}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_kept_in_nfc(name: str, form: str) -> None:
    stem = SCRIPTS[name]
    sent = unicodedata.normalize(form, stem)  # type: ignore[arg-type]
    assert safe_stem(f"{sent}.png") == unicodedata.normalize("NFC", stem)


def test_names_that_differ_in_marks_or_symbols_stay_different() -> None:
    for one, other in (("กิน", "กัน"), ("がぎ", "かき"), ("صُورَة", "صورة"), ("😀", "😎"), ("é", "e")):
        assert safe_stem(f"{one}.png") != safe_stem(f"{other}.png")


@pytest.mark.parametrize(
    ("sent", "stem"),
    [
        ("evil\r\nSet-Cookie: a=1.png", "evil_Set-Cookie_a_1"),
        ("a\0b\x7f\x85c.png", "a_b_c"),
        ("gpj.\u202egnp.exe", "gpj._gnp"),
        ("a\u2066b\u2069\u200e\u200f\u061cc.png", "a_b_c"),
        ("a\u200bb\ufeffc\u00add.png", "a_b_c_d"),
        ("a\u2028b\u2029c\u00a0d\u3000e.png", "a_b_c_d_e"),
        ("a\uff0fb\uff3cc\u2100d.png", "a_b_c_d"),
        ("a\uff1ab\uff0ac\uff02.png", "a_b_c"),
        ("a\ud800b\ue000c\U000e0041d.png", "a_b_c_d"),
        ("..\\..\\x/../etc/passwd", "passwd"),
        ("CON.png", "CON_"),
        ("con.a.png", "con_.a"),
        ("LPT1.png", "LPT1_"),
        ("com\u00b9.png", "com\u00b9_"),
        ("console.png", "console"),
        ("nul", "nul_"),
        ('<>:"|?*.png', "image"),
        ("$(reboot)`id`.png", "reboot_id"),
        ("\u200d\u200c.png", "image"),
    ],
)
def test_hostile_name_becomes_harmless(sent: str, stem: str) -> None:
    assert safe_stem(sent) == stem


@given(st.text(max_size=400))
def test_any_name_is_safe(sent: str) -> None:
    stem = safe_stem(sent)
    assert stem
    assert len(stem.encode()) <= MAX_STEM_BYTES + 1
    assert not set(stem) & set('/\\:*?"<>|\r\n\0 %;')
    assert not stem.startswith(".")
    assert stem == unicodedata.normalize("NFC", stem)
    assert all(unicodedata.category(each) not in ("Cc", "Cs", "Co", "Cn", "Zs", "Zl", "Zp") for each in stem)


@given(st.text(max_size=400), st.sampled_from(["_compact_x4.png", "_x" * 40 + ".webp"]))
def test_name_fits_and_keeps_its_ending(stem: str, ending: str) -> None:
    stem = stem.encode("utf-8", "ignore").decode()
    name = fit_name(stem, ending)
    assert len(os.fsencode(name)) <= MAX_NAME_BYTES
    assert name.endswith(ending)
    assert stem.startswith(name.removesuffix(ending))


def test_long_name_does_not_take_long() -> None:
    assert safe_stem("a\u0301" * 5_000_000 + ".png") == "á" * 80
    assert len(fit_name("a" * 5_000_000, ".png")) <= MAX_NAME_BYTES
