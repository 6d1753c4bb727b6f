"""gateway.config.rates: the text of rates and how messages word them."""

from __future__ import annotations

import pytest

from gateway.config.rates import describe_rate, parse_rates

HOW_TO_WRITE = 'write it as "60 per minute" or "10 per 30 seconds; 500 per day", or "none" for no limit'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("60 per minute", "60 requests per minute"),
        ("1 per 10 seconds", "1 request per 10 seconds"),
        ("1000 per 2 hours", "1,000 requests per 2 hours"),
        ("5/60 second", "5 requests per minute"),
        ("7 per month", "7 requests per 30 days"),
    ],
)
def test_rate_is_described_in_words(text: str, words: str) -> None:
    [rate] = parse_rates(text)

    assert describe_rate(rate, "requests") == words


def test_text_may_contain_several_rates() -> None:
    assert [describe_rate(rate) for rate in parse_rates("60 per minute; 500 per day")] == [
        "60 per minute",
        "500 per day",
    ]


@pytest.mark.parametrize("text", ["none", " None ", "", " "])
def test_none_and_an_empty_text_mean_no_limit(text: str) -> None:
    assert parse_rates(text) == []


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("many", f"Invalid rate 'many': {HOW_TO_WRITE}"),
        ("none; 500 per day", f"Invalid rate 'none; 500 per day': {HOW_TO_WRITE}"),
        ("0 per minute", "Invalid rate '0 per minute': the amount must be between 1 and 100,000, not 0"),
        ("200000 per day", "Invalid rate '200000 per day': the amount must be between 1 and 100,000, not 200,000"),
        ("1 per 2 years", "Invalid rate '1 per 2 years': the maximum period is 366 days"),
    ],
)
def test_invalid_rate_raises_with_an_explanation(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=r"^Invalid rate") as caught:
        parse_rates(text)

    assert str(caught.value) == error
