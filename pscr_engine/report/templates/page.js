"use strict";
(() => {
  const number = new Intl.NumberFormat("en-US");
  const byId = (id) => document.getElementById(id);

  // Tables: a click on a heading sorts by it, a second one the other way round.
  const sortBy = (heading) => {
    const row = heading.parentElement;
    const table = row.closest("table");
    const column = [...row.children].indexOf(heading);
    const numeric = heading.dataset.kind === "number";
    const now = heading.getAttribute("aria-sort");
    const ascending = now === "none" ? !numeric : now === "descending";
    const body = table.tBodies[0];
    const value = (line) => line.children[column].dataset.value;
    const compare = (a, b) => {
      const x = value(a);
      const y = value(b);
      if (numeric && (x === "" || y === "")) return (x === "") - (y === "");
      const order = numeric ? Number(x) - Number(y) : x.localeCompare(y, "en", { numeric: true });
      return ascending ? order : -order;
    };
    for (const other of row.children) {
      if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    }
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    body.append(...[...body.rows].sort(compare));
  };
  for (const button of document.querySelectorAll("button.sort")) {
    button.addEventListener("click", () => sortBy(button.parentElement));
  }

  // Copying: by the clipboard if the browser lets us, else the old way, else the line is selected for Ctrl-C.
  const select = (node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
  };
  const copy = async (node) => {
    try {
      await navigator.clipboard.writeText(node.textContent);
      return true;
    } catch {
      select(node);
      try {
        return document.execCommand("copy");
      } catch {
        return false;
      }
    }
  };
  for (const button of document.querySelectorAll("button.copy")) {
    button.disabled = false;
    const label = button.firstChild;
    const before = label.textContent;
    button.addEventListener("click", async () => {
      const done = await copy(byId(button.dataset.copy));
      label.textContent = done ? "Copied" : "Selected";
      byId("copied").textContent = done ? "Copied." : "Selected: press Control C to copy.";
      setTimeout(() => { label.textContent = before; }, 1500);
    });
  }

  // Keep or drop.
  const source = byId("data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const slider = byId("slider");
  const field = byId("threshold");
  const out = byId("keep-out");
  const note = byId("keep-note");
  const exact = note.textContent;
  const values = data.thresholds.map(Number);
  const share = (kept) => `${(100 * kept / data.scored).toFixed(2)}%`;
  const strong = (text) => Object.assign(document.createElement("strong"), { textContent: text });
  const draw = (text, kept) => {
    const value = Number(text);
    const at = Math.min(1, Math.max(0, (value - data.low) / (data.high - data.low)));
    const x = data.left + at * data.width;
    byId("kept-rect").setAttribute("x", x);
    byId("cut").setAttribute("transform", `translate(${x} 0)`);
    for (const [name, line] of Object.entries(data.lines)) byId(`code-${name}`).textContent = line[0] + text + line[1];
    out.replaceChildren("keeps ", ...kept, " with ", strong(`score ≥ ${text}`));
    slider.setAttribute("aria-valuetext", out.textContent);
    slider.style.setProperty("--kept", `${100 * at}%`);
  };
  const exactly = (kept) => [strong(number.format(kept)), ` of ${number.format(data.scored)} images (${share(kept)})`];
  const show = (index) => {
    draw(data.thresholds[index], exactly(data.kept[index]));
    field.value = data.thresholds[index];
    field.removeAttribute("aria-invalid");
    note.textContent = exact;
  };
  const nearest = (value) => {
    const distance = (place) => Math.abs(values[data.slider[place]] - value);
    let best = 0;
    for (let place = 1; place < data.slider.length; place++) if (distance(place) < distance(best)) best = place;
    slider.value = best;
  };
  // A threshold that is not in the table lies between two that are: so does its count.
  const typed = () => {
    const text = field.value.trim();
    const value = Number(text);
    if (!/^[-+]?(\d+\.?\d*|\.\d+)$/.test(text)) {
      field.setAttribute("aria-invalid", "true");
      note.textContent = "The threshold must be a number, like 3.25.";
      return;
    }
    field.removeAttribute("aria-invalid");
    nearest(value);
    const place = values.findIndex((known) => Math.fround(known) >= Math.fround(value));
    if (place >= 0 && Math.fround(values[place]) === Math.fround(value)) {
      draw(text, exactly(data.kept[place]));
      note.textContent = exact;
      return;
    }
    const least = place < 0 ? 0 : data.kept[place]; // the lowest and the highest score are in the table
    const most = place <= 0 || data.every ? least : data.kept[place - 1];
    if (most === least) {
      draw(text, exactly(most));
      note.textContent = exact;
    } else {
      draw(text, [strong(`${number.format(least)} to ${number.format(most)}`), ` of ${number.format(data.scored)} images`]);
      note.textContent = "For this threshold the page knows between which two exact counts it lies; the filter itself is exact.";
    }
  };
  slider.addEventListener("input", () => show(data.slider[slider.value]));
  field.addEventListener("change", typed);
  byId("keep").addEventListener("submit", (event) => { event.preventDefault(); typed(); });
  for (const button of document.querySelectorAll(".presets button")) {
    button.disabled = false;
    button.addEventListener("click", () => {
      show(Number(button.dataset.index));
      nearest(values[button.dataset.index]);
    });
  }
  slider.disabled = field.disabled = false;
  show(data.slider[slider.value]);
})();
