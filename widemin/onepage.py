"""A Sphinx extension: the single page that is printed as PDF shows what HTML pages do.

Extensions register how their nodes look for the builder `html` alone; `singlehtml`
is given the same.
"""

from __future__ import annotations

from typing import Any


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx; called by it."""
    app.connect("builder-inited", _as_html)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _as_html(app: Any) -> None:
    known = app.registry.translation_handlers
    if app.builder.name == "singlehtml":
        known["singlehtml"] = known.get("html", {}) | known.get("singlehtml", {})
