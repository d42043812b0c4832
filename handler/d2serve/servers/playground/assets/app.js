/** The playground: opens images, sends them to the server, and shows what it detected. */

import * as api from "./api.js";
import { cocoResults, download, overlayImage } from "./exports.js";
import { factsOf, statusOf } from "./facts.js";
import { Gallery } from "./gallery.js";
import { newElement } from "./listbox.js";
import { listenForFiles } from "./opening.js";
import { Panel } from "./panel.js";
import { Pointer } from "./pointer.js";
import { Queue } from "./queue.js";
import { paintMasks } from "./scene.js";
import { Screen } from "./screen.js";
import { optionsOf, snippet } from "./snippets.js";
import { Viewport } from "./viewport.js";

const THEMES = { system: "◐", light: "☀", dark: "☾" };
const byId = (id) => document.getElementById(id);
const stage = byId("stage");

let settings = { models: [], target: { kind: "server", url: null }, token: false };

const configured = api.config();
const viewport = new Viewport(stage, onViewChange);
const panel = new Panel(onPanelChange);
const gallery = new Gallery(byId("gallery"), show);
const queue = new Queue(gallery, request, onItemChange);
const pointer = new Pointer(stage, byId("tip"), viewport, panel, () => display.redraw());
const display = new Screen(stage, byId("base"), byId("overlay"), viewport, content);

/** How the images are sent; files may be opened before the settings are here. */
async function request() {
  await configured;
  return { settings, model: byId("model").value, token: byId("token").value };
}

/** What the screen draws. */
function content() {
  const { visible, selected } = panel;
  const active = visible.includes(pointer.hovered) ? pointer.hovered : selected;
  return { item: gallery.current, settings: panel.settings, visible, active };
}

// Images -------------------------------------------------------------------------------------

function open(files) {
  const added = files.map((file) => gallery.add(file));
  if (added.length) show(added[0]);
  added.forEach((item) => queue.add(item));
}

function onItemChange(item) {
  gallery.update(item);
  if (item !== gallery.current) return;
  show(item);
  if (item.error?.status !== 401) return;
  byId("token-field").hidden = false;
  byId("token").focus();
}

/** Show an image, as far as it is known, and the rest when it is prepared. */
async function show(item) {
  gallery.show(item);
  refresh(item);
  try {
    await item.load(panel.settings);
  } catch (error) {
    console.error(error);
    item.finish(null, new api.RequestError(0, "page", "The page cannot show this response.", error.message));
    gallery.update(item);
  }
  if (item === gallery.current) refresh(item);
  else item.release();
}

function refresh(item) {
  byId("empty").hidden = true;
  byId("busy").hidden = item.state !== "queued" && item.state !== "running";
  showError(item.state === "error" ? item.error : null);
  if (panel.scene !== item.scene) {
    panel.open(item.scene);
    pointer.leave();
  }
  const { width, height } = item.scene ?? item.image ?? {};
  if (width && (viewport.item !== item || viewport.width !== width || viewport.height !== height)) {
    viewport.item = item;
    viewport.open(width, height);
  }
  byId("note").hidden = !item.scene || item.hasImage;
  for (const id of ["save-overlay", "save-coco"]) byId(id).disabled = !item.scene;
  byId("facts").replaceChildren(...factsOf(item));
  report();
  display.redraw();
}

function showError(error) {
  byId("problem").hidden = !error;
  if (!error) return;
  byId("problem-message").textContent = error.message;
  byId("problem-hint").textContent = error.hint ?? "";
  byId("problem-code").textContent = [error.code, error.status || ""].filter(Boolean).join(" · ");
}

/** Describe the screen in words, and as a request. */
function report() {
  const item = gallery.current;
  const text = statusOf(item, panel.visible.length);
  if (byId("status").textContent !== text) byId("status").textContent = text;
  byId("overlay").setAttribute("aria-label", item ? `${item.label}: ${text}` : "No image");
  byId("copy").disabled = !item;
  if (!item) return;
  byId("snippet").textContent = snippet(byId("snippet-kind").value, settings, byId("model").value, item.file, optionsOf(panel));
}

function onPanelChange(kind) {
  if (kind === "color" && panel.scene) paintMasks(panel.scene, panel.settings);
  if (kind !== "select") report();
  display.redraw();
}

function onViewChange() {
  byId("zoom").textContent = `${Math.round(viewport.scale * 100)} %`;
  display.redraw();
}

// Controls -----------------------------------------------------------------------------------

async function copy() {
  try {
    await navigator.clipboard.writeText(byId("snippet").textContent);
    byId("copy").textContent = "Copied";
  } catch {
    // Pages without HTTPS, except those of this machine, have no clipboard.
    getSelection().selectAllChildren(byId("snippet"));
    byId("copy").textContent = "Press Ctrl+C";
  }
  setTimeout(() => (byId("copy").textContent = "Copy"), 2000);
}

const downloadName = (suffix) => `${gallery.current.label.replace(/[^\p{L}\p{N}._-]+/gu, "_")}${suffix}`;

async function saveOverlay() {
  const { scene, image, hasImage } = gallery.current;
  const png = await overlayImage(scene, hasImage ? image : null, panel.settings, panel.visible);
  if (png) download(png, downloadName("-detections.png"));
  else byId("status").textContent = "The image is too large for this browser to save.";
}

function saveCoco() {
  const results = JSON.stringify(cocoResults(panel.visible, panel.scene.response));
  download(new Blob([results], { type: "application/json" }), downloadName("-coco.json"));
}

function changeTheme() {
  const root = document.documentElement;
  const names = Object.keys(THEMES);
  const theme = names[(names.indexOf(root.dataset.theme ?? "system") + 1) % names.length];
  root.dataset.theme = theme;
  byId("theme").setAttribute("aria-label", `Theme: ${theme}`);
  byId("theme").textContent = THEMES[theme];
}

function changeModel() {
  panel.hiddenClasses.clear();
  gallery.items.filter((item) => !item.first).forEach((item) => queue.add(item));
  report();
}

function listen() {
  listenForFiles(byId("files"), byId("drop"), open);
  const actions = {
    "zoom-in": () => viewport.zoomBy(1.25),
    "zoom-out": () => viewport.zoomBy(0.8),
    fit: () => viewport.fit(),
    actual: () => viewport.zoomTo(1),
    retry: () => queue.add(gallery.current),
    copy,
    theme: changeTheme,
    "save-overlay": saveOverlay,
    "save-coco": saveCoco,
  };
  for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
  byId("snippet-kind").addEventListener("change", report);
  byId("model").addEventListener("change", changeModel);
  byId("token").addEventListener("change", () => gallery.items.filter((item) => item.error?.status === 401).forEach((item) => queue.add(item)));
}

async function start() {
  listen();
  try {
    settings = await configured;
  } catch (error) {
    byId("empty").hidden = true;
    byId("retry").hidden = true;
    showError(error);
    return;
  }
  const { models, target, token, version } = settings;
  byId("model").replaceChildren(...models.map((name) => newElement("option", "", name)));
  byId("model-field").hidden = models.length < 2;
  byId("token-field").hidden = !token;
  const place = { server: "this server", url: target.url, sagemaker: `endpoint ${target.endpoint}` }[target.kind];
  byId("destination").textContent = `They are sent to ${place}, and nowhere else.`;
  byId("about").textContent = `d2serve ${version}; images are sent to ${place}.`;
  report();
}

start();
