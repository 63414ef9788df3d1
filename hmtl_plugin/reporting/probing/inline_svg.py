"""Figures inside a page: ids that do not clash, colours that follow the page's scheme."""

import re

from markupsafe import Markup, escape

from hmtl_plugin.reporting.probing.colours import THEME
from hmtl_plugin.reporting.probing.labels import MARGIN
from hmtl_plugin.reporting.probing.plots import Plot

_PIXELS = 96 / 72  # in a point
_VARIABLE = {shade.light: f"var(--{name}, {shade.light})" for name, shade in THEME.items()}


def inline_svg(plot: Plot) -> Markup:
    """The figure as an ``svg`` element; each id begins with the plot's name, and ids that nothing refers to are left
    out.
    """
    text = plot.svg()
    text = text[text.index("<svg") :]
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head)
    assert box is not None
    crop = round((MARGIN - 0.02) * 72, 2)  # a page has margins of its own
    width, height = float(box[1]) - 2 * crop, float(box[2])
    # The style that matplotlib writes would hold for the whole page; on the element it holds for the figure.
    body = re.sub(r"\s*<defs>\s*<style.*?</defs>", "", body, count=1, flags=re.DOTALL)
    style = f"stroke-linejoin: round; stroke-linecap: butt; --width: {width * _PIXELS:.0f}px"
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{crop} 0 {width:.2f} {height:.2f}" '
        f'width="{width * _PIXELS:.0f}" height="{height * _PIXELS:.0f}" role="img" aria-label="{escape(plot.description)}" style="{style}">'
    )
    body = _own_ids(body.replace("xlink:href", "href"), plot.name)
    body = re.sub(r' d="([^"]*)"', lambda match: f' d="{_short_path(match[1])}"', body)
    body = re.sub(r'style="([^"]*)"', lambda match: f'style="{_themed(match[1])}"', body)
    return Markup(opening + re.sub(r"\n\s*", "\n", body))


def _own_ids(body: str, name: str) -> str:
    used = set(re.findall(r"""url\(#([^)]+)\)""", body)) | set(re.findall(r'href="#([^"]+)"', body))

    def own(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    body = re.sub(r' id="([^"]*)"', own, body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    return re.sub(r'href="#', f'href="#{name}-', body)


def _short_path(path: str) -> str:
    """On one line, to a hundredth of a point."""
    path = re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), path)
    return " ".join(path.split())


def _themed(style: str) -> str:
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: _VARIABLE.get(match[0], match[0]), style)
