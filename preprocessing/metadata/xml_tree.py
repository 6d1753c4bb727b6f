"""XML with namespaces as a small tree: read within limits, written again. For XMP.

A document type, and so any entity, is refused: nothing expands.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

_MAX_DEPTH = 60
_MAX_ELEMENTS = 10_000
_XML = "http://www.w3.org/XML/1998/namespace"

Name = tuple[str, str]
"""Namespace and local name of an element or an attribute."""


class XmlError(ValueError):
    """The text is not well-formed, or over a limit."""


@dataclass(eq=False)
class Node:
    """An element: its name, its attributes, and in order its texts and elements."""

    name: Name
    attributes: dict[Name, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    def elements(self) -> Iterator[Node]:
        """Yield the elements directly below this one."""
        return (child for child in self.children if isinstance(child, Node))

    def walk(self) -> Iterator[Node]:
        """Yield this element and all below it, in the order of the document."""
        yield self
        for child in self.elements():
            yield from child.walk()


def parse_xml(data: bytes) -> tuple[Node, dict[str, str]]:
    """Return the root element and the prefix of each namespace; raise XmlError."""
    top, prefixes = Node(("", "")), dict[str, str]()
    path, n_elements = [top], 0
    parser = expat.ParserCreate(namespace_separator="\n")
    parser.buffer_text = True

    def read_name(name: str) -> Name:
        namespace, _, local = name.rpartition("\n")
        return namespace, local

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal n_elements
        n_elements += 1
        if n_elements > _MAX_ELEMENTS or len(path) > _MAX_DEPTH:
            raise XmlError(f"more than {_MAX_ELEMENTS:,} elements, or deeper than {_MAX_DEPTH}")
        node = Node(read_name(name), {read_name(key): value for key, value in attributes.items()})
        path[-1].children.append(node)
        path.append(node)

    def declare(prefix: str | None, namespace: str | None) -> None:
        if namespace:
            prefixes.setdefault(namespace, prefix or "")

    def refuse(*_: object) -> None:
        raise XmlError("it has a document type")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: path.pop()
    parser.CharacterDataHandler = lambda text: path[-1].children.append(text)  # noqa: PLW0108 - `path` changes
    parser.StartNamespaceDeclHandler = declare
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat's own signature
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise XmlError(str(error)) from error
    return next(top.elements()), prefixes


def write_xml(root: Node, prefixes: dict[str, str]) -> str:
    """Return the text of a tree, with all namespaces declared at its root.

    `prefixes` are the preferred ones, by namespace. Where it has none, or the same for two, a new one is made.
    """
    names, taken = {_XML: "xml"}, {"xml", "xmlns", "", *prefixes.values()}
    free = {prefix for prefix in prefixes.values() if prefix}
    numbers = itertools.count(1)
    for node in root.walk():
        for namespace, _ in (node.name, *node.attributes):
            if namespace and namespace not in names:
                prefix = prefixes.get(namespace, "")
                if prefix not in free:
                    prefix = next(made for number in numbers if (made := f"ns{number}") not in taken)
                free.discard(prefix)
                names[namespace] = prefix
    declared = "".join(f" xmlns:{prefix}={quoteattr(uri)}" for uri, prefix in names.items() if uri != _XML)

    def write_name(name: Name) -> str:
        return f"{names[name[0]]}:{name[1]}" if name[0] else name[1]

    def write(node: Node, more: str = "") -> Iterator[str]:
        tag = write_name(node.name)
        attributes = "".join(f" {write_name(name)}={quoteattr(value)}" for name, value in node.attributes.items())
        yield f"<{tag}{more}{attributes}" + (">" if node.children else "/>")
        for child in node.children:
            if isinstance(child, Node):
                yield from write(child)
            else:
                yield escape(child)
        if node.children:
            yield f"</{tag}>"

    return "".join(write(root, declared))
