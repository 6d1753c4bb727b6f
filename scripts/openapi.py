"""Write gateway/openapi.json, which the gateway serves, from gateway/openapi.yaml: ``python -m scripts.openapi``.

The gateway has no YAML parser, and the source leaves out what every response and problem has. The comment at its top
says what is added here.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

import yaml

import gateway.app  # noqa: F401 - defines every class of problems
from gateway.problems import TYPE_PREFIX, Problem, all_problems
from gateway.views.api_description import DOCUMENT

SOURCE = DOCUMENT.with_suffix(".yaml")

_REQUEST_ID = "9f1c52a07be34d16"
_RESPONSES = "#/components/responses/"


def build_document(source: str) -> dict[str, Any]:
    """Return the OpenAPI document for the text of the source."""
    document: dict[str, Any] = yaml.safe_load(source)
    components = document["components"]
    components["examples"] = _describe_problems(document.pop("x-problem-details"))
    responses = list(_find_responses(document))
    components["responses"] = _select_responses(components["responses"], [one.get("$ref", "") for one in responses])
    for response in (*components["responses"].values(), *responses):
        if "$ref" not in response:
            _complete(response)
    for parameter in components["parameters"].values():
        if name := parameter["schema"].get("$ref", "").rpartition("/")[2]:
            parameter.setdefault("description", components["schemas"][name]["description"])
    return document


def format_document(document: dict[str, Any]) -> str:
    """Return the document as the text of gateway/openapi.json."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _describe_problems(details: dict[str, str]) -> dict[str, Any]:
    """Return an Example Object for each problem, by slug."""
    kinds = {kind.slug: kind for kind in all_problems()}
    return {slug: _describe_problem(kinds[slug], detail) for slug, detail in details.items()}


def _describe_problem(kind: type[Problem], detail: str) -> dict[str, Any]:
    body = {
        "type": f"{TYPE_PREFIX}{kind.slug}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "request_id": _REQUEST_ID,
    }
    meaning = " ".join((inspect.getdoc(kind) or "").split())
    return {"summary": kind.title, "description": meaning, "value": body}


def _find_responses(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each response of each operation: its description or a reference to it."""
    for item in document["paths"].values():
        for operation in item.values():
            if isinstance(operation, dict):  # not the parameters of a path
                yield from operation["responses"].values()


def _select_responses(responses: dict[str, Any], references: list[str]) -> dict[str, Any]:
    """Return the responses that operations refer to, of which `NamePage` is `Name` whose problems may be a page."""
    selected = {}
    for name in dict.fromkeys(reference.removeprefix(_RESPONSES) for reference in references if reference):
        selected[name] = dict(responses[name if name in responses else name.removesuffix("Page")])
        if name not in responses:
            selected[name]["content"] = {"text/html": {"schema": {"type": "string"}}}
    return selected


def _complete(response: dict[str, Any]) -> None:
    """Add the headers of every response, and the body of a problem."""
    headers = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}, **response.pop("headers", {})}
    content = response.pop("content", {})
    if slugs := response.pop("x-problems", ()):
        content = {
            **content,
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {slug: {"$ref": f"#/components/examples/{slug}"} for slug in slugs},
            },
        }
    response |= {"headers": headers} | ({"content": content} if content else {})


if __name__ == "__main__":
    DOCUMENT.write_text(format_document(build_document(SOURCE.read_text())))
