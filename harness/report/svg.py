"""The conversion of a matplotlib figure to SVG inside an HTML page: with CSS colours, tooltips and unique ids."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree as ET

from markupsafe import Markup
from matplotlib.figure import Figure

from latlab.harness.report.theme import COLOURS
from latlab.harness.text import clean

__all__ = ["inline_svg"]

_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_VARIABLES = {code: f"var(--{name})" for name, code in COLOURS.items()}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_MARKS = ("use", "path")


def inline_svg(figure: Figure, name: str, label: str, titles: Mapping[str, Sequence[str]] | None = None) -> Markup:
    """Return the figure as an `<svg>` element.

    Args:
        figure: the figure, in the stand-in colours of `theme.COLOURS`.
        name: a prefix of every id, so that several charts can share a page.
        label: the text for screen readers.
        titles: tooltips by artist (its gid), one per mark in the order of drawing; they are escaped. matplotlib leaves
            out marks that are not finite; if the numbers then differ, the artist gets no tooltips at all.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
    _drop(root, {"metadata", "style"})
    for gid, texts in (titles or {}).items():
        _add_titles(root, gid, texts)
    _hoist_styles(root)
    _rename(root, name)
    for element in root.iter():
        _restyle(element)
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib = {
        "xmlns": _SVG,
        "viewBox": f"0 0 {width} {height}",
        "style": f"max-width:{float(width):g}px",
        "role": "img",
        "aria-label": clean(label),
    }
    _trim_space(root)
    return Markup(ET.tostring(root, encoding="unicode"))  # ElementTree has escaped all text


def _drop(root: ET.Element, tags: set[str]) -> None:
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in tags]:
            parent.remove(child)


def _marks(group: ET.Element) -> Iterator[ET.Element]:
    """Yield the marks of a collection. matplotlib writes them as `use`, or as `path` if they are few."""
    for child in group:
        if child.tag in _MARKS:
            yield child
        elif child.tag != "defs":
            yield from _marks(child)


def _add_titles(root: ET.Element, gid: str, texts: Sequence[str]) -> None:
    group = next((element for element in root.iter("g") if element.get("id") == gid), None)
    if group is None:
        return
    marks = list(_marks(group))
    if len(marks) != len(texts):
        return
    for mark, text in zip(marks, texts, strict=True):
        ET.SubElement(mark, "title").text = clean(text)


def _hoist_styles(root: ET.Element) -> None:
    """Move a style that all marks of a group share to the group, because hundreds of points would repeat it."""
    for group in root.iter("g"):
        children = [child for child in group if child.tag in _MARKS]
        styles = {child.get("style") for child in children}
        if len(children) > 2 and len(styles) == 1 and None not in styles and not group.get("style"):
            group.set("style", children[0].attrib["style"])
            for child in children:
                del child.attrib["style"]


def _rename(root: ET.Element, name: str) -> None:
    """Number the ids that something refers to, with the chart's own prefix, and remove all others."""
    used: dict[str, str] = {}

    def new(old: str) -> str:
        return used.setdefault(old, f"{name}-{len(used) + 1}")

    for element in root.iter():
        if _HREF in element.attrib:
            element.set("href", "#" + new(element.attrib.pop(_HREF).removeprefix("#")))
        for key, value in element.attrib.items():
            if "url(#" in value:
                element.set(key, _REFERENCE.sub(lambda match: f"url(#{new(match[1])})", value))
    for element in root.iter():
        old = element.attrib.pop("id", None)
        if old in used:
            element.set("id", used[old])


def _restyle(element: ET.Element) -> None:
    for key, value in element.attrib.items():
        if key == "style":
            if element.tag in ("text", "tspan"):
                value = _font(value)
            element.set(key, _COLOUR.sub(lambda match: _VARIABLES.get(match[0], match[0]), value).replace("; ", ";"))
        elif key in ("d", "x", "y", "width", "height", "transform"):
            element.set(key, _NUMBER.sub(lambda match: f"{float(match[0]):.2f}", value))


def _font(declarations: str) -> str:
    """Keep size and weight in the chart, and leave the font family to the style sheet."""
    kept = []
    for declaration in declarations.split(";"):
        key, _, value = declaration.strip().partition(":")
        if key == "font":
            size = re.search(r"[\d.]+px", value)
            kept += [f"font-size:{size[0]}"] if size else []
            kept += ["font-weight:bold"] if re.search(r"\bbold\b|\b[6-9]00\b", value) else []
        elif key != "font-family":
            kept.append(declaration.strip())
    return ";".join(kept)


def _trim_space(root: ET.Element) -> None:
    for element in root.iter():
        if element.tag not in ("text", "tspan", "title") and not (element.text or "").strip():
            element.text = None
        element.tail = None if not (element.tail or "").strip() else element.tail
        if element.tag == "path" and "d" in element.attrib:
            element.set("d", " ".join(element.attrib["d"].split()))
