/** The side panel: filters, classes and instances of the current image. */

import { css } from "./colors.js";
import { Listbox, newElement, newOption, reveal } from "./listbox.js";
import { colorOf } from "./scene.js";
import { segmentColor } from "./segments.js";

const CHECKBOXES = { masks: "show-masks", boxes: "show-boxes", labels: "show-labels", keypoints: "show-keypoints", segments: "show-segments" };
const byId = (id) => document.getElementById(id);

export class Panel {
  /**
   * @param {(kind: "filter"|"color"|"select") => void} onChange called after a setting has changed
   */
  constructor(onChange) {
    this.onChange = onChange;
    this.settings = { threshold: 0.5, opacity: 0.5, colorBy: "class", masks: true, boxes: true, labels: true, keypoints: true, segments: true };
    this.hiddenClasses = new Set();
    this.selected = null;
    this.scene = null;
    this.list = new Listbox(byId("instances"), (option) => this.select(this.scene.instances[Number(option.dataset.index)]));
    this.#listen();
  }

  #listen() {
    byId("all-classes").addEventListener("click", () => this.#showClasses(true));
    byId("no-classes").addEventListener("click", () => this.#showClasses(false));
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.selected && this.select(null));
    byId("threshold").addEventListener("input", (event) => this.#set("threshold", Number(event.target.value), "filter"));
    byId("opacity").addEventListener("input", (event) => this.#set("opacity", Number(event.target.value), "filter"));
    byId("color-by").addEventListener("change", (event) => this.#set("colorBy", event.target.value, "color"));
    for (const [name, id] of Object.entries(CHECKBOXES)) {
      byId(id).addEventListener("change", (event) => this.#set(name, event.target.checked, "filter"));
    }
  }

  #set(name, value, kind) {
    this.settings[name] = value;
    byId("threshold-value").textContent = this.settings.threshold.toFixed(2);
    byId("opacity-value").textContent = `${Math.round(this.settings.opacity * 100)} %`;
    if (kind === "color") this.#paint();
    this.refresh();
    this.onChange(kind);
  }

  /** Whether an instance passes the filters. */
  isVisible = (instance) =>
    instance.score >= this.settings.threshold && !this.hiddenClasses.has(instance.classIndex);

  /** The instances that pass the filters, best first. */
  get visible() {
    return this.scene ? this.scene.instances.filter(this.isVisible) : [];
  }

  /** Indices of the shown classes, or null if none is hidden. */
  get shownClasses() {
    if (!this.scene || !this.hiddenClasses.size) return null;
    const found = new Set(this.scene.instances.map((each) => each.classIndex));
    const shown = [...found].filter((index) => !this.hiddenClasses.has(index));
    return shown.length && shown.length < found.size ? shown.sort((one, other) => one - other) : null;
  }

  /** Show the instances of a scene; null for none. */
  open(scene) {
    this.scene = scene;
    this.selected = null;
    const instances = scene?.instances ?? [];
    byId("instances").replaceChildren(...instances.map((each) => this.#row(each)));
    this.#openClasses(instances);
    const has = {
      masks: instances.some((each) => each.mask),
      keypoints: instances.some((each) => each.keypoints.length),
      segments: Boolean(scene?.segments),
    };
    for (const [name, isPresent] of Object.entries(has)) byId(CHECKBOXES[name]).parentElement.hidden = scene ? !isPresent : name !== "masks";
    byId("instances-block").hidden = !instances.length;
    this.#openSegments(scene?.segments);
    this.#paint();
    this.select(null);
    this.refresh();
  }

  #row({ index, name, score, box }) {
    const size = `${Math.round(box[2] - box[0])} × ${Math.round(box[3] - box[1])} px`;
    const row = newOption(`instance-${index}`, newElement("span", "swatch"), newElement("span", "name", name),
      newElement("span", "muted small", size), newElement("span", "score", score.toFixed(2)));
    row.dataset.index = index;
    return row;
  }

  #openClasses(instances) {
    const counts = new Map();
    for (const { classIndex, name } of instances) {
      counts.set(classIndex, { name, count: (counts.get(classIndex)?.count ?? 0) + 1 });
    }
    byId("classes-field").hidden = !counts.size;
    const rows = [...counts].sort((one, other) => one[0] - other[0]).map(([index, { name }]) => this.#classRow(index, name));
    byId("classes").replaceChildren(...rows);
  }

  /** List the segments with their share of the image, the largest first. */
  #openSegments(segments) {
    byId("segments-block").hidden = !segments;
    const infos = [...(segments?.infos.values() ?? [])].sort((one, other) => other.area - one.area);
    byId("segments").replaceChildren(...infos.map((info) => {
      const row = newElement("li", "segment");
      const swatch = newElement("span", "swatch");
      swatch.style.background = css(segmentColor(info));
      const share = `${((100 * info.area) / (this.scene.width * this.scene.height)).toFixed(1)} %`;
      row.append(swatch, newElement("span", "name", info.name), newElement("span", "count muted small", share));
      return row;
    }));
  }

  #classRow(index, name) {
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: !this.hiddenClasses.has(index) });
    box.addEventListener("change", () => this.#showClass(index, box.checked));
    const row = newElement("label", "class");
    row.dataset.index = index;
    row.append(box, newElement("span", "swatch"), newElement("span", "name", name), newElement("span", "count muted small"));
    return row;
  }

  #showClass(index, isShown) {
    if (isShown) this.hiddenClasses.delete(index);
    else this.hiddenClasses.add(index);
    this.refresh();
    this.onChange("filter");
  }

  #showClasses(isShown) {
    for (const row of byId("classes").children) {
      row.firstChild.checked = isShown;
      this.#showClass(Number(row.dataset.index), isShown);
    }
  }

  /** Color the swatches. */
  #paint() {
    for (const row of byId("instances").children) {
      row.firstChild.style.background = css(colorOf(this.scene.instances[Number(row.dataset.index)], this.settings));
    }
    for (const row of byId("classes").children) {
      const color = colorOf({ classIndex: Number(row.dataset.index), index: 0 }, { colorBy: "class" });
      row.querySelector(".swatch").style.background = this.settings.colorBy === "class" ? css(color) : "transparent";
    }
  }

  /** Hide the rows of instances that do not pass the filters, and count the others. */
  refresh() {
    const shown = new Map();
    const rows = byId("instances").children;
    for (const instance of this.scene?.instances ?? []) {
      const isVisible = this.isVisible(instance);
      rows[instance.index].hidden = !isVisible;
      shown.set(instance.classIndex, (shown.get(instance.classIndex) ?? 0) + (instance.score >= this.settings.threshold));
    }
    for (const row of byId("classes").children) {
      row.lastChild.textContent = String(shown.get(Number(row.dataset.index)) ?? 0);
    }
    if (this.selected && !this.isVisible(this.selected)) this.select(null);
  }

  /** Select an instance, and show its JSON; null for none. */
  select(instance) {
    this.selected = instance;
    this.list.select(instance && byId(`instance-${instance.index}`));
    const details = byId("details");
    details.hidden = !instance;
    details.textContent = instance ? jsonOf(instance, this.scene.response) : "";
    // A small screen has no room for the image and the list: there, the panel does not scroll itself.
    if (instance) reveal(details, byId("panel"));
    this.onChange("select");
  }
}

/** The fields of an instance in the response, as JSON. */
function jsonOf(instance, response) {
  const fields = ["label", "box", "score", "class", "name", "mask", "keypoint"];
  const plural = (name) => (name === "box" || name === "class" ? `${name}es` : `${name}s`);
  const lines = fields.flatMap((name) => {
    const value = response[plural(name)]?.[instance.index];
    return value === undefined ? [] : [`  ${JSON.stringify(name)}: ${JSON.stringify(value)}`];
  });
  return `{\n${lines.join(",\n")}\n}`;
}
