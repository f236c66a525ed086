"""The site as a reader meets it, in Chromium: no error, no request that leaves the machine, no dead link, and everything can be reached.

`make site` builds it from the notebooks. Where it has not been built, or is older than a page, these tests are skipped and say so.
"""

import json
import re
import shutil
import threading
from functools import cache, partial
from html import unescape
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
import reading

ROOT = Path(__file__).parents[1]
NBS, SITE = ROOT / "nbs", ROOT / "runs" / "site" / "html"
NOTEBOOKS = sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
NAMES = [path.relative_to(NBS).with_suffix("").as_posix() for path in NOTEBOOKS]
SERIES = sorted((name for name in NAMES if Path(name).stem[0].isdigit()), key=lambda name: Path(name).stem)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HUNG = 120_000  # milliseconds; nothing takes as long on any machine, so only what never happens is stopped by this
SIZE, WIDTH, MOBILE = 25, 1200, 360  # megabytes of the whole site; pixels
SOURCES = [*NOTEBOOKS, *(p for p in (NBS / "_site").rglob("*") if p.is_file()), *(ROOT / "transformer_nb").rglob("*.py")]


def missing() -> str:
    "Why the site cannot be tested, or an empty text."
    if not (SITE / "index.html").exists():
        return "needs the site: make site"
    if max(path.stat().st_mtime for path in SOURCES if "__pycache__" not in path.parts) > (SITE / "index.html").stat().st_mtime:
        return "the site is older than the pages: make site"
    return ""


playwright = pytest.importorskip("playwright.sync_api", reason="drives a browser: pip install playwright")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
    pytest.mark.skipif(bool(missing()), reason=missing() or "the site is there"),
]

# What the files say.


@cache
def pages() -> dict[str, str]:
    "The HTML of each page, by its address."
    return {path.relative_to(SITE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(SITE.rglob("*.html"))}


@cache
def anchors(address: str) -> set[str]:
    "What a link to a page may name behind #."
    return {"", "top", *map(unescape, re.findall(r'\s(?:id|name)="([^"]*)"', pages()[address]))}


def targets(address: str) -> list[tuple[str, str]]:
    "What a page links to or loads: the tag, and where it leads from the root of the site."
    text = re.sub(r"<!--.*?-->|<script\b[^>]*>.*?</script>", lambda m: m[0].split(">")[0] + ">", pages()[address], flags=re.DOTALL)
    base = re.search(r'<base href="([^"]*)"', text)
    found = re.findall(r'<(\w+)\b[^>]*?\s(?:href|src|poster|xlink:href)="([^"]*)"', text)
    found += [(tag, part.split()[0]) for tag, many in re.findall(r'<(\w+)\b[^>]*?\ssrcset="([^"]*)"', text) for part in many.split(",")]
    start = urljoin("http://site/" + address, base[1] if base else "")
    return [(tag, urljoin(start, unescape(link))) for tag, link in found if tag != "base"]


def fault_of_a_link(address: str, tag: str, link: str) -> str:
    "What is wrong with a link, or an empty text."
    link, anchor = urldefrag(link)
    parts = urlsplit(link)
    if parts.scheme in ("data", "mailto"):
        return ""
    if parts.netloc != "site":
        return "" if tag in ("a", "area") and parts.scheme in ("http", "https") else f"<{tag}> loads from another machine"
    file = SITE / unquote(parts.path).lstrip("/")
    file = file / "index.html" if file.is_dir() else file
    if not file.exists():
        return "leads nowhere"
    there = file.relative_to(SITE).as_posix()
    return "names a place that is not there" if there in pages() and unquote(anchor) not in anchors(there) else ""


def test_each_notebook_is_a_page_and_the_whole_site_is_small():
    assert not [name for name in NAMES if f"{name}.html" not in pages()]
    assert sum(path.stat().st_size for path in SITE.rglob("*") if path.is_file()) < SIZE * 10**6


def test_every_link_leads_to_a_page_and_a_place_on_it():
    faults = [f"{page}: {link}: {why}" for page in pages() for tag, link in targets(page) if (why := fault_of_a_link(page, tag, link))]
    assert not faults, "\n".join(sorted(set(faults))[:40])


def test_style_sheets_load_nothing_from_another_machine():
    for path in SITE.rglob("*.css"):
        text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text):
            link = "".join(link)
            assert link.startswith(("data:", "#")) or (path.parent / urlsplit(link).path).exists(), f"{path.name} loads {link}"


def prose(text: str) -> str:
    "The text of a page that is neither code nor a formula."
    text = re.sub(r"<(pre|code|math|script|style|svg|title)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return unescape(re.sub(r"<[^>]*>", " ", text))


def formulas(cells: list[dict]) -> int:
    "How many formulas a notebook has."
    text = "\n\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return len(re.findall(r"\$\$.+?\$\$|(?<![\\$])\$(?=\S)[^$\n]+?(?<=\S)\$", text, flags=re.DOTALL))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_all_of_its_notebook(name):
    cells, text = reading.cells_of(NBS / f"{name}.ipynb"), pages()[f"{name}.html"]
    assert text.count('<details class="folded"') == sum(map(reading.is_folded, cells)), "a folded section cannot be opened"
    assert text.count("<math") >= formulas(cells) and "<merror" not in text
    left = re.findall(r"\$\S[^$\n]*\$|\\(?:frac|sqrt|sum|mathrm|cdot|begin)\b", prose(text))
    assert not left, f"formulas that are not drawn: {left[:3]}"
    images = re.findall(r"<img\b[^>]*>", text)
    assert all(re.search(r'\salt="[^"]+"', image) for image in images), "an image without alternative text"
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert len(images) >= sum("image/png" in output.get("data", {}) for output in outputs), "a figure is missing"


class Tags(HTMLParser):
    "Finds the tags of a page that are closed in another order than they were opened, or not at all."

    def __init__(self, text: str):
        super().__init__()
        self.open, self.faults = [], []
        self.feed(text)
        self.faults += self.open

    def handle_starttag(self, tag, attributes) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes) -> None:
        pass

    def handle_endtag(self, tag) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()
        else:
            self.faults.append(f"</{tag}> in line {self.getpos()[0]}")


VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def test_every_tag_is_closed_where_it_was_opened():
    faults = {address: found for address, text in pages().items() if (found := Tags(text).faults[:3])}
    assert not faults


def test_pages_follow_each_other_in_the_order_of_the_series():
    for before, after in zip(["index", *SERIES], SERIES):
        for here, there, relation in ((before, after, "next"), (after, before, "prev")):
            link = re.search(rf'<link rel="{relation}"[^>]*? href="([^"]*)"', pages()[f"{here}.html"])
            assert link and urljoin(f"http://site/{here}", link[1]) == f"http://site/{there}.html", f"{relation} of {here} is {link and link[1]}"


def test_each_box_of_the_map_leads_to_its_page():
    (drawing,) = re.findall(r'<svg[^>]*>(?:(?!</svg>).)*encoder layer, N times.*?</svg>', pages()["index.html"], flags=re.DOTALL)
    walk = [name for name in SERIES if "/" not in name]
    assert set(re.findall(r'<a [^>]*?href="([^"]*)"', drawing)) == {f"{name}.html" for name in walk}


# What a browser shows.


class Server(SimpleHTTPRequestHandler):
    "The site on this machine; an address that is not there gets the page for that."

    def log_message(self, *words) -> None:
        pass

    def do_GET(self) -> None:
        if self.path != "/favicon.ico":  # which browsers ask for where a page names no icon
            return super().do_GET()
        self.send_response(204)
        self.end_headers()

    def send_error(self, code, *words) -> None:
        text = pages()["404.html"].encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture(scope="module")
def address():
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address):
    "A page of the browser. At the end of a test there has been no error, and no request has left the machine."
    page = browser.new_page(viewport={"width": WIDTH, "height": 900})
    page.set_default_timeout(HUNG)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(f"{page.url}: error: {error}"))
    page.on("console", lambda said: said.type in ("error", "warning") and page.faults.append(f"{page.url}: {said.type}: {said.text}"))
    here = (address, "data:", "blob:", SITE.as_uri())
    for kind in ("request", "websocket"):
        page.on(kind, lambda asked: asked.url.startswith(here) or page.faults.append(f"{page.url}: asks for {asked.url}"))
    yield page
    page.close()
    assert page.faults == []


OPEN = "() => document.querySelectorAll('details').forEach((details) => { details.open = true })"
TOO_WIDE = """(width) => {  // what stands out to the right, and does not scroll in a box of its own
    const scrolls = (e) => !e.matches("article, footer") && (["auto", "scroll"].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
    const out = [...document.querySelectorAll("article, article *, footer *")].filter((e) => e.getBoundingClientRect().right > width + 1);
    const guilty = out.filter((e) => e.checkVisibility() && !scrolls(e)).map((e) => e.outerHTML.slice(0, 80));
    return document.documentElement.scrollWidth > width || guilty.length ? [document.documentElement.scrollWidth, ...guilty.slice(0, 3)] : [];
}"""


@pytest.mark.parametrize("theme, width", [("light", MOBILE), ("dark", WIDTH)])
def test_every_page_loads_without_an_error_and_fits_into_the_window(page, address, theme, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=theme)
    wide = {}
    for name in pages():
        page.goto(address + name)
        page.evaluate(OPEN)
        if found := page.evaluate(TOO_WIDE, width):
            wide[name] = found
    assert not wide, json.dumps(wide, indent=1)[:6000]


CHECKED = ["index", *SERIES, "workshop/explorer", "workshop/recipes", "reference/runs", "cheatsheet", "search", "404"]
WITH_CODE = ["workshop/checkpoints", "reference/attention"]  # elsewhere, code is left out: thousands of words in the same few colors
AXE = """(options) => axe.run(options.of, options).then((found) => found.violations.map(
    (v) => `${v.id} (${v.impact}): ${v.help}: ${v.nodes.length} times, as in ${v.nodes[0].html.slice(0, 200)}`))"""
KINDS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", CHECKED + WITH_CODE)
def test_a_page_passes_the_accessibility_checks_of_axe(page, address, name, theme):
    pytest.importorskip("axe_playwright_python", reason="brings axe-core: pip install axe-playwright-python")
    page.emulate_media(color_scheme=theme)
    page.goto(f"{address}{name}.html")
    page.evaluate(OPEN)
    page.add_script_tag(content=(files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    of = {"include": ["html"], "exclude": [] if name in WITH_CODE else [".highlight"]}
    kinds = KINDS if theme == "light" else ["color-contrast"]  # a theme changes nothing but colors
    said = page.evaluate(AXE, {"of": of, "runOnly": kinds, "resultTypes": ["violations"]})
    assert not said, "\n".join(said)


def shown_formulas(page) -> list[float]:
    "The heights of all formulas of a page, as they are drawn."
    return page.locator("article math").evaluate_all("all => all.map((one) => one.getBoundingClientRect().height)")


def test_formulas_are_drawn_without_a_script_in_a_font_of_the_site(page, address):
    page.goto(address + "04_layer_norm.html")
    page.evaluate(OPEN)
    heights = shown_formulas(page)
    assert len(heights) > 5 and min(heights) > 5
    assert max(heights) > 1.5 * min(heights), "the formula with a fraction is as high as a letter"
    font = page.locator("article math").first.evaluate("(one) => getComputedStyle(one).fontFamily.split(',')[0]")
    assert page.evaluate("(font) => document.fonts.ready.then(() => [...document.fonts].some((f) => `\"${f.family}\"` === font || f.family === font) && document.fonts.check(`16px ${font}`))", font)


def test_the_search_finds_a_causal_mask(page, address):
    page.goto(address + "index.html")
    page.locator("input[name=q]").first.fill("causal mask")
    page.keyboard.press("Enter")
    results = page.locator("ul.search li a")
    results.first.wait_for()
    best = results.evaluate_all("all => all.slice(0, 5).map((one) => one.getAttribute('href').split(/[?#]/)[0])")
    assert "03_attention.html" in best, best
    results.nth(best.index("03_attention.html")).click()
    page.wait_for_load_state("load")
    assert "Attention" in page.title() and "causal mask" in page.locator("article").inner_text().lower()


def test_a_search_for_what_is_not_there_says_so(page, address):
    page.goto(address + "search.html?q=qwertzuiop")
    page.get_by_text("did not match any documents").wait_for()
    assert page.locator("ul.search li").count() == 0


FOLDED = "details.folded"
FOCUSED = "() => document.activeElement.matches('details.folded > summary')"


def test_the_keyboard_reaches_a_folded_section_and_opens_it(page, address):
    page.goto(address + "03_attention.html")
    folded = page.locator(FOLDED).first
    assert folded.get_attribute("open") is None and not folded.locator("p").first.is_visible()
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate("() => document.activeElement.textContent.toLowerCase()"), "the first stop skips the menu"
    for _ in range(400):
        if page.evaluate(FOCUSED):
            break
        page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED), "Tab never comes to a folded section"
    page.keyboard.press("Enter")
    assert folded.locator("p").first.is_visible()
    page.keyboard.press("Space")
    assert not folded.locator("p").first.is_visible()


def test_a_link_into_a_folded_section_opens_it(page, address):
    page.goto(address + "03_attention.html")
    place = page.locator(f"section:has(> {FOLDED})").last.get_attribute("id")
    page.goto(f"{address}index.html")
    page.goto(f"{address}03_attention.html#{place}")
    paragraph = page.locator(f"[id='{place}'] > {FOLDED} > p").first
    paragraph.wait_for(state="visible")
    assert page.locator(f"[id='{place}'] summary").first.evaluate("(one) => { const { top } = one.getBoundingClientRect(); return top >= 0 && top < innerHeight }")


DARK = """() => ["body", ".highlight"].map((name) => {  // of the page and of its code
    const color = getComputedStyle(document.querySelector(name)).backgroundColor.match(/[\\d.]+/g).map(Number);
    return color.length === 4 && color[3] === 0 ? null : color[0] + color[1] + color[2] < 380;
}).filter((dark) => dark !== null)"""


@pytest.mark.parametrize("system", ["light", "dark"])
def test_a_reader_can_choose_the_theme_and_the_next_page_keeps_it(page, address, system):
    page.emulate_media(color_scheme=system)
    page.goto(address + "01_embeddings.html")
    assert set(page.evaluate(DARK)) == {system == "dark"}, "at first the theme is that of the system, for the page and for its code"
    button = page.locator(".theme-toggle:visible").first
    for _ in range(3):
        if page.evaluate(DARK)[0] != (system == "dark"):
            break
        button.click()
    assert set(page.evaluate(DARK)) == {system != "dark"}, "the button does not change the theme"
    page.goto(address + "03_attention.html")
    assert set(page.evaluate(DARK)) == {system != "dark"}


def test_without_scripts_everything_can_be_read(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + "03_attention.html")
    page.locator(f"{FOLDED} > summary").first.click()
    assert page.locator(f"{FOLDED} p").first.is_visible() and page.locator("article math").first.bounding_box()["height"] > 5
    context.close()


def test_an_address_that_is_not_there_leads_back_from_any_depth(page, address):
    page.goto(address + "beyond/no/such/page.html")
    page.faults.clear()  # the browser reports the status 404, as it should
    assert page.locator("article").evaluate("(one) => getComputedStyle(one).fontFamily") != "", "its style sheet is found"
    assert len(page.evaluate("() => [...document.styleSheets].filter((s) => s.cssRules.length).map((s) => s.href)")) > 3
    page.locator("article a[href*='index.html']").first.click()
    page.wait_for_load_state("load")
    assert page.url == address + "index.html"


def test_a_view_of_the_explorer_is_alive_without_a_kernel(page, address):
    page.goto(address + "workshop/explorer.html")
    page.locator(".view iframe").first.scroll_into_view_if_needed()
    view = page.frame_locator(".view iframe").first
    tokens = view.locator("[data-key^=token-]")
    tokens.first.wait_for()
    tokens.nth(3).click()
    before = view.locator(".query h3").inner_text()
    tokens.nth(8).click()
    assert view.locator(".query h3").inner_text() != before and view.locator(".query tbody tr").count() > 2


def test_the_site_can_be_read_from_the_disk(page):
    page.goto((SITE / "index.html").as_uri())
    page.locator(".map svg a[href*='03_attention']").first.click()
    page.wait_for_load_state("load")
    assert page.url == (SITE / "03_attention.html").as_uri() and shown_formulas(page)
    page.goto((SITE / "search.html").as_uri() + "?q=causal+mask")
    page.locator("ul.search li a").first.wait_for()
