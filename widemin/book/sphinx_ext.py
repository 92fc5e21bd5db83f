"""A Sphinx extension: links to code, mended HTML, numbers whole on a line."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from widemin import paths
from widemin.book import where


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx; called by it."""
    app.add_role("source", _source)
    app.connect("html-collect-pages", _source_pages)
    app.connect("builder-inited", _one_page_as_many)
    app.connect("autodoc-process-docstring", _as_it_reads, priority=400)
    app.connect("missing-reference", _elsewhere)
    app.connect("doctree-resolved", _bind)
    app.connect("html-page-context", _put_right, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _one_page_as_many(app: Any) -> None:
    """Let the page that is printed show nodes that extensions gave to `html` alone."""
    known = app.registry.translation_handlers
    known["singlehtml"] = known.get("html", {}) | known.get("singlehtml", {})


def _as_it_reads(
    app: Any, kind: str, name: str, what: Any, options: Any, lines: list[str]
) -> None:
    """Keep |v| and x* of prose from being read as markup; link the lines below it."""
    example = False
    for i, line in enumerate(lines):
        example = line.strip() != "" and (example or ">>>" in line)
        if not example:
            lines[i] = re.sub(r"[|*]|_\b", r"\\\g<0>", line)
    if kind in ("function", "class"):
        # Where it is defined: a package's module may have its function's name.
        lines += ["", f"Source: :source:`{what.__module__}.{what.__qualname__}`"]


def _elsewhere(app: Any, env: Any, node: Any, shown: Any) -> Any:
    """Link a class or a dotted name of another module of this package."""
    from sphinx.util.nodes import make_refnode

    kind, target = node.get("reftype"), str(node.get("reftarget"))
    name = f".{target.rpartition('.')[2] if kind == 'class' else target}"
    known = env.get_domain("py").objects if node.get("refdomain") == "py" else {}
    found = [entry for full, entry in known.items() if full.endswith(name)]
    if len(found) != 1 or not ("." in target or target[0].isupper()):
        return None
    [entry] = found
    return make_refnode(app.builder, node["refdoc"], entry[0], entry[1], shown)


def _source(
    role: str, raw: str, name: str, line: int, inliner: Any, *_: Any, **__: Any
) -> tuple[list[Any], list[Any]]:
    """Return a link to the lines of a function, {source}`widemin.attacks.pgd`."""
    from docutils import nodes

    file, number = where.line(name).split(":")
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
            tree = "src/branch" if "//codeberg.org/" in repository else "blob"
            public = f"{repository.removesuffix('.git')}/{tree}/main/{file.as_posix()}"
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
    # Entries of the bibliography are not list items, nor are a signature's arguments.
    body = context.get("body", "").replace(
        '<div role="list" class="citation-list">', '<div class="citation-list">'
    )

    # A phone gets a figure's narrow drawing, where there is one.
    def with_narrow(shown: re.Match[str]) -> str:
        file = f"_static/phones/{shown[2]}.svg"
        source = '<source media="screen and (max-width: 576px)" srcset="{}">'
        source = source.format(context["pathto"](file, 1))
        there = (Path(app.srcdir) / file).exists()
        return f"{shown[1]}<picture>{source}{shown[3]}</picture>" if there else shown[0]

    image = r'(<figure[^>]* id="([\w-]+)">\s*)(<img [^>]*>)'
    body = re.sub(image, with_narrow, body)
    if app.builder.name == "singlehtml":  # links that are written as HTML
        body = re.sub(r'href="chapters/[^"#]+#', 'href="#', body)
    signatures = re.compile(r'<dt class="sig.*?</dt>', re.DOTALL)
    context["body"] = signatures.sub(_without_lists, body)


def _without_lists(signature: re.Match[str]) -> str:
    plain = re.sub(r"<d([ld])>", r'<span class="sig-d\1">', signature[0])
    return re.sub("</d[ld]>", "</span>", plain)
