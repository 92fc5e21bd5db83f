"""A Sphinx extension: what other extensions leave out of a page, or put there amiss."""

from __future__ import annotations

from typing import Any


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx; called by it."""
    app.connect("builder-inited", _one_page_as_many)
    app.connect("html-page-context", _put_right, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _one_page_as_many(app: Any) -> None:
    """Let the single page that is printed show nodes as HTML pages do.

    Extensions register how their nodes look for the builder `html` alone.
    """
    known = app.registry.translation_handlers
    if app.builder.name == "singlehtml":
        known["singlehtml"] = known.get("html", {}) | known.get("singlehtml", {})


def _put_right(app: Any, page: str, template: str, context: Any, tree: Any) -> None:
    """Take away scripts that fail, and a role that a screen reader stumbles over."""
    # Thebe, live code, is not offered; its script is there twice and says so.
    scripts = context.get("script_files", [])
    context["script_files"] = [
        script
        for script in scripts
        if "thebe" not in f"{script} {getattr(script, 'attributes', '')}".lower()
    ]
    # Entries of the bibliography are not list items.
    amiss = '<div role="list" class="citation-list">'
    context["body"] = context.get("body", "").replace(
        amiss, '<div class="citation-list">'
    )
