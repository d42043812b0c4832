/** What is on the screen, in words: sizes, times and counts. */

import { newElement } from "./listbox.js";

/** @param {number} size in bytes */
export function fileSize(size) {
  if (size < 1000) return `${size} B`;
  return size < 1e6 ? `${(size / 1e3).toFixed(1)} kB` : `${(size / 1e6).toFixed(1)} MB`;
}

/**
 * The sizes of the image, and the times of its request.
 * @param {import("./item.js").Item} item
 * @returns {HTMLElement[]} rows of a definition list
 */
export function factsOf({ label, file, facts, response }) {
  const rows = [["File", `${label}, ${fileSize(file.size)}`]];
  if (response) rows.push(["Image", `${response.image.width} × ${response.image.height} px`]);
  if (facts.ms !== undefined) rows.push(["Round trip", `${Math.round(facts.ms)} ms`]);
  for (const { name, ms, description } of facts.timing ?? []) {
    rows.push([name, ms === undefined ? (description ?? "") : `${Number(ms).toFixed(1)} ms`]);
  }
  return rows.map(([name, value]) => {
    const row = document.createElement("div");
    row.append(newElement("dt", "", name), newElement("dd", "", value));
    return row;
  });
}

/**
 * The state of an image, for screen readers too.
 * @param {import("./item.js").Item|null} item
 * @param {number} shown instances that pass the filters
 */
export function statusOf(item, shown) {
  if (!item) return "No image yet.";
  if (item.state === "error") return "The request failed.";
  if (item.state !== "done") return item.state === "queued" ? "Waiting." : "Detecting …";
  const all = item.response.scores.length;
  const segments = (item.response.panoptic ?? item.response.semantic)?.segments_info.length;
  if (!all) return segments ? `${segments} segments shown` : "Nothing was detected.";
  const text = `${shown} of ${all} instances shown`;
  return shown ? text : `${text}: lower the minimum score or show more classes.`;
}
