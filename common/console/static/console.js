// What pages do beside htmx: hear what moves, keep a selection while rows are drawn anew, read a file where it lies.
"use strict";

const connection = document.getElementById("connection");
const chosen = new Set();

function listen() {
  const source = new EventSource("/events");
  source.addEventListener("moved", (event) => refresh(JSON.parse(event.data)));
  source.addEventListener("connection", (event) => say(JSON.parse(event.data).connected));
  source.addEventListener("error", () => {
    say(false);
    // A session that has ended is not opened again by waiting.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 3000);
  });
  // After a break, whatever was missed is looked up.
  let before = false;
  source.addEventListener("open", () => { if (before) refresh(null); before = true; });
  window.addEventListener("pagehide", () => source.close());
}

function say(connected) {
  connection.classList.toggle("lost", !connected);
  const words = connected ? connection.dataset.liveWords : connection.dataset.lostWords;
  const shown = connection.querySelector("span");
  if (shown.textContent !== words) shown.textContent = words;
}

function refresh(moved) {
  const live = document.getElementById("live");
  if (!live) return;
  const about = live.dataset.live;
  if (about === "*" || moved === null || moved.includes(about)) htmx.trigger(live, "moved");
}

function ticks() {
  return [...document.querySelectorAll('#live input[name="request"]')];
}

function count() {
  const many = document.querySelector("[data-many]");
  const all = document.getElementById("all");
  if (!many) return;
  const here = ticks();
  many.hidden = chosen.size === 0;
  document.getElementById("count").textContent = String(chosen.size);
  if (all) all.checked = here.length > 0 && here.every((tick) => tick.checked);
}

document.addEventListener("change", (event) => {
  const box = event.target;
  if (box.id === "all") ticks().forEach((tick) => { tick.checked = box.checked; note(tick); });
  else if (box.name === "request" && box.type === "checkbox") note(box);
  else if (box.name === "kind" && box.type === "radio") showFor(box.value);
  else if (box.dataset.into) readInto(box);
  count();
});

function note(tick) {
  if (tick.checked) chosen.add(tick.value);
  else chosen.delete(tick.value);
}

function showFor(kind) {
  document.querySelectorAll("[data-for]").forEach((part) => { part.hidden = !part.dataset.for.split(" ").includes(kind); });
}

// A file is read here and sent as what was typed: the browser keeps neither its name nor a copy.
async function readInto(chooser) {
  const [file] = chooser.files;
  if (!file) return;
  document.getElementById(chooser.dataset.into).value = await file.text();
  chooser.value = "";
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-print]")) window.print();
});

document.body.addEventListener("htmx:afterSettle", () => {
  ticks().forEach((tick) => { tick.checked = chosen.has(tick.value); });
  count();
});

// What was typed stays in no history: a page that one comes back to is fetched anew.
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

const kind = document.querySelector('input[name="kind"][type="radio"]:checked');
if (kind) showFor(kind.value);
ticks().forEach((tick) => { tick.checked = false; });
count();
listen();
