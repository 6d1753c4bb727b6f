"""Webhooks over HTTP: the check of the parameter `webhook`, and the public keys that receivers verify messages with."""

from __future__ import annotations

import logging

from flask import Blueprint, Response, jsonify

from gateway.problems import BadParameter
from gateway.services import services
from gateway.views.hooks import request_id
from gateway.webhooks.destination import WebhookUrlError
from gateway.webhooks.keys import WebhookKeyError

blueprint = Blueprint("webhooks", __name__)

# Seconds for which a receiver may keep the keys. During a rotation both keys sign for longer than this.
KEYS_MAX_AGE_S = 300

_log = logging.getLogger(__name__)


@blueprint.get("/.well-known/jwks.json")
def public_keys() -> Response:
    """Return the public keys that sign webhooks as a JSON Web Key Set; an empty one if no webhooks are sent."""
    response = jsonify({"keys": services().webhook_sender.public_keys()})
    response.headers["Cache-Control"] = f"public, max-age={KEYS_MAX_AGE_S}"
    return response


def check_webhook(url: str, *, is_async: bool) -> str:
    """Return the URL that a request names for its webhook; empty for none. Raises BadParameter."""
    if not url:
        return ""
    if not is_async:
        raise BadParameter(
            "The parameter `webhook` needs the header `Prefer: respond-async`: without it the response is the result.",
            parameter="webhook",
        )
    try:
        services().webhook_sender.check(url)
    except WebhookUrlError as error:
        raise BadParameter(f"Invalid webhook URL: {error}.", parameter="webhook") from None
    except WebhookKeyError as error:
        _log.warning("%s: webhooks are off: %s", request_id(), error)
        raise BadParameter(
            "This service sends no webhooks. Send the request without `webhook` and ask the job for its state.",
            parameter="webhook",
        ) from None
    return url
