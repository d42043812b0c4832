/** The detections of one image, prepared for drawing: a response -> instances and segments. */

import { color } from "./colors.js";
import { maskOf } from "./masks.js";
import { scaledSize } from "./rle.js";
import { segmentMap } from "./segments.js";

// Maximum number of pixels of all mask bitmaps, 128 MB; larger ones are reduced.
const MAX_MASK_PIXELS = 32e6;

/**
 * @typedef {object} Instance
 * @property {number} index place in the response
 * @property {string} name of its class
 * @property {number} classIndex
 * @property {number} score
 * @property {number[]} box x1, y1, x2, y2 in pixels
 * @property {number[][]} keypoints x, y and score of each
 * @property {import("./masks.js").Mask|null} mask
 * @property {HTMLCanvasElement|null} bitmap of its mask, in its color
 */

/**
 * Prepare a response.
 * @param {object} response of one image, in the API's default format
 */
export async function createScene(response) {
  const { width, height } = response.image;
  const instances = response.scores.map((_, index) => instanceOf(response, index));
  const segments = await segmentMap(response.panoptic ?? response.semantic, width, height);
  return { width, height, instances, segments, response };
}

function instanceOf(response, index) {
  return {
    index,
    name: response.names[index],
    classIndex: response.classes[index],
    score: response.scores[index],
    box: response.boxes[index],
    keypoints: response.keypoints?.[index] ?? [],
    mask: maskOf(response.masks?.[index]),
    bitmap: null,
  };
}

/** The color of an instance. */
export const colorOf = (instance, settings) =>
  color(settings.colorBy === "class" ? instance.classIndex : instance.index);

/** Draw the bitmaps of the masks, in their colors; drawing a frame then only copies them. */
export function paintMasks(scene, settings) {
  const painted = scene.instances.filter(({ mask }) => mask?.rectangle.width && mask.rectangle.height);
  const pixels = painted.reduce((sum, { mask: { rectangle } }) => sum + rectangle.width * rectangle.height, 0);
  const scale = Math.min(1, Math.sqrt(MAX_MASK_PIXELS / Math.max(1, pixels)));
  for (const instance of painted) {
    instance.bitmap ??= newCanvas(...scaledSize(instance.mask.rectangle, scale));
    instance.mask.paint(instance.bitmap, colorOf(instance, settings), scale);
  }
}

/** @returns {HTMLCanvasElement} */
export const newCanvas = (width, height) => Object.assign(document.createElement("canvas"), { width, height });

/**
 * The smallest visible instance at a point: by its mask, or by its box where it has none.
 * @param {object} scene
 * @param {(instance: Instance) => boolean} isVisible
 */
export function instanceAt(scene, x, y, isVisible) {
  if (!isInside(scene, x, y)) return null;
  const hits = scene.instances.filter((each) => isVisible(each) && contains(each, x, y));
  const size = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
  return hits.sort((one, other) => size(one) - size(other))[0] ?? null;
}

/** The entry of `segments_info` at a point. */
export function segmentAt(scene, x, y) {
  if (!scene.segments || !isInside(scene, x, y)) return null;
  return scene.segments.infos.get(scene.segments.ids[Math.floor(y) * scene.width + Math.floor(x)]) ?? null;
}

const isInside = ({ width, height }, x, y) => x >= 0 && y >= 0 && x < width && y < height;

function contains({ mask, box }, x, y) {
  if (mask) return mask.contains(x, y);
  return box[0] <= x && x < box[2] && box[1] <= y && y < box[3];
}
