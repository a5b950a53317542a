"use strict";
// The page works without this script. It adds the choice of an image, labels in images, enlarging, hovering, and moving
// the thresholds.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;
  root.classList.add("js");

  // Show one image at a time.
  function choose(number) {
    for (const part of all(".of-picture")) part.classList.toggle("chosen", part.dataset.picture === String(number));
  }
  const choice = document.getElementById("picture-choice");
  choose(0);
  if (choice) choice.addEventListener("change", () => choose(choice.value));
  for (const link of all("[data-choose]")) {
    link.addEventListener("click", () => {
      if (choice) choice.value = link.dataset.choose;
      choose(link.dataset.choose);
    });
  }

  // Mark the section at the top of the window in the navigation, and end jumps below the bar where that is on top.
  const bar = document.querySelector(".bar");
  const nav = bar.querySelector("nav");
  const links = all("a", nav);
  const sections = links.map((link) => document.querySelector(link.hash));
  function mark() {
    const line = innerHeight / 3;
    const bottom = scrollY > 0 && scrollY + innerHeight >= root.scrollHeight - 2;
    const last = sections.findLastIndex((section) => section.getBoundingClientRect().top <= line);
    const current = links[bottom ? links.length - 1 : Math.max(0, last)];
    if (current.hasAttribute("aria-current")) return;
    for (const link of links) link.removeAttribute("aria-current");
    current.setAttribute("aria-current", "true");
    nav.scrollTo({ left: current.offsetLeft - nav.offsetLeft - (nav.clientWidth - current.offsetWidth) / 2 });
  }
  addEventListener("scroll", mark, { passive: true });
  new ResizeObserver(() => {
    root.style.setProperty("--bar", `${bar.offsetHeight}px`);
    mark();
  }).observe(bar);

  // Light or dark: the system's choice until the button is used.
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // Show the facts of the box under the pointer.
  const tip = document.getElementById("tip");
  const dialog = document.getElementById("large");
  document.addEventListener("pointermove", (event) => {
    const facts = event.target instanceof Element ? event.target.getAttribute("data-facts") : null;
    tip.hidden = !facts;
    if (!facts) return;
    const holder = dialog.open ? dialog : document.body; // an open dialog hides everything outside it
    if (tip.parentNode !== holder) holder.append(tip);
    tip.textContent = facts.trim();
    const size = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - size.width - 4))}px`;
    const below = event.clientY + 18;
    tip.style.top = `${below + size.height > innerHeight ? event.clientY - size.height - 10 : below}px`;
  });
  document.addEventListener("pointerdown", () => { tip.hidden = true; });

  // Write labels into an image, the best first, where they do not cover each other. Those without room are left out, and
  // so are the last ones of a crowd, so that the image stays visible.
  const ruler = document.createElement("canvas").getContext("2d");
  const shape = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  function ink(color) {
    const [r, g, b] = [1, 3, 5].map((at) => (parseInt(color.slice(at, at + 2), 16) / 255) ** 2.2);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
  }
  function label(svg) {
    for (const old of all(".labels", svg)) old.remove();
    const view = svg.viewBox.baseVal;
    const wide = svg.clientWidth || 700; // on paper, images are shown that were not on the screen
    const size = wide < 420 ? 10 : 12;
    const unit = view.width / wide;
    const layer = shape("g", { class: "labels" });
    let room = (wide < 420 ? 0.06 : 0.12) * view.width * view.height;
    const taken = [];
    ruler.font = `600 ${size}px system-ui, sans-serif`;
    const rows = all("[data-label]:not(.off)", svg).sort((a, b) => a.dataset.row - b.dataset.row);
    for (const row of rows) {
      const box = row.querySelector("rect");
      const [x, y, w, h] = ["x", "y", "width", "height"].map((name) => Number(box.getAttribute(name)));
      const width = (ruler.measureText(row.dataset.label).width + 6) * unit;
      const height = (size + 4) * unit;
      const right = view.x + view.width - width;
      const lefts = [x, x + w - width].map((left) => Math.max(view.x, Math.min(left, right)));
      const tops = [y - height, y + h, y, y + h - height];
      const places = tops.flatMap((top) => lefts.map((left) => [left, top]));
      const free = right < view.x || (taken.length >= 8 && width * height > room) ? null : places.find(([left, top]) => top >= view.y && top + height <= view.y + view.height
        && !taken.some(([l, t, r, b]) => left < r && l < left + width && top < b && t < top + height));
      if (!free) continue;
      room -= width * height;
      taken.push([free[0], free[1], free[0] + width, free[1] + height]);
      const color = box.getAttribute("stroke");
      layer.append(shape("rect", { x: free[0], y: free[1], width, height, fill: color }));
      const text = shape("text", { x: free[0] + 3 * unit, y: free[1] + size * unit, "font-size": size * unit, fill: ink(color) });
      text.textContent = row.dataset.label;
      layer.append(text);
    }
    svg.append(layer);
  }
  const labeled = (part) => all("svg", part).filter((svg) => svg.querySelector("[data-label]"));
  const resized = new ResizeObserver((entries) => { for (const entry of entries) if (entry.target.clientWidth) label(entry.target); });
  for (const svg of labeled(document)) resized.observe(svg);

  // A browser whose letters are wider than those that a chart was made for gets a wider chart, so that no text is cut.
  const fitted = new ResizeObserver((entries) => {
    for (const { target: svg } of entries) {
      const view = svg.viewBox.baseVal;
      if (!svg.clientWidth || svg.dataset.fitted) continue;
      svg.dataset.fitted = "yes";
      const back = svg.getScreenCTM().inverse();
      const ends = all("text", svg).flatMap((text) => {
        const box = text.getBoundingClientRect();
        return [[box.left, box.top], [box.right, box.bottom]].map(([x, y]) => new DOMPoint(x, y).matrixTransform(back));
      });
      const left = Math.min(view.x, ...ends.map((end) => end.x - 1));
      const top = Math.min(view.y, ...ends.map((end) => end.y - 1));
      const right = Math.max(view.x + view.width, ...ends.map((end) => end.x + 1));
      const bottom = Math.max(view.y + view.height, ...ends.map((end) => end.y + 1));
      svg.setAttribute("viewBox", `${left} ${top} ${right - left} ${bottom - top}`);
    }
  });
  for (const svg of all(".plain svg")) fitted.observe(svg);

  // Enlarge on click, Enter or Space. The arrow keys move to the next image, Escape closes.
  let shown = null;
  function enlarge(thumb) {
    shown = thumb;
    dialog.querySelector(".large-title").textContent = thumb.dataset.title;
    dialog.querySelector(".large-caption").textContent = thumb.dataset.caption;
    const body = dialog.querySelector(".large-body");
    const plain = thumb.classList.contains("plain");
    const holder = document.createElement("div");
    holder.className = plain ? "plain" : "";
    holder.style.display = plain ? "block" : "contents";
    holder.append(...thumb.cloneNode(true).childNodes);
    body.replaceChildren(holder);
    for (const svg of labeled(holder)) resized.observe(svg);
    tip.hidden = true;
    if (!dialog.open) dialog.showModal();
  }
  function step(by) {
    const visible = all(".thumb").filter((thumb) => thumb.offsetParent !== null);
    const next = visible[visible.indexOf(shown) + by];
    if (next) enlarge(next);
  }
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const thumb = target && target.closest(".thumb");
    if (thumb) enlarge(thumb);
    else if (target && target.closest("[data-close]")) dialog.close();
    else if (target && target.closest("[data-step]")) step(Number(target.closest("[data-step]").dataset.step));
    else if (target === dialog) dialog.close();
  });
  document.addEventListener("keydown", (event) => {
    if (dialog.open) {
      if (event.key === "ArrowRight") step(1);
      if (event.key === "ArrowLeft") step(-1);
      return;
    }
    if ((event.key === "Enter" || event.key === " ") && event.target instanceof Element && event.target.matches(".thumb")) {
      event.preventDefault();
      enlarge(event.target);
    }
  });
  dialog.addEventListener("close", () => { tip.hidden = true; document.body.append(tip); if (shown) shown.focus(); });

  // Switch groups of boxes on and off.
  for (const box of all("[data-toggle]")) {
    box.addEventListener("change", () => {
      for (const each of all("[data-group]", box.closest("figure"))) {
        if (each.dataset.group === box.dataset.toggle) each.classList.toggle("off", !box.checked);
      }
      for (const svg of labeled(box.closest("figure"))) label(svg);
    });
  }

  // The last filters: score threshold, NMS within each class, the best detections. In float32, as in the network.
  const f = Math.fround;
  function iou(a, b) {
    const areaA = f(f(a[2] - a[0]) * f(a[3] - a[1]));
    const areaB = f(f(b[2] - b[0]) * f(b[3] - b[1]));
    if (areaA <= 0 || areaB <= 0) return 0;
    const height = Math.max(f(Math.min(a[2], b[2]) - Math.max(a[0], b[0])), 0);
    const width = Math.max(f(Math.min(a[3], b[3]) - Math.max(a[1], b[1])), 0);
    const shared = f(height * width);
    return f(shared / f(f(areaA + areaB) - shared));
  }
  function compose(data, score, nms) {
    const confident = [];
    data.scores.forEach((value, row) => {
      const box = data.boxes[row];
      const empty = f(f(box[2] - box[0]) * f(box[3] - box[1])) <= 0;
      const enough = data.above ? f(value) > f(score) : f(value) >= f(score);
      if (enough && !(data.dropEmpty && empty)) confident.push(row);
    });
    const kept = [];
    for (const row of confident) {
      const rivals = kept.filter((other) => data.classes[other] === data.classes[row]);
      if (!rivals.some((other) => iou(data.boxes[row], data.boxes[other]) > f(nms))) kept.push(row);
    }
    const final = kept.slice(0, data.max).filter((row) => data.hasArea[row]);
    return { confident: confident.length, after_nms: kept.length, final };
  }
  for (const block of all("[data-result]")) {
    const data = JSON.parse(block.querySelector("script").textContent);
    const sliders = Object.fromEntries(all("[data-slider]", block).map((each) => [each.dataset.slider, each]));
    const update = (values) => {
      const found = compose(data, values.score, values.nms);
      const chosen = new Set(found.final.map(String));
      for (const name of ["score", "nms"]) block.querySelector(`[data-value="${name}"]`).textContent = values[name];
      for (const each of all("g[data-row], tr[data-row]", block)) each.classList.toggle("off", !chosen.has(each.dataset.row));
      for (const svg of labeled(block)) label(svg);
      block.querySelector('[data-count="final"]').textContent = found.final.length;
      const counts = { confident: found.confident, after_nms: found.after_nms, final: found.final.length };
      for (const [name, count] of Object.entries(counts)) {
        block.querySelector(`[data-figure="final.${name}"]`).textContent = count;
      }
    };
    const values = { score: data.score, nms: data.nms }; // sliders round to their steps, so a threshold that is not moved stays as it is
    for (const [name, slider] of Object.entries(sliders)) {
      slider.addEventListener("input", () => {
        values[name] = Number(slider.value);
        update(values);
      });
    }
    block.querySelector("[data-reset]").addEventListener("click", () => {
      for (const [name, slider] of Object.entries(sliders)) slider.value = values[name] = data[name];
      update(values);
    });
  }

  // A table that does not fit beside others gets a row of its own.
  const tables = all(".block.table.narrow");
  function spread() {
    for (const each of tables) each.classList.remove("whole");
    const boxes = tables.map((each) => each.querySelector(".scroll")).filter((box) => !box.closest("details:not([open])"));
    const cut = boxes.filter((box) => box.scrollWidth > box.clientWidth);
    for (const box of cut) box.closest(".block").classList.add("whole");
  }
  // Its size changes with the window, with the chosen image and with tables that are opened.
  new ResizeObserver(() => requestAnimationFrame(spread)).observe(document.querySelector("main"));

  // Open all tables and label all images for printing.
  addEventListener("beforeprint", () => {
    for (const each of all("details")) each.open = true;
    for (const svg of labeled(document)) if (!svg.clientWidth) label(svg);
  });
})();
