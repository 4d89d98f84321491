// Keeps the live part of a page up to date, and moves through lists by keys. Pages work without it.
"use strict";

const live = document.getElementById("live");
const reachable = () => [...live.querySelectorAll("a, [tabindex]")];

function show(html) {
  if ("untilBegun" in live.dataset && html.includes("data-state=")) return location.reload(); // now there is a run
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && live.contains(selection.anchorNode)) return; // somebody copies text
  const focused = reachable().indexOf(document.activeElement);
  const scrolled = [...live.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  const log = live.querySelector("[data-end]");
  const atEnd = !log || log.scrollTop + log.clientHeight >= log.scrollHeight - 8;
  const top = log ? log.scrollTop : 0;
  live.innerHTML = html; // made and escaped by the server's templates
  live.querySelectorAll(".scroll").forEach((one, n) => { one.scrollLeft = scrolled[n] || 0; });
  const newLog = live.querySelector("[data-end]");
  if (newLog) newLog.scrollTop = atEnd ? newLog.scrollHeight : top;
  if (focused >= 0) reachable()[focused]?.focus({ preventScroll: true });
  const mark = live.querySelector("[data-state]");
  if (mark) tellState(mark.dataset.state, mark.dataset.alive === "yes");
}

function tellState(state, alive) {
  const pill = document.getElementById("state");
  const word = state.replaceAll("-", " ");
  if (pill && pill.textContent !== word) {
    pill.textContent = word;
    pill.className = `pill ${state}`;
  }
  document.querySelectorAll("[data-when]").forEach((button) => {
    button.disabled = !alive || !button.dataset.when.split(" ").includes(state);
  });
}

function follow(address) {
  const events = new EventSource(address);
  const connection = document.getElementById("connection");
  const say = (text) => { connection.textContent = text; connection.hidden = !text; };
  events.addEventListener("open", () => say(""));
  events.addEventListener("part", (event) => show(JSON.parse(event.data)));
  events.addEventListener("error", () => say("connection lost, trying again"));
  addEventListener("pagehide", () => events.close());
}

function moveBy(step) {
  const links = [...document.querySelectorAll("#rows tbody a")];
  if (!links.length) return;
  const here = links.indexOf(document.activeElement);
  const next = here < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(links.length - 1, Math.max(0, here + step));
  links[next].focus();
  links[next].scrollIntoView({ block: "nearest" });
}

const keys = {
  j: () => moveBy(1),
  k: () => moveBy(-1),
  ArrowDown: () => moveBy(1),
  ArrowUp: () => moveBy(-1),
  n: () => document.querySelector("[rel=next]")?.click(),
  p: () => document.querySelector("[rel=prev]")?.click(),
  u: () => document.getElementById("parent")?.click(),
  "/": () => document.getElementById("find")?.focus(),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (typing && event.key === "Escape") event.target.blur();
  if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
  const arrow = event.key.startsWith("Arrow");
  if (!keys[event.key] || (arrow && !document.activeElement.closest("#rows"))) return;
  event.preventDefault();
  keys[event.key]();
});

document.querySelectorAll(".filters select").forEach((select) => {
  select.addEventListener("change", () => select.form.requestSubmit());
});

if (live && document.body.dataset.live) follow(document.body.dataset.live);
document.querySelectorAll("[data-end]").forEach((log) => { log.scrollTop = log.scrollHeight; });
