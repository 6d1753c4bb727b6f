"""The OpenAPI document as JSON, YAML and a page, with the version, the path prefix and problem types of this gateway.

gateway/openapi.json is made from gateway/openapi.yaml by scripts/openapi.py.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import re
from collections.abc import Iterator
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, render_template, request
from markupsafe import Markup, escape

blueprint = Blueprint("api_description", __name__)

DOCUMENT = Path(__file__).resolve().parents[1] / "openapi.json"

# Keys that YAML reads as strings without quotes; no key of the document is a word such as `null` or `yes`.
_PLAIN_KEY = re.compile(r"[A-Za-z$/_][A-Za-z0-9$/_.{}+*-]*")


@blueprint.get("/api/openapi.json")
def openapi_json() -> Response:
    """Return the OpenAPI document as JSON."""
    # Not sorted by name: generators take the first media type that they know.
    return Response(json.dumps(describe_api(request.script_root)), mimetype="application/json")


@blueprint.get("/api/openapi.yaml")
def openapi_yaml() -> Response:
    """Return the OpenAPI document as YAML."""
    return Response(format_yaml(describe_api(request.script_root)), mimetype="application/yaml")


@blueprint.get("/docs")
def docs() -> str:
    """Show the OpenAPI document as a page: plain HTML, because viewers in JavaScript weigh 0.9 to 3.6 MB."""
    return _render_docs(request.script_root)


@lru_cache(maxsize=4)
def _render_docs(base_path: str) -> str:
    """Return the page: 134 KB, which take some 50 ms to render."""
    document = describe_api(base_path)

    def resolve(node: dict[str, Any]) -> dict[str, Any]:
        found: Any = document
        if "$ref" not in node:
            return node
        for part in node["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return {"name": part, **found}

    return render_template(
        "api_docs.html",
        document=document,
        groups=_group_operations(document),
        resolve=resolve,
        text=_format_text,
        format_json=partial(json.dumps, indent=1, ensure_ascii=False),
    )


def _group_operations(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the operations of each tag, with path, method and all parameters."""
    groups: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, item in document["paths"].items():
        shared = item.get("parameters", [])
        for method, operation in item.items():
            if method != "parameters":
                parameters = [*shared, *operation.get("parameters", [])]
                groups[operation["tags"][0]].append(
                    {**operation, "path": path, "method": method.upper(), "parameters": parameters}
                )
    return groups


def _format_text(text: str) -> Markup:
    """Return a description as HTML: paragraphs, and code between backticks."""
    paragraphs = (
        Markup("").join(
            Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
            for index, part in enumerate(paragraph.split("`"))
        )
        for paragraph in text.strip().split("\n\n")
    )
    return Markup("").join(Markup("<p>{}</p>").format(paragraph) for paragraph in paragraphs)


def describe_api(base_path: str) -> dict[str, Any]:
    """Return the OpenAPI document of a gateway that a proxy publishes under a path prefix; empty for none."""
    document = copy.deepcopy(_read_document())
    document["info"]["version"] = importlib.metadata.version("serverless-superres")
    if base_path:
        document["servers"][0]["url"] = base_path
        for example in document["components"]["examples"].values():
            example["value"]["type"] = f"{base_path}{example['value']['type']}"
    return document


@cache
def _read_document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return document


def format_yaml(document: dict[str, Any]) -> str:
    """Return JSON data as YAML in block style. Strings are JSON's, which YAML 1.2 reads as they are."""
    return "\n".join(_lines(document, 0)) + "\n"


def _lines(value: Any, depth: int) -> Iterator[str]:
    """Yield the lines of a mapping or a list that is not empty."""
    pairs = (
        ((f"{_key(key)}:", member) for key, member in value.items())
        if isinstance(value, dict)
        else (("-", member) for member in value)
    )
    for head, member in pairs:
        if isinstance(member, dict | list) and member:
            yield f"{'  ' * depth}{head}"
            yield from _lines(member, depth + 1)
        else:
            yield f"{'  ' * depth}{head} {json.dumps(member, ensure_ascii=False)}"


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else json.dumps(key)
