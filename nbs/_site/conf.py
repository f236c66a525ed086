"""Configuration of Sphinx for the site, and what Sphinx is taught here: formulas, folded sections, links to the reference."""

import logging
import os
import re
import sys
from configparser import ConfigParser
from hashlib import sha256
from html import unescape
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from furo.navigation import get_navigation_tree
from latex2mathml.converter import convert
from pygments.formatters import HtmlFormatter
from pygments.token import Token
from sphinx.highlighting import PygmentsBridge
from sphinx.transforms.post_transforms import SphinxPostTransform

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import reference  # noqa: E402

settings = ConfigParser()
settings.read(HERE.parents[1] / "settings.ini", encoding="utf-8")

project = settings["DEFAULT"]["title"]
copyright = settings["DEFAULT"]["copyright"]
version = release = settings["DEFAULT"]["version"]
language = "en"
smartquotes = False  # quotes in the prose are often those of a program

extensions = ["myst_parser"]
myst_enable_extensions = ["dollarmath"]
myst_dmath_double_inline = True
exclude_patterns = ["pictures"]
suppress_warnings = ["myst.strikethrough"]

html_theme = "furo"
html_title = project
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_favicon = "static/favicon.svg"
html_copy_source = False
html_use_index = False
html_show_search_summary = False  # a summary would load each page that was found, and could not from file:
html_search_scorer = str(HERE / "static" / "scorer.js")
html_show_sphinx = True
html_math_renderer = "mathml"
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {"color-brand-primary": "#0b5394", "color-brand-content": "#0b5394", "color-brand-visited": "#0b5394"},
    "dark_css_variables": {"color-brand-primary": "#8ab8f0", "color-brand-content": "#8ab8f0", "color-brand-visited": "#8ab8f0"},
}
BASE = os.environ.get("SITE_BASE", "").strip("/")  # where the site lies on its server, as in transformer_nb

FUNCTIONS = "|".join("sin cos tan tanh ln log exp".split())


def mathml(tex: str, display: str) -> str:
    "Return a formula as MathML, which browsers draw without a script; between a function and a letter there is a thin space."
    text = convert(tex, display=display)
    text = re.sub(rf"(<mi>(?:{FUNCTIONS})</mi>)(?=<m(?:i|n|sub|sup|frac|sqrt)\b)", r'\1<mspace width="0.17em"/>', text)
    return text


def visit_math(translator, node) -> None:
    translator.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_displaymath(translator, node) -> None:
    translator.body.append(f'<div class="formula">{mathml(node.astext(), "block")}</div>\n')
    raise nodes.SkipNode


class SlimFormatter(HtmlFormatter):
    "Highlights code without a <span> for each plain name, bracket and space: they look like the text around them."

    def _get_css_class(self, token) -> str:
        return "" if token in PLAIN else super()._get_css_class(token)


PLAIN = (Token.Name, Token.Punctuation, Token.Text, Token.Text.Whitespace)
PygmentsBridge.html_formatter = SlimFormatter


class FoldSections(SphinxPostTransform):
    "Turn a section whose heading build.py has marked as folded into <details>; its heading is the summary."

    default_priority = 900
    formats = ("html",)

    def run(self, **options) -> None:
        for section in self.document.findall(nodes.section):
            heading, *rest = section.children
            if rest and isinstance(rest[0], nodes.raw) and "<!-- folded -->" in rest[0].astext():
                opening, middle, end = (
                    nodes.raw("", text, format="html") for text in ('<details class="folded"><summary>', "</summary>", "</details>")
                )
                section.children = []
                section.extend([opening, heading, middle, *rest[1:], end])


class LinkNames(SphinxPostTransform):
    "Let the first `name` in each section of a page lead to the reference, where it is a name of the package."

    default_priority = 910
    formats = ("html",)

    def run(self, **options) -> None:
        docname, seen = self.env.docname, set()
        if docname.startswith("reference/"):
            return
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().removesuffix("()")
            anchor = TARGETS.get(name)
            inside = literal.parent
            while inside is not None and not isinstance(inside, nodes.reference | nodes.title | nodes.section):
                inside = inside.parent
            if anchor is None or not isinstance(inside, nodes.section) or (id(inside), name) in seen:
                continue
            seen.add((id(inside), name))
            target, target_id, _ = self.env.domains["std"].labels.get(anchor) or (*self.env.domains["std"].anonlabels[anchor], "")
            uri = self.app.builder.get_relative_uri(docname, target) + "#" + target_id
            literal.replace_self(nodes.reference("", "", literal.deepcopy(), refuri=uri, internal=True, classes=["name"]))


TARGETS = reference.targets()


def hash_of_code() -> str:
    return sha256(Path(__file__).read_bytes()).hexdigest()


def page_context(app, pagename, templatename, context, doctree) -> None:
    """Shorten the menu: of a group of pages, only the one that holds this page is unfolded.

    The page for wrong addresses is served at any depth, so its links start at the root of the site."""
    menu = context["toctree"](collapse=True, titles_only=True, includehidden=True).replace(' role="heading"', "")
    context["furo_navigation_tree"] = get_navigation_tree(menu)
    context["body"] = context.get("body", "").replace('<th class="head"><p></p></th>', "<td></td>")  # a corner heads nothing
    if pagename == "404":
        context["body"] = re.sub('<a class="headerlink".*?</a>', "", context["body"])
        context["metatags"] = f'<base href="/{BASE + "/" if BASE else ""}">' + context.get("metatags", "")


LANDMARKS = {  # what Furo leaves without a name
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer': '<aside aria-label="On this page" class="toc-drawer',
}


def finish(app, exception) -> None:
    """Name the landmarks, and write the font of formulas.

    It is STIX Two Math (SIL Open Font License), which ziamath brings, with the characters that are used."""
    if exception is not None:
        return
    from fontTools import subset

    logging.getLogger("fontTools.subset").setLevel(logging.WARNING)
    font = Path(find_spec("ziamath").origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"
    used = {*map(chr, [*range(0x20, 0x7F), 0x210E, *range(0x1D400, 0x1D468), *range(0x1D6FC, 0x1D71C)])}  # browsers make x italic
    for page in Path(app.outdir).rglob("*.html"):
        text = named = page.read_text(encoding="utf-8")
        for old, new in LANDMARKS.items():
            named = named.replace(old, new)
        if named != text:
            page.write_text(named, encoding="utf-8")
        for formula in re.findall(r"<math.*?</math>", text, flags=re.DOTALL):
            used |= {*unescape(re.sub("<[^>]*>", "", formula))}
    options = subset.Options(flavor="woff", layout_features=["*"])
    subsetter = subset.Subsetter(options)
    subsetter.populate(text="".join(used))
    loaded = subset.load_font(font, options)
    subsetter.subset(loaded)
    subset.save_font(loaded, Path(app.outdir) / "_static" / "math.woff", options)


def setup(app) -> dict:
    app.add_config_value("site_code", hash_of_code(), "env")  # all pages are made again when this file changes
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.add_post_transform(FoldSections)
    app.add_post_transform(LinkNames)
    app.connect("html-page-context", page_context, priority=900)  # after Furo
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
