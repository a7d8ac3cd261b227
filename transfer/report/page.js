"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const root = document.documentElement;

  // dark and light: as the system has it, until the reader chooses
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const remembered = () => { try { return localStorage.getItem("report-theme"); } catch { return null; } };
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const label = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  if (["dark", "light"].includes(remembered())) root.dataset.theme = remembered();
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("report-theme", root.dataset.theme); } catch { /* a private window */ }
    label();
  });
  system.addEventListener("change", label);
  label();

  // sorting: cells without a value stay below
  const valueOf = (row, index) => {
    const cell = row.cells[index];
    return cell.tagName === "TH" ? cell.textContent : cell.dataset.value ?? null;
  };
  const order = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const [x, y] = [Number(a), Number(b)];
    const numbers = a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y);
    return sign * (numbers ? x - y : a.localeCompare(b, "en", { numeric: true }));
  };
  for (const table of all("table")) {
    const heads = all("thead th", table).filter((head) => head.querySelector(".sort"));
    heads.forEach((head, index) => head.querySelector(".sort").addEventListener("click", () => {
      const falling = index > 0 && table.closest(".means") && !("less" in head.dataset);  // the best first
      const [first, second] = falling ? ["descending", "ascending"] : ["ascending", "descending"];
      const next = head.getAttribute("aria-sort") === first ? second : first;
      heads.forEach((other) => other.setAttribute("aria-sort", other === head ? next : "none"));
      const sign = next === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows];
      table.tBodies[0].append(...rows.sort((a, b) => order(valueOf(a, index), valueOf(b, index), sign)));
    }));
  }

  // filter by words and by task
  const filter = document.getElementById("filter");
  const task = document.getElementById("task");
  const shown = document.getElementById("shown");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const one of all("[data-task], [data-words]")) {
      const ofTask = !task.value || (one.dataset.task?.split(" ").includes(task.value) ?? true);
      one.hidden = !ofTask || !words.every((word) => one.dataset.words?.includes(word) ?? true);
    }
    // a backbone stands in several tables, and a run of several suites in several rows
    const count = (rows) => new Set(rows.map((row) => row.cells[0].textContent)).size;
    const share = (rows) => `${count(rows.filter((row) => !row.closest("[hidden]")))} of ${count(rows)}`;
    shown.textContent = words.length || task.value
      ? `${share(all(".means tbody tr"))} backbones, ${share(all("#table-runs tbody tr"))} runs` : "";
  };
  filter.addEventListener("input", apply);
  task.addEventListener("change", apply);
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  apply();  // a browser may have kept what was typed

  // where a number comes from: on hover and on focus, Escape closes
  const tip = document.getElementById("tip");
  let from = null;
  let closing = 0;
  const close = () => { tip.hidden = true; from = null; };
  const later = () => {  // what the keyboard is on stays when the page scrolls below the mouse
    closing = setTimeout(() => from?.matches(":focus-visible") || close(), 150);
  };
  const open = (link) => {
    clearTimeout(closing);
    if (from === link) return;
    from = link;
    const details = document.getElementById(link.getAttribute("aria-describedby"));
    tip.replaceChildren(...details.cloneNode(true).childNodes);
    tip.hidden = false;
    const box = link.getBoundingClientRect();
    const left = Math.min(box.left, innerWidth - tip.offsetWidth - 12);
    const below = box.bottom + 8;
    const fits = below + tip.offsetHeight < innerHeight - 8;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${fits ? below : Math.max(8, box.top - tip.offsetHeight - 8)}px`;
  };
  for (const link of all("a.value")) {
    link.addEventListener("mouseenter", () => open(link));
    link.addEventListener("mouseleave", later);
    link.addEventListener("focus", () => { if (link.matches(":focus-visible")) open(link); });
    link.addEventListener("blur", later);
    let touched = false;
    link.addEventListener("pointerdown", (event) => {
      touched = event.pointerType === "touch" && from !== link;
    });
    link.addEventListener("click", (event) => {
      if (touched) { event.preventDefault(); open(link); } else close();
      touched = false;
    });
  }
  tip.addEventListener("mouseenter", () => clearTimeout(closing));
  tip.addEventListener("mouseleave", later);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });
  document.addEventListener("scroll", () => { if (from && !from.matches(":focus-visible")) close(); }, { passive: true });
  document.addEventListener("pointerdown", (event) => {
    if (from && !tip.contains(event.target) && !from.contains(event.target)) close();
  });

  // a link into the appendix opens what it leads to
  const reveal = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (!target) return;
    if (target.tagName === "DETAILS") target.open = true;
    if (target.hidden) { filter.value = ""; task.value = ""; apply(); }
    target.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();
})();
