"""Sentences of the gateway in German, with their numbers and units."""

from __future__ import annotations

import pytest

from gateway.languages.catalogue import catalogue


@pytest.mark.parametrize(
    ("english", "german"),
    [
        (
            "The queue is full (24 images waiting). Try again in 30 seconds.",
            "Die Warteschlange ist voll (wartend: 24 Bilder). Versuchen Sie es in 30 Sekunden noch einmal.",
        ),
        (
            "The upload has 30,000,000 bytes; 20,971,520 is the limit. Send a smaller image.",
            "Die Datei hat 30.000.000 Byte; die Grenze ist 20.971.520. Senden Sie ein kleineres Bild.",
        ),
        (
            "Looks like a worn JPEG (JPEG quality 40): compact_real_x4.",
            "Sieht aus wie ein stark komprimiertes JPEG (JPEG-Qualität 40): compact_real_x4.",
        ),
        (
            "Looks like a worn photo (WebP with a quantiser of 52 of 127): compact_real_x4.",
            "Sieht aus wie ein stark komprimiertes Foto (WebP mit einem Quantisierer von 52 von 127): compact_real_x4.",
        ),
        (
            "Looks like a soft photo (it has no sharp edge): compact_real_x4.",
            "Sieht aus wie ein unscharfes Foto (es hat keine scharfe Kante): compact_real_x4.",
        ),
        (
            (
                "Strength 0.29, because the JPEG damage is weak (quality 93): the result is a mix of 29 % restored and "
                "71 % original."
            ),
            (
                "Stärke 0,29, denn der JPEG-Schaden ist gering (Qualität 93): Das Ergebnis mischt 29 % Bearbeitetes "
                "mit 71 % Original."
            ),
        ),
        (
            "Strength 0, because no noise was found: the result is the original.",
            "Stärke 0, denn es wurde kein Rauschen gefunden: Das Ergebnis ist das Original.",
        ),
        (
            (
                "Strength 0.6, because the noise is weak (about 3 levels): the result is a mix of 60 % restored and "
                "40 % original."
            ),
            (
                "Stärke 0,6, denn das Rauschen ist schwach (etwa 3 Stufen): Das Ergebnis mischt 60 % Bearbeitetes mit "
                "40 % Original."
            ),
        ),
        (
            "Not in the result: EXIF (location, thumbnail), XMP, text.",
            "Nicht im Ergebnis: EXIF (Ort, Vorschaubild), XMP, Text.",
        ),
        (
            "Try new ones again from 1 December 2026 (UTC).",
            "Neue lassen sich ab dem 1. Dezember 2026 (UTC) wieder vergrößern.",
        ),
    ],
)
def test_sentences_are_translated_with_their_values(english: str, german: str) -> None:
    assert catalogue("de").sentence(english) == german
    assert catalogue("en").sentence(english) == english


def test_detail_without_translation_is_replaced_by_a_general_one() -> None:
    title, detail = catalogue("de").problem("unreadable-image", "Unreadable image", "Corrupt PNG: chunk IDAT is cut.")

    assert title == "Bild nicht lesbar"
    assert detail.startswith("Die Datei ist beschädigt")


def test_note_without_translation_is_marked_as_english() -> None:
    assert catalogue("de").note("Something new was done.") == "Nur auf Englisch: „Something new was done.“"
    assert catalogue("en").note("Something new was done.") == "Something new was done."


def test_plurals_and_numbers_follow_the_language() -> None:
    assert catalogue("en").text("wait.ahead", count=1) == "In the queue: 1 image is ahead of yours."
    assert catalogue("de").text("wait.ahead", count=2) == "In der Warteschlange: 2 Bilder sind vor Ihrem an der Reihe."
    assert catalogue("de").text("limits.side", side=8192) == "höchstens 8.192\N{NO-BREAK SPACE}Pixel pro Seite."
