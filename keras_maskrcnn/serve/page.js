/** The page of the service: one photo, one request, and controls that only change what is shown of its answer. */

import { cutOut, overlay, save, zip } from "./page_downloads.js";
import { describe, html, itemsOf, labelPlace, largestFirst, nodesOf, svg } from "./page_items.js";

const MOST_LABELS = 30; // labels are on at first if no more objects are shown
const { body } = document;
const at = (id) => document.getElementById(id);
const [photo, drawing, stage, list] = ["photo", "drawing", "stage", "objects"].map(at);

let models = [];
let file = null; // the photo
let request = null; // the last XMLHttpRequest
let result = null; // its answer
let items = []; // of the result, see `itemsOf`
let lit = null; // the item under the pointer or with the focus
let chosen = null; // the item that stays lit without them

// ---- Models and requests --------------------------------------------------------------------------------------------

async function loadModels() {
  const response = await fetch("v1/models");
  if (!response.ok) throw new Error(`the models cannot be listed (HTTP ${response.status})`);
  models = await response.json();
  at("model").append(...models.map((model) => new Option(model.name, model.name, false, model.default)));
  at("models").classList.toggle("hidden", models.length < 2);
  chooseModel();
}

const model = () => models[at("model").selectedIndex];

function chooseModel() {
  const { name, classes, score_threshold: score } = model();
  at("finds").textContent = `Model: ${name}. Classes: ${classes?.join(", ") || "without names"}.`;
  at("score").value = score ?? 0.5;
  if (file) open(file);
}

/** Answer of the service for all scores that the slider can select. */
function predict(picked) {
  return new Promise((resolve, reject) => {
    request = new XMLHttpRequest(); // unlike fetch, it reports how much is uploaded
    request.open("POST", `v1/models/${encodeURIComponent(model().name)}/predict?score=${at("score").min}`);
    request.setRequestHeader("Content-Type", picked.type || "application/octet-stream");
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => (at("progress").value = loaded / total);
    request.upload.onload = () => wait("Finding objects");
    request.onload = ({ target: { status, response } }) =>
      status === 200 ? resolve(response) : reject(new Error(response?.error ?? `HTTP ${status}`));
    request.onerror = () => reject(new Error("the server cannot be reached"));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    request.send(picked);
  });
}

function wait(phase) {
  at("phase").textContent = phase;
  at("progress").removeAttribute("value"); // a bar without a known share
}

async function open(picked) {
  request?.abort();
  file = picked;
  at("error").textContent = "";
  drawing.replaceChildren();
  body.classList.remove("empty");
  body.classList.add("busy");
  wait("Uploading");
  const answering = predict(picked), own = request;
  try {
    const [answer] = await Promise.all([answering, showPhoto(picked)]);
    if (request === own) show(answer);
  } catch (error) {
    if (request === own) close(error);
  }
}

/** Back to the start after a request that has no answer. */
function close(error) {
  body.classList.remove("busy");
  body.classList.add("empty");
  if (error.name !== "AbortError") fail(error);
  file = result = null;
}

function fail(error) {
  at("error").textContent = file ? `${file.name}: ${error.message}` : error.message;
}

/** Shows the photo, or an empty ground for a format that the browser cannot decode. */
async function showPhoto(picked) {
  URL.revokeObjectURL(photo.src);
  photo.src = URL.createObjectURL(picked);
  const readable = await photo.decode().then(() => true, () => false);
  photo.classList.toggle("unreadable", !readable);
  if (readable) resize(photo.naturalWidth, photo.naturalHeight);
}

function resize(width, height) {
  stage.style.setProperty("--width", width);
  stage.style.setProperty("--height", height);
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
}

// ---- The result ---------------------------------------------------------------------------------------------------

function show(answer) {
  result = answer;
  items = itemsOf(result);
  lit = chosen = null;
  body.classList.remove("busy");
  resize(result.width, result.height);
  // The smallest area is above the others, so that the pointer finds it.
  const ordered = largestFirst(items);
  drawing.replaceChildren(svg("g", {}, ...ordered.map(({ area }) => area)), svg("g", {}, ...ordered.map(({ mark }) => mark)));
  list.replaceChildren(...items.map(({ row }) => html("li", {}, row)));
  list.scrollTop = 0;
  showClasses();
  layer("labels").checked = items.filter(scoresEnough).length <= MOST_LABELS;
  layer("boxes").checked = !items.some(({ object }) => object.segmentation);
  filter();
  changeDrawing();
}

function showClasses() {
  const names = [...new Set(items.map(({ name }) => name))].sort();
  at("classes").replaceChildren(...names.map((name) => {
    const box = html("input", { type: "checkbox", value: name, checked: true });
    return html("label", { className: "check" }, box, name, html("span", { className: "muted" }));
  }));
}

const scoresEnough = ({ object }) => (object.score ?? 1) >= at("score").value;
const shownItems = () => items.filter(({ shown }) => shown);

/** Shows the items of the classes and scores that are selected. */
function filter() {
  at("score-value").textContent = Number(at("score").value).toFixed(2);
  const boxes = [...at("classes").querySelectorAll("input")], enough = items.filter(scoresEnough);
  const classes = new Set(boxes.filter(({ checked }) => checked).map(({ value }) => value));
  for (const box of boxes) box.parentNode.lastChild.textContent = enough.filter(({ name }) => name === box.value).length;
  for (const item of items) {
    item.shown = scoresEnough(item) && classes.has(item.name);
    for (const node of nodesOf(item)) node.classList.toggle("off", !item.shown);
  }
  if (chosen && !chosen.shown) choose(null);
  light(lit?.shown ? lit : chosen);
  summarise();
  placeLabels();
}

function summarise() {
  const shown = shownItems(), names = [...new Set(shown.map(({ name }) => name))];
  at("count").textContent = `${shown.length} of ${items.length} shown`;
  drawing.ariaLabel = `${file.name}, objects: ${shown.length}. ${names.join(", ")}`;
  for (const id of ["save-overlay", "save-cut-outs"]) at(id).disabled = !shown.length;
  makeReachable(lit ?? shown[0]);
}

/** Lets the Tab key reach one row of the list; the arrow keys reach the others. */
function makeReachable(item) {
  for (const { row } of items) row.tabIndex = row === item?.row ? 0 : -1;
}

/** Places the labels in units of the screen, and hides those that would cover one of a higher score. */
function placeLabels() {
  if (!result || !stage.clientWidth) return;
  const pixel = drawing.viewBox.baseVal.width / stage.clientWidth, placed = [];
  drawing.style.setProperty("--pixel", pixel);
  for (const item of shownItems().filter(({ object }) => object.box)) {
    const [x, y] = labelPlace(item.object.box, pixel), text = item.mark.lastChild;
    const [width, height] = [7.5 * pixel * item.label.length, 14 * pixel];
    item.covered = placed.some((other) => Math.abs(other.y - y) < height && x < other.x + other.width && other.x < x + width);
    if (!item.covered) placed.push({ x, y, width });
    text.setAttribute("x", x);
    text.setAttribute("y", y);
    text.classList.toggle("covered", item.covered);
  }
}

// ---- One object -----------------------------------------------------------------------------------------------------

function light(item) {
  for (const node of lit ? nodesOf(lit) : []) node.classList.remove("on");
  lit = item;
  for (const node of lit ? nodesOf(lit) : []) node.classList.add("on");
  drawing.classList.toggle("lit", Boolean(lit));
  at("cut-out").classList.toggle("hidden", !lit);
  const hint = items.length ? "Point at an object, or select one in the list." : "No object found.";
  at("about").textContent = lit ? describe(lit, result.width * result.height).join(" · ") : hint;
}

/** Scrolls a photo that is zoomed in to an item. */
function reveal({ area }) {
  const { x, y, width, height } = area.getBBox(), view = at("view"), scale = stage.clientWidth / result.width;
  view.scrollTo(scale * (x + width / 2) - view.clientWidth / 2, scale * (y + height / 2) - view.clientHeight / 2);
}

/** Keeps an item lit; the same item again, or none, ends it. */
function choose(item) {
  chosen?.row.setAttribute("aria-pressed", "false");
  chosen = item === chosen ? null : item;
  chosen?.row.setAttribute("aria-pressed", "true");
  light(chosen);
}

// ---- Drawing and downloads --------------------------------------------------------------------------------------------

const layer = (name) => at("layers").querySelector(`[value=${name}]`);

function changeDrawing() {
  for (const { value, checked } of at("layers").querySelectorAll("input")) drawing.classList.toggle(`no-${value}`, !checked);
  drawing.style.setProperty("--opacity", at("opacity").value);
  stage.style.setProperty("--zoom", at("zoom").value);
  at("opacity-value").textContent = `${Math.round(100 * at("opacity").value)} %`;
  at("zoom-value").textContent = `${at("zoom").value}×`;
  placeLabels();
}

const picture = () => ({ ...result, photo: photo.classList.contains("unreadable") ? null : photo });
const fileName = (ending) => file.name.replace(/\.[^.]*$/, "") + ending;
const cutOutName = ({ index }) => fileName(`_${String(index + 1).padStart(3, "0")}.png`);

async function saveOverlay() {
  const layers = new Set(["masks", "boxes", "labels"].filter((name) => layer(name).checked));
  save(fileName("_overlay.png"), await overlay(picture(), shownItems(), layers, at("opacity").value));
}

async function saveJson() {
  const shown = new Set(shownItems().map(({ object }) => object));
  const part = (name) => result[name] && { [name]: result[name].filter((object) => shown.has(object)) };
  const content = { file: file.name, ...result, ...part("objects"), ...part("semantic") };
  save(fileName(".json"), new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
}

async function saveCutOut() {
  const item = lit;
  save(cutOutName(item), await cutOut(picture(), item));
}

async function saveCutOuts() {
  const files = [];
  for (const item of shownItems()) files.push({ name: cutOutName(item), blob: await cutOut(picture(), item) });
  save(fileName("_cut_outs.zip"), await zip(files));
}

// ---- Events -------------------------------------------------------------------------------------------------------------

const on = (target, types, listener) => types.split(" ").forEach((type) => target.addEventListener(type, listener));
const itemAt = ({ target }) => items[target.closest("[data-index]")?.dataset.index] ?? null;
const openFirst = (files) => files.length && open(files[0]);

for (const input of [at("file"), at("camera")]) {
  on(input, "change", () => {
    openFirst(input.files);
    input.value = ""; // so that the same file can be chosen again
  });
}
on(at("welcome"), "click", () => at("file").click());
on(window, "paste", ({ clipboardData }) => openFirst(clipboardData.files));
on(window, "dragover drop", (event) => event.preventDefault());
on(window, "dragover", () => body.classList.add("dragged"));
on(window, "dragleave drop", () => body.classList.remove("dragged"));
on(window, "drop", ({ dataTransfer }) => openFirst(dataTransfer.files));
on(at("model"), "change", chooseModel);
on(at("cancel"), "click", () => request.abort());

on(at("score"), "input", filter);
on(at("classes"), "change", filter);
for (const id of ["layers", "opacity", "zoom"]) on(at(id), "input", changeDrawing);
new ResizeObserver(placeLabels).observe(stage);

for (const place of [drawing, list]) {
  on(place, "pointerover", (event) => light(itemAt(event) ?? chosen));
  on(place, "pointerleave", () => light(chosen));
  on(place, "click", (event) => choose(itemAt(event)));
}
on(drawing, "pointerover", () => {
  if (lit) list.scrollTop = lit.row.offsetTop - list.clientHeight / 2;
});
on(list, "focusin", (event) => {
  makeReachable(itemAt(event));
  light(itemAt(event));
  reveal(itemAt(event));
});
on(list, "focusout", () => light(chosen));
on(list, "keydown", (event) => {
  const rows = shownItems().map(({ row }) => row), here = rows.indexOf(event.target);
  const next = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: rows.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  rows[next]?.focus();
});
on(window, "keydown", ({ key }) => key === "Escape" && choose(null));

const saves = { "cut-out": saveCutOut, "save-overlay": saveOverlay, "save-json": saveJson, "save-cut-outs": saveCutOuts };
for (const [id, action] of Object.entries(saves)) on(at(id), "click", () => action().catch(fail));

loadModels().catch(fail);
