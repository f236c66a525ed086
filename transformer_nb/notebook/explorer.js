// The view of `explore`: what a model computed for one text. Python sends q, k and v of every head and the
// logits (see explorer.py); scores, weights and probabilities are computed here, by the formulas of the pages.
// The same script runs in JupyterLab (anywidget) and in a saved file.

const LISTED = 12; // keys of one query and next tokens that are listed at once
const LABELLED = 40; // a pattern with at most this many positions has its tokens written beside it

function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const visible = (token) => token.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥") || "∅";
const short = (text) => (text.length > 12 ? `${text.slice(0, 11)}…` : text);
const fixed = (x, digits = 2) => (Number.isFinite(x) ? x.toFixed(digits).replace(/^-(?=.*[1-9])/, "−").replace(/^-/, "") : x > 0 ? "∞" : "−∞");
const signed = (x) => (x >= 0 ? "+" : "") + fixed(x);

// A typed array from what Python sent: the bytes of a buffer, or base64 in a saved file.
function unpack({ type, data }) {
  let bytes;
  if (typeof data === "string") bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  else bytes = new Uint8Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength));
  const types = { f4: Float32Array, i4: Int32Array, u1: Uint8Array };
  return new types[type](bytes.buffer);
}

// Equation 1 of Vaswani et al., from the queries, keys and values of one attention.
export class Attention {
  constructor(data) {
    Object.assign(this, data);
    this.q = unpack(data.q);
    this.k = unpack(data.k);
    this.v = unpack(data.v);
    this.mask = data.mask === null ? null : unpack(data.mask);
    this.patterns = [];
  }

  allowed(i, j, head) {
    if (this.causal) return j <= i;
    return this.mask === null || this.mask[((head % this.mask_heads) * this.T + i) * this.S + j] === 1;
  }

  score(head, i, j) {
    const { T, S, d_k, q, k } = this;
    let sum = 0;
    for (let a = (head * T + i) * d_k, b = (head * S + j) * d_k, n = 0; n < d_k; n++) sum += q[a + n] * k[b + n];
    return sum / Math.sqrt(d_k);
  }

  // All weights of a head, row by row, computed when they are first asked for.
  weights(head) {
    if (this.patterns[head]) return this.patterns[head];
    const { T, S } = this;
    const w = new Float32Array(T * S);
    for (let i = 0; i < T; i++) {
      let largest = -Infinity;
      for (let j = 0; j < S; j++) {
        if (!this.allowed(i, j, head)) continue;
        w[i * S + j] = this.score(head, i, j);
        largest = Math.max(largest, w[i * S + j]);
      }
      let sum = 0;
      for (let j = 0; j < S; j++) {
        if (!this.allowed(i, j, head)) continue;
        w[i * S + j] = Math.exp(w[i * S + j] - largest);
        sum += w[i * S + j];
      }
      if (sum > 0) for (let j = 0; j < S; j++) w[i * S + j] /= sum;
    }
    this.patterns[head] = w;
    return w;
  }

  vector(part, head, position) {
    const start = (head * (part === "q" ? this.T : this.S) + position) * this.d_k;
    return this[part].subarray(start, start + this.d_k);
  }

  output(head, i) {
    const w = this.weights(head);
    const sum = new Float32Array(this.d_k);
    for (let j = 0; j < this.S; j++) this.vector("v", head, j).forEach((v, n) => (sum[n] += w[i * this.S + j] * v));
    return sum;
  }
}

// The distribution that `generate` samples from: temperature, then top-k, then top-p.
export function distribution(logits, temperature, topK, topP) {
  const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
  if (temperature === 0) return [{ id: order[0], p: 1 }];
  const kept = order.slice(0, topK);
  const e = kept.map((id) => Math.exp((logits[id] - logits[order[0]]) / temperature));
  const total = e.reduce((a, b) => a + b, 0);
  let before = 0;
  const nucleus = kept.map((id, n) => ({ id, p: e[n] / total })).filter(({ p }) => {
    const keep = before < topP || topP >= 1;
    before += p;
    return keep;
  });
  const sum = nucleus.reduce((a, { p }) => a + p, 0);
  return nucleus.map(({ id, p }) => ({ id, p: p / sum }));
}

// A small generator of random numbers, so that a view draws the same tokens each time it is opened.
function randomNumbers(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const THEMES = {
  light: { ramp: [[255, 255, 255], [107, 174, 214], [8, 48, 107]], negative: [179, 88, 6], positive: [84, 39, 136], zero: [247, 247, 247] },
  dark: { ramp: [[24, 26, 30], [49, 110, 170], [222, 240, 255]], negative: [253, 184, 99], positive: [178, 160, 230], zero: [40, 42, 46] },
};

function mix(a, b, share) {
  return a.map((x, i) => Math.round(x + (b[i] - x) * share));
}

class View {
  constructor(model, el) {
    this.model = model;
    this.random = randomNumbers(1);
    this.state = { temperature: 1, topK: Infinity, topP: 1, numbers: false, all: false, byWeight: true, byRow: false, exact: false, drawn: "" };
    this.root = h("div", { class: "tnb-explorer", role: "group", "aria-label": "Inside a model" });
    // JupyterLab would take a key for itself: x would cut the cell. It still gets Ctrl+S, Shift+Enter and Escape.
    this.root.addEventListener("keydown", (e) => {
      if (!(e.ctrlKey || e.metaKey || e.altKey || (e.shiftKey && e.key === "Enter") || e.key === "Escape")) e.stopPropagation();
    });
    el.append(this.root);
    this.followTheme();
    this.read(true);
    const refresh = () => this.read(false);
    model.on("change:view", refresh);
    const answered = ({ error }) => this.answered(error);
    model.on("msg:custom", answered);
    this.cleanups.push(() => model.off("change:view", refresh), () => model.off("msg:custom", answered));
  }

  // --- Theme and life -----------------------------------------------------------------------------------

  followTheme() {
    const media = window.matchMedia("(prefers-color-scheme: dark)");
    const update = () => {
      const { body } = document;
      const lab = body.dataset.jpThemeLight;
      const dark = lab !== undefined ? lab === "false" : body.classList.contains("vscode-dark") || media.matches;
      const theme = dark ? "dark" : "light";
      if (this.root.dataset.theme === theme) return;
      this.root.dataset.theme = theme;
      this.colors = THEMES[theme];
      if (this.data) this.draw();
    };
    const observer = new MutationObserver(update);
    observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
    media.addEventListener("change", update);
    this.cleanups = [() => observer.disconnect(), () => media.removeEventListener("change", update)];
    update();
  }

  remove() {
    this.cleanups.forEach((cleanup) => cleanup());
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
  }

  // --- Data ---------------------------------------------------------------------------------------------

  read(first) {
    const data = this.model.get("view");
    this.data = data;
    this.off = new Set(data.off);
    this.attentions = data.attentions.map((attention) => new Attention(attention));
    this.logits = data.logits && { ...data.logits, values: unpack(data.logits.values) };
    this.before = data.before && { loss: data.before.loss && unpack(data.before.loss), logits: unpack(data.before.logits) };
    this.loss = data.loss && unpack(data.loss);
    this.lens = data.lens && { ...data.lens, ids: unpack(data.lens.ids), p: unpack(data.lens.p), next: unpack(data.lens.next) };
    this.layers = data.layers.map((layer) => ({ ...layer, size: layer.size && unpack(layer.size) }));
    const { state } = this;
    const last = data.sequences.map(({ tokens }) => tokens.length - 1);
    if (first) {
      Object.assign(state, { attention: data.selected[0], head: data.selected[1], positions: [...last] });
      if (data.selected[2] !== null) state.positions[this.attention.queries] = data.selected[2];
      state.topK = data.vocabulary ?? Infinity;
    } else {
      const grown = this.lengths.map((length, s) => last[s] + 1 - length);
      state.positions = state.positions.map((p, s) => (grown[s] || p > last[s] ? last[s] : p));
      if (this.appended) state.positions[last.length - 1] = last.at(-1);
    }
    this.appended = false;
    this.lengths = last.map((n) => n + 1);
    this.draw();
  }

  get attention() { return this.attentions[this.state.attention]; }
  get output() { return this.data.sequences.length - 1; } // the text that is continued
  get query() { return this.state.positions[this.attention.queries]; }
  tokens(sequence) { return this.data.sequences[sequence].tokens; }
  label(id) { return visible(this.data.labels[id] ?? `#${id}`); }
  named(sequence, position) { return `${position} ${visible(this.tokens(sequence)[position])}`; }

  send(name, value) {
    this.answered("");
    this.root.setAttribute("aria-busy", "true");
    const silent = () => this.answered("The kernel does not answer: is it running, or busy with another cell?");
    this.timer = setTimeout(silent, 8000);
    try {
      this.model.send({ [name]: value });
    } catch {
      silent(); // the kernel that made the view is gone
    }
  }

  // After an error the view shows again what the kernel holds.
  answered(error) {
    clearTimeout(this.timer);
    this.root.removeAttribute("aria-busy");
    if (error) this.draw();
    this.root.querySelector(".error").textContent = error;
  }

  // --- Drawing ------------------------------------------------------------------------------------------

  draw() {
    const focused = this.root.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    cancelAnimationFrame(this.frame);
    this.waiting = [];
    this.root.replaceChildren(
      this.header(),
      this.text(),
      h("div", { class: "columns" }, this.stack(), this.headPanel()),
      h("div", { class: "columns" }, this.queryPanel(), h("div", {}, this.lensPanel(), this.nextPanel())),
    );
    this.point(null);
    for (const token of this.root.querySelectorAll(".token[aria-selected=true]")) token.parentElement.scrollTop = token.offsetTop - 60;
    if (focused) this.root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
    this.drawThumbnails();
  }

  header() {
    const { data, loss, before } = this;
    const mean = (x) => x.reduce((a, b) => a + b, 0) / x.length;
    const parts = [h("h2", {}, data.title), ` ${data.sizes}`];
    if (loss?.length) {
      const now = mean(loss);
      const was = before && mean(before.loss);
      const text = before ? `loss on this text ${fixed(was)} → ${fixed(now)} nats (${signed(now - was)})` : `loss on this text ${fixed(now)} nats`;
      parts.push(" · ", h("span", { class: "loss" }, text));
    }
    if (this.off.size) {
      const names = [...this.off].join(", ");
      parts.push(" · ", h("span", { title: names }, this.off.size > 3 ? `${this.off.size} parts are off ` : `off: ${names} `),
        h("button", { type: "button", "data-key": "all-on", onclick: () => this.send("off", []) }, "switch all on"));
    }
    return h("header", {}, h("div", { class: "summary" }, ...parts), h("p", { class: "error", role: "alert" }));
  }

  text() {
    this.options = [];
    const lists = this.data.sequences.map(({ name, tokens }, s) => {
      const options = tokens.map((token, i) => {
        const chosen = i === this.state.positions[s];
        const option = h("span", {
          role: "option", class: "token", "aria-selected": String(chosen), tabindex: chosen ? 0 : -1,
          "aria-label": `position ${i}, ${visible(token)}`, "data-key": `token-${s}-${i}`, "data-i": i,
        }, visible(token));
        const change = this.change(s, i);
        if (change) option.append(h("sup", { title: `loss of this token ${signed(change)}` }, change > 0 ? "▲" : "▼"));
        return option;
      });
      this.options.push(options);
      const list = h("div", { class: "tokens", role: "listbox", "aria-label": `${name}: choose a position`, "data-sequence": s }, ...options);
      const at = (event) => event.target.closest?.(".token")?.dataset.i;
      list.addEventListener("pointerover", (e) => at(e) !== undefined && this.point({ sequence: s, position: +at(e) }));
      list.addEventListener("pointerleave", () => this.point(null));
      list.addEventListener("focusin", (e) => at(e) !== undefined && this.choose(s, +at(e)));
      list.addEventListener("click", (e) => at(e) !== undefined && options[+at(e)].focus());
      list.addEventListener("keydown", (e) => {
        const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -1e9, End: 1e9 }[e.key];
        if (!step) return;
        e.preventDefault();
        options[Math.max(0, Math.min(tokens.length - 1, this.state.positions[s] + step))].focus();
      });
      return this.data.sequences.length > 1 ? h("div", {}, h("div", { class: "kind" }, name), list) : list;
    });
    this.readout = h("p", { class: "readout", role: "status" });
    const find = h("input", { type: "search", placeholder: "find a token or position", "aria-label": "find a token or position", "data-key": "find" });
    find.addEventListener("keydown", (e) => { if (e.key === "Enter") this.find(find.value); });
    return h("section", { class: "text", "aria-label": "Text" }, ...lists,
      h("p", { class: "legend" }, h("span", { class: "key attends" }), "the query attends to ", h("span", { class: "key attended" }), "is attended to by ",
        this.before ? "▲ ▼ loss of this token rose or fell by more than 0.1 " : "", find), this.readout);
  }

  find(term) {
    const s = this.attention.queries;
    const tokens = this.tokens(s);
    const from = this.query + 1;
    const wanted = term.toLowerCase();
    const order = tokens.map((_, n) => (from + n) % tokens.length);
    const hit = /^\d+$/.test(term) && +term < tokens.length ? +term : order.find((i) => wanted && (tokens[i].toLowerCase().includes(wanted) || visible(tokens[i]) === term));
    if (hit === undefined) this.readout.textContent = `no token contains “${term}”`;
    else this.options[s][hit].focus();
  }

  // By how much switching parts off has raised the loss of a token, if by more than 0.1.
  change(sequence, i) {
    if (!this.before?.loss || sequence !== this.output || i === 0) return 0;
    const change = this.loss[i - 1] - this.before.loss[i - 1];
    return Math.abs(change) > 0.1 ? change : 0;
  }

  choose(sequence, position) {
    const { positions } = this.state;
    const old = this.options[sequence][positions[sequence]];
    old.setAttribute("aria-selected", "false");
    old.tabIndex = -1;
    positions[sequence] = position;
    if (sequence === this.attention.queries) this.cursor[0] = position;
    const chosen = this.options[sequence][position];
    chosen.setAttribute("aria-selected", "true");
    chosen.tabIndex = 0;
    this.point({ sequence, position });
    this.refresh(".query", this.queryPanel());
    if (sequence === this.output) {
      this.refresh(".lens", this.lensPanel());
      this.refreshNext();
    }
  }

  refresh(selector, panel) {
    const old = this.root.querySelector(selector);
    const focused = old?.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    old?.replaceWith(panel);
    if (focused) panel.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  // Show what a position attends to, and what attends to it; by default of the chosen query.
  point(target) {
    const { attention: a, state } = this;
    const { sequence, position } = target ?? { sequence: a.queries, position: this.query };
    const w = a.weights(state.head);
    const row = sequence === a.queries ? Array.from(w.subarray(position * a.S, (position + 1) * a.S)) : null;
    const column = sequence === a.keys ? Array.from({ length: a.T }, (_, i) => w[i * a.S + position]) : null;
    const high = Math.max(...(row ?? [0])) || 1;
    this.options.forEach((options, s) => options.forEach((option, i) => {
      const to = row && s === a.keys ? row[i] / high : 0;
      const by = column && s === a.queries ? column[i] : 0;
      const color = this.shade(to);
      option.style.background = to > 0.01 ? `rgb(${color})` : "";
      option.style.color = to > 0.01 ? this.contrast(color) : "";
      option.style.setProperty("--by", by > 0.01 ? `${Math.max(1, Math.round(6 * by))}px` : "0px");
    }));
    const list = (values, of) => values.map((p, i) => [p, i]).sort((x, y) => y[0] - x[0]).slice(0, 5).filter(([p]) => p >= 0.0005)
      .map(([p, i]) => `${this.named(of, i)} (${fixed(p, 3)})`).join(", ");
    const says = [];
    if (row) says.push(`attends to ${list(row, a.keys) || "nothing"}`);
    if (column) says.push(`is attended to by ${list(column, a.queries) || "nothing"}`);
    const attended = target || row ? `${this.named(sequence, position)} ${says.join("; ")}` : "";
    this.readout.textContent = attended;
    this.mark(row ? position : null, column && !row ? position : null);
  }

  shade(share) {
    const { ramp } = this.colors;
    const x = Math.max(0, Math.min(1, share)) * 2;
    return x < 1 ? mix(ramp[0], ramp[1], x) : mix(ramp[1], ramp[2], x - 1);
  }

  // Black or white, whichever can be read better on a color: by its luminance in WCAG 2.1.
  contrast(color) {
    const [r, g, b] = color.map((x) => ((x / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
  }

  // --- The stack of layers ------------------------------------------------------------------------------

  // What the residual stream passes through, from the embedding to the last layer.
  stack() {
    const longest = Math.max(...this.layers.flatMap(({ size }) => (size ? Array.from(size) : [])));
    const rows = this.layers.flatMap((layer) => {
      const heads = layer.attentions.flatMap((n) => {
        const a = this.attentions[n];
        const grid = h("div", { class: "heads" }, ...Array.from({ length: a.heads }, (_, head) => this.thumbnail(n, head)));
        return a.name.endsWith("cross_attention") ? [h("div", { class: "kind" }, "cross-attention"), grid] : [grid];
      });
      const parts = [this.switch(layer.name, layer.name)];
      if (layer.feed_forward) parts.push(this.switch(layer.feed_forward, "feed-forward", `feed-forward of ${layer.name}`, this.off.has(layer.name)));
      const box = heads.length ? h("div", { class: "layer" }, h("div", { class: "parts" }, ...parts), h("div", {}, ...heads)) : "";
      const strip = layer.size ? h("div", { class: "stream" }, this.strip(layer.size, "sizes", 8, 300, longest), h("span", {}, `after ${layer.label}: ${fixed(layer.size.reduce((a, b) => a + b) / layer.size.length)}`)) : "";
      return [box, strip];
    });
    return h("section", { class: "stack", "aria-label": "Layers and heads" }, h("h3", {}, "Layers and heads"), ...rows,
      h("p", { class: "note" }, `The strips are the residual stream: the length of the vector at each position, all on one scale, and the mean. ${this.data.live ? "Clear a check box to switch a part off." : "Switching a part off needs a running kernel."}`));
  }

  switch(name, label, spoken = label, withLayer = false) {
    const box = h("input", { type: "checkbox", "aria-label": spoken, "data-key": `switch-${name}`, "data-part": name, disabled: !this.data.live || withLayer });
    box.checked = !this.off.has(name) && !withLayer;
    box.addEventListener("change", () => this.toggle(name));
    return h("label", {}, box, label);
  }

  // A check box that changes what the view shows.
  box(key, label, checked, change) {
    const input = h("input", { type: "checkbox", "data-key": key });
    input.checked = checked;
    input.addEventListener("change", () => change(input.checked));
    return h("label", {}, input, label);
  }

  toggle(name) {
    if (!this.data.live) return;
    const off = new Set(this.off);
    if (!off.delete(name)) off.add(name);
    this.send("off", [...off]);
  }

  isOff(a, head) { return this.off.has(`${a.name}.heads.${head}`) || this.off.has(a.layer) || this.off.has(a.name); }

  thumbnail(n, head) {
    const a = this.attentions[n];
    const part = `${a.name}.heads.${head}`;
    const chosen = n === this.state.attention && head === this.state.head;
    const canvas = h("canvas", { width: 64, height: 64, "aria-hidden": "true" });
    this.waiting.push(() => this.paintPattern(canvas, a, head));
    const button = h("button", {
      type: "button", class: this.isOff(a, head) ? "head off" : "head", "aria-pressed": String(chosen), tabindex: chosen ? 0 : -1, "data-key": part, "data-head": head,
      "aria-label": `${a.name}, head ${head}${this.isOff(a, head) ? ", switched off" : ""}`, onclick: () => this.select(n, head),
    }, canvas);
    button.addEventListener("keydown", (e) => {
      if (e.key === "x" && !this.off.has(a.layer)) this.toggle(part);
      const all = [...this.root.querySelectorAll("button.head")];
      const here = all.indexOf(button);
      const next = { ArrowRight: here + 1, ArrowLeft: here - 1, ArrowDown: here + a.heads, ArrowUp: here - a.heads, Home: 0, End: all.length - 1 }[e.key];
      if (next === undefined) return;
      e.preventDefault();
      all[Math.max(0, Math.min(all.length - 1, next))].focus();
    });
    return h("div", { class: "one" }, button, this.switch(part, `${head}`, `head ${head} of ${a.name}`, this.off.has(a.layer)));
  }

  select(n, head) {
    Object.assign(this.state, { attention: n, head });
    for (const button of this.root.querySelectorAll("button.head")) {
      const chosen = button.dataset.key === `${this.attention.name}.heads.${head}`;
      button.setAttribute("aria-pressed", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    }
    this.refresh(".pattern", this.headPanel());
    this.refresh(".query", this.queryPanel());
    this.point(null);
  }

  drawThumbnails() {
    const step = () => {
      const start = performance.now();
      while (this.waiting.length && performance.now() - start < 8) this.waiting.shift()();
      if (this.waiting.length) this.frame = requestAnimationFrame(step);
    };
    step();
  }

  // A pattern on a canvas of any size: each pixel shows the largest weight of the cells under it.
  paintPattern(canvas, a, head, cell = 0) {
    const w = a.weights(head);
    const { T, S } = a;
    const width = cell ? S : Math.min(S, 64);
    const height = cell ? T : Math.min(T, 64);
    const high = new Float32Array(width * height);
    for (let i = 0; i < T; i++) {
      const y = Math.floor((i * height) / T) * width;
      const row = w.subarray(i * S, (i + 1) * S);
      const scale = this.state.byRow ? 1 / (row.reduce((x, p) => Math.max(x, p), 0) || 1) : 1;
      for (let j = 0; j < S; j++) {
        const at = y + Math.floor((j * width) / S);
        if (row[j] * scale > high[at]) high[at] = row[j] * scale;
      }
    }
    canvas.width = width;
    canvas.height = height;
    const image = new ImageData(width, height);
    const table = Array.from({ length: 256 }, (_, n) => this.shade(Math.sqrt(n / 255)));
    high.forEach((x, n) => image.data.set([...table[Math.round(255 * Math.min(1, x))], 255], 4 * n));
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  // A vector as a strip of cells; negative cells have a line across, so that they can be told apart in grey.
  strip(values, kind, height = 14, widest = 110, most = 0) {
    const cell = Math.max(1, Math.min(12, Math.floor(widest / values.length)));
    const canvas = h("canvas", { width: cell * values.length, height, class: "strip", role: "img", "aria-label": Array.from(values, (x) => fixed(x)).slice(0, 64).join(" ") });
    const context = canvas.getContext("2d");
    const high = most || values.reduce((a, x) => Math.max(a, Math.abs(x)), 0) || 1;
    const { zero, positive, negative } = this.colors;
    values.forEach((x, n) => {
      const color = kind === "sizes" ? this.shade(x / high) : mix(zero, x < 0 ? negative : positive, Math.abs(x) / high);
      context.fillStyle = `rgb(${color})`;
      context.fillRect(n * cell, 0, cell, height);
      if (kind !== "sizes" && x < -0.05 * high && cell >= 4) {
        context.fillStyle = this.contrast(color);
        context.fillRect(n * cell + 1, height / 2, cell - 2, 1);
      }
    });
    return canvas;
  }

  // --- One head -----------------------------------------------------------------------------------------

  headPanel() {
    const { attention: a, state } = this;
    const { T, S } = a;
    const labelled = Math.max(T, S) <= LABELLED;
    const longest = labelled ? Math.max(...this.tokens(a.queries).map((token) => short(visible(token)).length)) : 0;
    const width = this.root.clientWidth || 480;
    const room = Math.min(labelled ? 420 : 520, (width < 820 ? width : width / 2 - 14) - 28 - 7 * longest);
    const cell = Math.max(1, Math.min(26, Math.floor(room / Math.max(T, S))));
    const canvas = h("canvas", { class: "cells", style: `width:${cell * S}px;height:${cell * T}px`, role: "img", "aria-label": `weights of head ${state.head}, ${T} queries by ${S} keys; the table below has the numbers` });
    this.paintPattern(canvas, a, state.head, cell);
    this.overlay = h("canvas", { class: "overlay", width: cell * S, height: cell * T, tabindex: 0, "data-key": "cells", role: "application", "aria-label": "pattern: arrow keys move over queries and keys" });
    this.cell = cell;
    this.cursor = [Math.min(this.query, T - 1), 0];
    const where = (e) => {
      const box = this.overlay.getBoundingClientRect();
      return [Math.floor(((e.clientY - box.top) / box.height) * T), Math.floor(((e.clientX - box.left) / box.width) * S)].map((n, k) => Math.max(0, Math.min([T, S][k] - 1, n)));
    };
    const show = ([i, j]) => {
      this.cursor = [i, j];
      this.point({ sequence: a.queries, position: i });
      this.mark(i, j);
      const masked = a.allowed(i, j, state.head) ? `weight ${fixed(a.weights(state.head)[i * S + j], 3)}, score ${fixed(a.score(state.head, i, j))}` : "masked";
      this.readout.textContent = `query ${this.named(a.queries, i)} → key ${this.named(a.keys, j)}: ${masked}`;
    };
    this.overlay.addEventListener("pointermove", (e) => show(where(e)));
    this.overlay.addEventListener("pointerleave", () => this.point(null));
    this.overlay.addEventListener("click", (e) => this.choose(a.queries, where(e)[0]));
    this.overlay.addEventListener("focus", () => show(this.cursor));
    this.overlay.addEventListener("keydown", (e) => {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[e.key];
      if (e.key === "Enter") this.choose(a.queries, this.cursor[0]);
      if (!step) return;
      e.preventDefault();
      show([0, 1].map((n) => Math.max(0, Math.min([T, S][n] - 1, this.cursor[n] + step[n]))));
    });
    const upright = this.tokens(a.keys).every((t) => t.length <= 2) ? "upright" : "";
    const axis = (sequence, name, side) => labelled ? h("div", { class: `${name} ${upright}`, "aria-hidden": "true" }, ...this.tokens(sequence).map((t) => h("span", { style: `${side}:${cell}px` }, short(visible(t))))) : "";
    const picture = h("div", { class: "picture" }, axis(a.keys, "across", "width"), axis(a.queries, "down", "height"), h("div", { class: "layered" }, canvas, this.overlay));
    const exact = h("details", { open: state.exact }, h("summary", { "data-key": "exact" }, "All weights of this head"));
    exact.addEventListener("toggle", () => {
      state.exact = exact.open;
      if (exact.open && exact.children.length === 1) exact.append(this.exactTable());
    });
    return h("section", { class: "pattern", "aria-label": "One head" }, h("h3", {}, `${a.name}, head ${state.head}`),
      h("p", { class: "note" }, `Rows are queries, columns are keys; the ${this.root.dataset.theme === "dark" ? "brightest" : "darkest"} color is weight 1. `,
        this.box("by-row", "color each row by its largest weight", this.state.byRow, (x) => { this.state.byRow = x; this.draw(); })), picture, exact);
  }

  // Outline a row of the pattern, or a column, or both.
  mark(row, column) {
    const context = this.overlay?.getContext("2d");
    if (!context) return;
    const { width, height } = this.overlay;
    context.clearRect(0, 0, width, height);
    const draw = (...box) => {
      context.strokeStyle = getComputedStyle(this.root).getPropertyValue("--focus");
      context.lineWidth = 2;
      context.strokeRect(...box);
    };
    if (row !== null) draw(0.5, row * this.cell + 0.5, width - 1, Math.max(2, this.cell - 1));
    if (column !== null) draw(column * this.cell + 0.5, 0.5, Math.max(2, this.cell - 1), height - 1);
  }

  exactTable() {
    const { attention: a, state } = this;
    const w = a.weights(state.head);
    const names = this.tokens(a.keys).map((_, j) => h("th", { scope: "col" }, this.named(a.keys, j)));
    const rows = this.tokens(a.queries).map((_, i) => h("tr", {}, h("th", { scope: "row" }, this.named(a.queries, i)),
      ...Array.from(w.subarray(i * a.S, (i + 1) * a.S), (p) => h("td", {}, p === 0 ? "0" : fixed(p, 4)))));
    return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "all weights" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "query \\ key"), ...names)), h("tbody", {}, ...rows)));
  }

  // --- One query ----------------------------------------------------------------------------------------

  queryPanel() {
    const { attention: a, state, query: i } = this;
    const w = a.weights(state.head).subarray(i * a.S, (i + 1) * a.S);
    const order = [...w.keys()].sort((x, y) => w[y] - w[x] || x - y);
    const shown = state.all ? order : order.slice(0, LISTED);
    if (!state.byWeight) shown.sort((x, y) => x - y);
    const vector = (values) => {
      const numbers = Array.from(values, (x) => fixed(x)).join("  ");
      return state.numbers || a.d_k <= 4 ? h("code", {}, numbers) : this.strip(values, "signed");
    };
    const high = Math.max(...w) || 1;
    const rows = shown.map((j) => {
      const open = a.allowed(i, j, state.head);
      return h("tr", {},
        h("th", { scope: "row" }, this.named(a.keys, j)), h("td", { class: "number" }, fixed(a.score(state.head, i, j))), h("td", {}, open ? "open" : "masked"),
        h("td", { class: "number" }, h("span", { class: "bar", style: `--share:${w[j] / high}` }), fixed(w[j], 3)),
        h("td", {}, vector(a.vector("k", state.head, j))), h("td", {}, vector(a.vector("v", state.head, j))));
    });
    const set = (name) => (x) => { state[name] = x; this.refresh(".query", this.queryPanel()); };
    const head = ["key", "score q·k/√d_k", "mask", "weight", "k", "v"].map((name) => h("th", { scope: "col" }, name));
    return h("section", { class: "query", "aria-label": "One query" },
      h("h3", {}, `One query: ${this.named(a.queries, i)}`),
      h("div", { class: "controls" }, this.box("by-weight", "largest weight first", state.byWeight, set("byWeight")),
        this.box("numbers", "vectors as numbers", state.numbers, set("numbers")),
        a.S > LISTED ? this.box("all-keys", `all ${a.S} keys`, state.all, set("all")) : ""),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "keys of this query" }, h("table", {},
        h("caption", {}, `q = `, vector(a.vector("q", state.head, i)), shown.length < a.S ? ` the ${shown.length} keys with the largest weights, together ${fixed(shown.reduce((s, j) => s + w[j], 0))}` : ""),
        h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows),
        h("tfoot", {}, h("tr", {}, h("th", { scope: "row", colspan: 3 }, "output = sum of weight × v"), h("td", { class: "number" }, fixed(w.reduce((x, y) => x + y, 0))), h("td"), h("td", {}, vector(a.output(state.head, i))))))));
  }

  // --- Logits -------------------------------------------------------------------------------------------

  lensPanel() {
    if (!this.lens) return h("section", { class: "lens" });
    const { lens, output, data: { ahead } } = this;
    const i = this.state.positions[output];
    const T = this.tokens(output).length;
    const n = lens.kept;
    const target = i + ahead < T ? visible(this.tokens(output)[i + ahead]) : null;
    const rows = lens.stages.map((stage, s) => {
      const cells = Array.from({ length: n }, (_, c) => {
        const at = (s * T + i) * n + c;
        const color = this.shade(lens.p[at]);
        const label = short(this.label(lens.ids[at]));
        const right = i + ahead < T && lens.ids[at] === this.data.sequences[output].ids[i + ahead];
        return h("td", { style: `background:rgb(${color});color:${this.contrast(color)}` }, right ? h("b", {}, label) : label, h("small", {}, ` ${fixed(lens.p[at])}`));
      });
      return h("tr", {}, h("th", { scope: "row" }, stage), ...cells, ...(target ? [h("td", { class: "number" }, fixed(lens.next[s * T + i]))] : []));
    });
    const places = Array.from({ length: n }, (_, c) => h("th", { scope: "col" }, `${c + 1}.`));
    return h("section", { class: "lens", "aria-label": "Logits after every layer" }, h("h3", {}, `After every layer: what ${ahead ? "comes after" : "is at"} ${this.named(output, i)}?`),
      h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "tokens after every layer" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "stream after"), ...places, ...(target ? [h("th", { scope: "col" }, `p(${short(target)}), the ${ahead ? "next " : ""}token`)] : []))), h("tbody", {}, ...rows))));
  }

  row(values, position) {
    const V = this.data.vocabulary;
    const n = this.logits.positions.indexOf(position);
    return values.subarray(n * V, (n + 1) * V);
  }

  get stops() { // of the slider for top-k: 1, 2, 3, 5, 10, 20, ... and all
    const V = this.data.vocabulary;
    const found = [];
    for (let ten = 1; ten < V; ten *= 10) found.push(...[1, 2, 3, 5].map((n) => n * ten).filter((k) => k < V));
    return [...found, V];
  }

  nextPanel() {
    if (!this.logits) return h("section", { class: "next" }, h("p", { class: "note" }, "This model has no head: it gives no logits."));
    const { state } = this;
    const slider = (key, label, min, max, step, value, text, change) => {
      const output = h("output", {}, text(value));
      const input = h("input", { type: "range", min, max, step, "data-key": key });
      input.value = value;
      input.addEventListener("input", () => { change(+input.value); output.textContent = text(+input.value); this.refreshNext(); });
      return h("label", {}, h("span", {}, label), input, output);
    };
    const { stops } = this;
    const place = Math.max(0, stops.indexOf(state.topK));
    this.bars = h("div", { class: "bars" });
    this.drawn = h("p", { class: "drawn", role: "status" }, state.drawn);
    const panel = h("section", { class: "next", "aria-label": "Next token" }, h("h3", {}),
      h("div", { class: "sliders" },
        slider("temperature", "temperature", 0, 2, 0.05, state.temperature, (x) => (x ? fixed(x) : "0: greedy"), (x) => (state.temperature = x)),
        slider("top-k", "top-k", 0, stops.length - 1, 1, place, (x) => (stops[x] === stops.at(-1) ? "all" : `${stops[x]}`), (x) => (state.topK = stops[x])),
        slider("top-p", "top-p", 0.05, 1, 0.01, state.topP, (x) => fixed(x), (x) => (state.topP = x))),
      this.bars,
      this.data.ahead ? h("button", { type: "button", "data-key": "append", onclick: () => this.sample() }, this.data.live ? "Append a sampled token" : "Sample a token") : "", this.drawn);
    this.next = panel;
    this.refreshNext();
    return panel;
  }

  probabilities(values, position) {
    const { temperature, topK, topP } = this.state;
    return distribution(this.row(values, position), temperature, topK, topP);
  }

  refreshNext() {
    if (!this.logits) return;
    const wanted = this.state.positions[this.output];
    const i = this.logits.positions.includes(wanted) ? wanted : this.logits.positions.at(-1);
    this.next.querySelector("h3").textContent = `${this.data.ahead ? "Next token after" : "Token at"} ${this.named(this.output, i)}`;
    const now = this.probabilities(this.logits.values, i);
    const before = this.before && new Map(this.probabilities(this.before.logits, i).map(({ id, p }) => [id, p]));
    const high = Math.max(now[0].p, ...(before ? before.values() : []));
    const rows = now.slice(0, LISTED).map(({ id, p }) => {
      const was = before ? before.get(id) ?? 0 : null;
      return h("tr", {}, h("th", { scope: "row" }, this.label(id)),
        h("td", { class: "chart" }, h("span", { class: "bar", style: `--share:${p / high}` }), was === null ? "" : h("span", { class: "was", style: `--share:${was / high}` })),
        h("td", { class: "number" }, fixed(p, 3)), ...(was === null ? [] : [h("td", { class: "number" }, fixed(was, 3))]));
    });
    const head = ["token", "", "probability", ...(before ? ["all on"] : [])].map((name) => h("th", { scope: "col" }, name));
    const note = `${now.length} of ${this.data.vocabulary} tokens can be sampled${now.length > LISTED ? `; the ${LISTED} most probable are listed` : ""}`;
    this.bars.replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...rows)), h("p", { class: "note" }, note));
  }

  // Draw a token after the whole text; with a kernel, append it.
  sample() {
    const last = this.tokens(this.output).length - 1;
    const choices = this.probabilities(this.logits.values, last);
    let left = this.random();
    const { id, p } = choices.find((choice) => (left -= choice.p) < 0) ?? choices.at(-1);
    this.state.drawn = `sampled ${this.label(id)}, which had probability ${fixed(p)}`;
    this.drawn.textContent = this.state.drawn;
    if (!this.data.live) return;
    this.appended = true;
    this.send("ids", [...this.data.sequences[this.output].ids, id]);
  }
}

function render({ model, el }) {
  const view = new View(model, el);
  return () => view.remove();
}

export default { render };
