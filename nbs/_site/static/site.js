// Opens what a reader has to see, and lets a keyboard reach what scrolls. Without this script everything can still be read.
"use strict";

// The <details> around an element, and the one that is the section an anchor names.
function open(element) {
  if (!element) return;
  const own = element.querySelector(":scope > details.folded");
  if (own) own.open = true;
  for (let d = element.closest("details"); d; d = d.parentElement.closest("details")) d.open = true;
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  open(target);
  if (target) target.scrollIntoView({ behavior: "instant" });
}
addEventListener("hashchange", openTarget);
addEventListener("click", (event) => { // on a link to where we are: its section may have been folded since
  const link = event.target.closest("a[href*='#']");
  if (link && link.hash && link.href === location.href) openTarget();
});

// A wide table, figure or block of code scrolls in its own box.
function reachScrolling() {
  for (const box of document.querySelectorAll("pre, .table-wrapper, .formula, .map, .output")) {
    if (box.scrollWidth > box.clientWidth + 1) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
addEventListener("resize", reachScrolling);
addEventListener("toggle", reachScrolling, true);

// A view of the explorer has the theme of the page, where the browser lets one page reach into the other.
function themeViews() {
  const chosen = document.body.dataset.theme;
  const dark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  for (const frame of document.querySelectorAll(".view iframe")) {
    try {
      frame.contentDocument.body.dataset.jpThemeLight = String(!dark);
    } catch { /* file: addresses are strangers to each other */ }
  }
}

function fitView(frame) {
  const body = frame.contentDocument?.body;
  if (body) new ResizeObserver(() => { frame.style.height = `${body.offsetHeight + 4}px`; }).observe(body);
}

addEventListener("DOMContentLoaded", () => {
  reachScrolling();
  for (const frame of document.querySelectorAll(".view iframe")) frame.addEventListener("load", () => { themeViews(); fitView(frame); });
  new MutationObserver(themeViews).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });
});
addEventListener("load", () => {
  document.querySelectorAll(".highlighted").forEach((word) => word.closest("details.answer") || open(word)); // words of a search
  openTarget();
});

// Paper cannot be unfolded.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("article details:not([open])")];
  for (const details of closed) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of closed) details.open = false;
});
