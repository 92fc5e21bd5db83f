"""A Sphinx extension: links to code, mended HTML, numbers whole on a line."""

import re
from collections.abc import Iterator
from typing import Any

from widemin import paths
from widemin.book import where


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx; called by it."""
    app.add_role("source", _source)
    app.connect("html-collect-pages", _source_pages)
    app.connect("builder-inited", _one_page_as_many)
    app.connect("doctree-resolved", _bind)
    app.connect("html-page-context", _put_right, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _one_page_as_many(app: Any) -> None:
    """Let the page that is printed show nodes that extensions gave to `html` alone."""
    known = app.registry.translation_handlers
    known["singlehtml"] = known.get("html", {}) | known.get("singlehtml", {})


def _source(
    role: str, raw: str, name: str, line: int, inliner: Any, *_: Any, **__: Any
) -> tuple[list[Any], list[Any]]:
    """Return a link to the lines of a function, {source}`widemin.attacks.pgd`."""
    from docutils import nodes

    file, _, number = where.line(name).partition(":")
    shown = nodes.literal(raw, name.rpartition(".")[2].lstrip("_"))
    environment = inliner.document.settings.env
    if environment.app.builder.name != "html":  # there is no other page
        return [shown], []
    target = f"code/{file.removesuffix('.py')}"
    page = environment.app.builder.get_relative_uri(environment.docname, target)
    address = f"{page}#L-{number}"
    return [nodes.reference(raw, "", shown, refuri=address, reftitle=name)], []


def _source_pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for each file of the package, its lines numbered."""
    from html import escape

    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    lines = HtmlFormatter(linenos="inline", lineanchors="L", anchorlinenos=True)
    repository = app.config.html_theme_options.get("repository_url", "")
    for path in sorted((paths.ROOT / "widemin").rglob("*.py")):
        file = path.relative_to(paths.ROOT)
        module = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        body = f"<h1>{module.replace('.', '.<wbr>')}</h1>"
        if repository:
            public = f"{repository.removesuffix('.git')}/blob/main/{file.as_posix()}"
            body += f'<p><a href="{escape(public)}">In the repository</a></p>'
        body += highlight(path.read_text(encoding="utf-8"), PythonLexer(), lines)
        page = f"code/{file.with_suffix('').as_posix()}"
        yield page, {"title": module, "body": body}, "page.html"


# A line does not end before a percent sign or inside an interval; a minus is no hyphen.
_BOUND = {
    r"(?<=\d) %|^ %": "\u00a0%",
    r"± (?=\d)": "±\u00a0",
    r"(?<![\w)\]-])-(?=\d)": "\u2212",
}


def _bind(app: Any, doctree: Any, page: str) -> None:
    """Bind the numbers of a page's prose to their units, intervals and signs."""
    from docutils import nodes

    for text in list(doctree.findall(nodes.Text)):
        bound = str(text)
        for typed, meant in _BOUND.items():
            bound = re.sub(typed, meant, bound)
        code = nodes.literal | nodes.FixedTextElement | nodes.math
        if bound != text and not isinstance(text.parent, code):
            text.parent.replace(text, nodes.Text(bound))


def _put_right(app: Any, page: str, template: str, context: Any, tree: Any) -> None:
    """Drop a script that fails and a role that a screen reader stumbles over."""
    # Thebe, live code, is not offered; its script is there twice and says so.
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe" not in f"{script} {getattr(script, 'attributes', '')}".lower()
    ]
    # Entries of the bibliography are not list items.
    context["body"] = context.get("body", "").replace(
        '<div role="list" class="citation-list">', '<div class="citation-list">'
    )
