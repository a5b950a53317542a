"use strict";
// The page works without this script. It adds the choice of an image, enlarging, hovering, and moving the thresholds.
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
      for (const shape of all("[data-group]", box.closest("figure"))) {
        if (shape.dataset.group === box.dataset.toggle) shape.classList.toggle("off", !box.checked);
      }
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

  // Open all tables for printing.
  addEventListener("beforeprint", () => { for (const each of all("details")) each.open = true; });
})();
