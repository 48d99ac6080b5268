"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = id => document.getElementById(id);
  const { nodes, groups } = data;
  const GAP = 46, LANE = 9, PAD = 16, CLOSED_WIDTH = 380, HEAD = 46;
  const users = nodes.map(() => []);
  nodes.forEach((n, i) => new Set(n.operands).forEach(o => users[o].push(i)));
  let chosen = null, zoom = 1, width = 0, height = 0, drawn = new Map(), hits = [], hit = -1;

  // Model text only ever becomes text nodes and attributes.
  const make = (space, tag, attributes, ...children) => {
    const e = space ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [k, v] of Object.entries(attributes || {})) if (v !== null) e.setAttribute(k, v);
    e.append(...children.filter(c => c !== null));
    return e;
  };
  const svg = (tag, attributes, ...children) => make(true, tag, attributes, ...children);
  const html = (tag, attributes, ...children) => make(false, tag, attributes, ...children);
  const count = n => n.toLocaleString("en-US");
  const amount = n => n >= 1e9 ? (n / 1e9).toFixed(2) + " G" : n >= 1e6 ? (n / 1e6).toFixed(2) + " M"
    : n >= 1e4 ? (n / 1e3).toFixed(1) + " k" : count(n);
  const short = (s, room) => s.length <= room ? s : s.slice(0, Math.max(1, room - 1)) + "…";
  const constants = () => byId("constants").checked;
  const plan = g => g.layouts[constants() ? 1 : 0];

  const curve = points => {
    let d = `M${points[0]} ${points[1]}`;
    for (let i = 2; i < points.length; i += 2) {
      const [x0, y0, x1, y1] = points.slice(i - 2, i + 2);
      const bend = (y1 - y0) / 2;
      d += x0 === x1 ? `V${y1}` : `C${x0} ${y0 + bend} ${x1} ${y1 - bend} ${x1} ${y1}`;
    }
    return d;
  };
  const edge = (from, to, d, tip) => {
    const about = { "data-from": from, "data-to": to === null ? "" : to };
    const line = svg("path", { class: "edge", d, ...about });
    if (!tip) return [line];
    const [x, y] = tip;
    return [line, svg("path", { class: "tip", d: `M${x - 3.5} ${y - 6}L${x + 3.5} ${y - 6}L${x} ${y}Z`, ...about })];
  };

  const drawNode = ([i, x, y, w, h]) => {
    const n = nodes[i];
    const where = n.source ? `\n${n.source[1]} ${n.source[0]}` : "";
    const e = svg("g", { class: `node ${n.kind}`, transform: `translate(${x} ${y})`, tabindex: 0, "data-node": i },
      svg("title", null, document.createTextNode(`${n.name}: ${n.title} ${n.type}${where}`)),
      svg("rect", { width: w, height: h, rx: n.kind === "port" ? h / 2 : 6, style: `fill: var(--${n.kind})` }),
      svg("text", { class: "op", x: w / 2, y: 16 }, short(n.title, Math.floor((w - 12) / 7))),
      svg("text", { class: "shape", x: w / 2, y: 30 }, short(n.shape, Math.floor((w - 12) / 6))));
    drawn.set(i, e);
    return e;
  };

  const drawHead = (g, i, w, h) => {
    const foldable = groups.length > 1;
    const e = svg("g", { class: foldable ? "head" : null, tabindex: foldable ? 0 : null, role: "button",
      "aria-expanded": g.open, "data-group": i },
      svg("rect", { class: "band", width: w, height: h, rx: 9 }));
    return e;
  };
  /** A group's title, over the edges that cross it. */
  const drawTitle = (g, i) => {
    const same = g.sameAs === null ? "" : ` · same as ${groups[g.sameAs].title}`;
    const parameters = g.parameters ? ` · ${amount(g.parameters)} parameters` : "";
    const ops = `${count(g.ops)} op${g.ops === 1 ? "" : "s"}`;
    const e = svg("g", { class: "head", "data-group": i });
    if (groups.length > 1) {
      e.append(
        svg("text", { class: "mark", x: 14, y: 20 }, g.open ? "▼" : "▶"),
        svg("text", { class: "name", x: 32, y: 20 }, g.title),
        svg("text", { class: "about", x: 32, y: 37 }, ops + parameters + same));
    }
    return e;
  };

  /** Draws everything: groups one below the other, then the edges between them. */
  const draw = () => {
    drawn = new Map();
    const back = svg("g"), front = svg("g");
    const head = groups.length > 1 ? HEAD : 0;
    const body = g => g.open ? { w: Math.max(plan(g).width, head ? CLOSED_WIDTH : 0), h: plan(g).height + head }
      : { w: CLOSED_WIDTH, h: HEAD };
    const sizes = groups.map(body);
    const widest = Math.max(...sizes.map(s => s.w));
    let y = PAD;
    const boxes = sizes.map(({ w, h }) => {
      const box = { x: PAD + Math.round((widest - w) / 2), y, w, h };
      y += h + GAP;
      return box;
    });
    groups.forEach((g, i) => {
      const b = boxes[i], l = plan(g);
      // Where each edge from or to another group meets the border.
      b.shift = Math.round((b.w - l.width) / 2);
      const ports = list => new Map(list.map(([n, x]) => [n, g.open ? b.x + b.shift + x : b.x + b.w / 2]));
      b.entries = ports(l.entries);
      b.exits = ports(l.exits);
      const e = svg("g", { transform: `translate(${b.x} ${b.y})` }, drawHead(g, i, b.w, b.h));
      if (g.open) {
        const inner = svg("g", { transform: `translate(${b.shift} ${head})` });
        l.edges.forEach(([from, to, points]) => {
          const tip = to === null ? null : points.slice(-2);
          inner.append(...edge(from, to, curve(points), tip));
          // An edge from above starts at the border, over the group's head.
          if (nodes[from].group !== i && head) inner.append(...edge(from, to, `M${points[0]} 0V${-head}`, null));
        });
        l.nodes.forEach(n => inner.append(drawNode(n)));
        e.append(inner);
      }
      e.append(drawTitle(g, i));
      front.append(e);
    });
    // Neighbours are joined directly, others by a lane at the right, one for each value.
    const lanes = new Map(), seen = new Set();
    const right = PAD + widest + 14;
    const ends = groups.map((g, i) => ({ i, b: boxes[i] }));
    ends.forEach(({ i, b }) => b.entries.forEach((x1, from) => {
      const source = nodes[from].group, a = boxes[source];
      const x0 = a.exits.get(from), y0 = a.y + a.h;
      const key = [groups[source].open ? from : `g${source}`, groups[i].open ? from : `g${i}`, i].join();
      if (x0 === undefined || seen.has(key)) return;
      seen.add(key);
      const tip = groups[i].open ? null : [x1, b.y];
      const to = groups[i].open ? null : -1 - i;
      if (i === source + 1) {
        back.append(...edge(from, to, curve([x0, y0, x1, b.y]), tip));
        return;
      }
      const who = groups[source].open ? `n${from}` : `g${source}`;
      if (!lanes.has(who)) lanes.set(who, lanes.size);
      const lane = right + lanes.get(who) * LANE;
      const out = y0 + 8 + lanes.get(who) % 4 * 4, into = b.y - 10 - lanes.get(who) % 4 * 4;
      back.append(...edge(from, to, `M${x0} ${y0}V${out - 5}Q${x0} ${out} ${x0 + 5} ${out}H${lane - 5}Q${lane} ${out} ` +
        `${lane} ${out + 5}V${into - 5}Q${lane} ${into} ${lane - 5} ${into}H${x1 + 5}Q${x1} ${into} ${x1} ${into + 5}` +
        `V${b.y}`, tip));
    }));
    width = right + lanes.size * LANE + PAD;
    height = y - GAP + PAD;
    byId("svg").replaceChildren(back, front);
    scale(zoom);
    mark();
    filter();
  };

  const scale = z => {
    zoom = Math.min(4, Math.max(0.1, z));
    const s = byId("svg");
    s.setAttribute("viewBox", `0 0 ${width} ${height}`);
    s.setAttribute("width", width * zoom);
    s.setAttribute("height", height * zoom);
  };

  const mark = () => {
    document.querySelectorAll(".chosen, .hot").forEach(e => e.classList.remove("chosen", "hot"));
    if (chosen === null) return;
    const e = drawn.get(chosen);
    if (e) e.classList.add("chosen");
    document.querySelectorAll("[data-from]").forEach(e => {
      if (+e.dataset.from === chosen || e.dataset.to === String(chosen)) e.classList.add("hot");
    });
  };

  const link = i => {
    const a = html("a", { tabindex: 0 }, `${nodes[i].name} ${nodes[i].title}`);
    a.onclick = () => choose(i, true);
    a.onkeydown = e => { if (e.key === "Enter") choose(i, true); };
    return html("div", null, a);
  };
  const list = rows => {
    const dl = html("dl");
    rows.filter(r => r[1] !== null).forEach(([k, v]) => dl.append(html("dt", null, k), html("dd", null, ...[v].flat())));
    return dl;
  };

  /** Fills the side panel: of the chosen node, or of the whole. */
  const describe = () => {
    const side = byId("side");
    if (chosen === null) {
      side.replaceChildren(html("h2", null, data.title), list(data.facts));
      return;
    }
    const n = nodes[chosen];
    const chip = html("span", { class: "chip", style: `background: var(--${n.kind})` });
    const back = html("a", { tabindex: 0 }, "about the model");
    back.onclick = () => { chosen = null; mark(); describe(); };
    const links = l => l.length ? l.map(link) : null;
    side.replaceChildren(
      html("h2", null, chip, n.title),
      list([
        ["name", n.name], ["type", html("code", null, n.type)],
        ["node", n.source && n.source[0]], ["ONNX op", n.source && n.source[1]],
        ["part of", groups[n.group].title],
        ["multiply-adds", n.multiplyAdds && html("code", null, n.multiplyAdds)],
        ["parameters", n.parameters ? count(n.parameters) : null],
        ["operands", links(n.operands)], ["users", links(users[chosen])],
      ]));
    if (n.ir) side.append(html("pre", null, html("code", null, n.ir)));
    side.append(html("p", null, back));
  };

  const choose = (i, scroll) => {
    chosen = i;
    if (nodes[i].constant && !constants()) byId("constants").checked = true;
    if (!drawn.has(i)) {
      groups[nodes[i].group].open = true;
      draw();
    }
    mark();
    describe();
    if (scroll && drawn.has(i)) drawn.get(i).scrollIntoView({ block: "center", inline: "center" });
  };

  /** Highlights what the search box asks for; Enter goes from one to the next, also in closed groups. */
  const filter = () => {
    const wanted = byId("search").value.trim().toLowerCase();
    byId("svg").classList.toggle("searching", wanted !== "");
    hits = [];
    nodes.forEach((n, i) => {
      const text = [n.name, n.title, n.type, ...(n.source || [])].join(" ").toLowerCase();
      const found = wanted !== "" && (constants() || !n.constant) && text.includes(wanted);
      if (found) hits.push(i);
      const e = drawn.get(i);
      if (e) e.classList.toggle("hit", found);
    });
    byId("found").textContent = wanted === "" ? "" : `${hits.length} found`;
  };

  const toggle = i => {
    const view = byId("view"), before = document.querySelector(`[data-group="${i}"]`).getBoundingClientRect().top;
    groups[i].open = !groups[i].open;
    draw();
    // What was clicked stays under the pointer.
    const after = document.querySelector(`[data-group="${i}"]`);
    view.scrollTop += after.getBoundingClientRect().top - before;
    after.focus({ preventScroll: true });
  };
  const act = target => {
    const node = target.closest("[data-node]"), group = target.closest("[data-group]");
    if (node) choose(+node.dataset.node, false);
    else if (group && groups.length > 1) toggle(+group.dataset.group);
    else return false;
    return true;
  };
  const all = open => { groups.forEach(g => { if (g.layer) g.open = open; }); draw(); };

  byId("svg").onclick = e => { if (!act(e.target) && chosen !== null) { chosen = null; mark(); describe(); } };
  byId("svg").onkeydown = e => {
    if ((e.key === "Enter" || e.key === " ") && act(e.target)) e.preventDefault();
  };
  byId("search").oninput = () => { hit = -1; filter(); };
  byId("search").onkeydown = e => {
    if (e.key !== "Enter" || !hits.length) return;
    hit = (hit + (e.shiftKey ? hits.length - 1 : 1)) % hits.length;
    choose(hits[hit], true);
    byId("found").textContent = `${hit + 1} of ${hits.length}`;
  };
  byId("open").onclick = () => all(true);
  byId("close").onclick = () => all(false);
  byId("constants").onchange = draw;
  byId("larger").onclick = () => scale(zoom * 1.25);
  byId("smaller").onclick = () => scale(zoom / 1.25);
  byId("fit").onclick = () => scale((byId("view").clientWidth - 4) / width);
  byId("view").addEventListener("wheel", e => {
    if (!e.ctrlKey && !e.metaKey) return;
    e.preventDefault();
    scale(zoom * Math.exp(-e.deltaY / 400));
  }, { passive: false });

  byId("title").textContent = data.title;
  byId("phase").textContent = data.facts[0][1];
  data.kinds.forEach(k => byId("legend").append(html("span", null,
    html("span", { class: "chip", style: `background: var(--${k})` }), k)));
  describe();
  draw();
  const view = byId("view");
  if (width > view.clientWidth && groups.length === 1) view.scrollLeft = (width - view.clientWidth) / 2;
})();
