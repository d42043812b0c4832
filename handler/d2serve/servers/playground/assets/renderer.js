/** Draw instances and segments on a canvas. */

import { css, textColor } from "./colors.js";
import { colorOf } from "./scene.js";

const FONT = "600 13px system-ui, sans-serif";
const MAX_LABEL = 40;
const MIN_KEYPOINT_SCORE = 0.05;
// COCO's person: pairs of its 17 keypoints.
const SKELETON = [
  [15, 13], [13, 11], [16, 14], [14, 12], [11, 12], [5, 11], [6, 12], [5, 6], [5, 7], [6, 8],
  [7, 9], [8, 10], [1, 2], [0, 1], [0, 2], [1, 3], [2, 4], [3, 5], [4, 6],
];

/**
 * Draw everything of a scene but its image.
 * @param {CanvasRenderingContext2D} context
 * @param {object} scene see scene.js
 * @param {{x: number, y: number, scale: number}} view of the image in the canvas' pixels
 * @param {object} settings of the panel
 * @param {object[]} visible instances, best first
 * @param {object|null} active instance that is highlighted
 * @param {number} unit canvas pixels per CSS pixel
 */
export function draw(context, scene, view, settings, visible, active, unit = 1) {
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  context.imageSmoothingEnabled = view.scale < 4;
  const place = (x, y) => [x * view.scale + view.x, y * view.scale + view.y];
  if (settings.segments && scene.segments) {
    context.globalAlpha = settings.opacity;
    context.drawImage(scene.segments.bitmap, ...place(0, 0), scene.width * view.scale, scene.height * view.scale);
  }
  const worstFirst = [...visible].reverse();
  if (settings.masks) worstFirst.forEach((each) => drawMask(context, each, place, view, settings, active));
  context.globalAlpha = 1;
  if (settings.keypoints) worstFirst.forEach((each) => drawKeypoints(context, each, place, settings, unit));
  if (settings.boxes) worstFirst.forEach((each) => drawBox(context, each, place, settings, active, unit));
  if (settings.labels) drawLabels(context, visible, place, settings, active, unit);
}

function drawMask(context, instance, place, view, settings, active) {
  if (!instance.bitmap) return;
  const { x, y, width, height } = instance.mask.rectangle;
  const isDimmed = active && active !== instance;
  context.globalAlpha = settings.opacity * (isDimmed ? 0.6 : 1);
  if (active === instance) context.globalAlpha = Math.min(1, settings.opacity + 0.25);
  context.drawImage(instance.bitmap, ...place(x, y), width * view.scale, height * view.scale);
}

function drawBox(context, instance, place, settings, active, unit) {
  const [x1, y1] = place(instance.box[0], instance.box[1]);
  const [x2, y2] = place(instance.box[2], instance.box[3]);
  context.lineWidth = (active === instance ? 4 : 2) * unit;
  context.strokeStyle = css(colorOf(instance, settings));
  context.strokeRect(x1, y1, x2 - x1, y2 - y1);
}

/** Draw labels, the best first and those without room not at all; they have it after zooming in. */
function drawLabels(context, visible, place, settings, active, unit) {
  context.font = FONT.replace("13px", `${13 * unit}px`);
  context.textBaseline = "middle";
  const taken = [];
  const activeFirst = visible.includes(active) ? [active, ...visible.filter((each) => each !== active)] : visible;
  for (const instance of activeFirst) {
    const text = labelOf(instance);
    instance.labelWidth ??= context.measureText(text).width / unit;
    const [width, height] = [(instance.labelWidth + 8) * unit, 18 * unit];
    const free = labelPlaces(instance, place, context.canvas, width, height, unit).find(([x, y]) =>
      !taken.some(([left, top, right, bottom]) => x < right && left < x + width && y < bottom && top < y + height));
    if (!free) continue;
    const [x, y] = free;
    taken.push([x, y, x + width, y + height]);
    const rgb = colorOf(instance, settings);
    context.fillStyle = css(rgb);
    context.fillRect(x, y, width, height);
    context.fillStyle = textColor(rgb);
    context.fillText(text, x + 4 * unit, y + height / 2);
  }
}

function labelOf({ name, score }) {
  const short = name.length > MAX_LABEL ? `${name.slice(0, MAX_LABEL)}…` : name;
  return `${short} ${Math.round(score * 100)} %`;
}

/** Top left corners of a label, in order of preference: above its box, in it, and below it. */
function labelPlaces({ box }, place, canvas, width, height, unit) {
  const [left, top] = place(box[0], box[1]);
  const [right, bottom] = place(box[2], box[3]);
  if (right < 0 || bottom < 0 || left > canvas.width || top > canvas.height) return [];
  const x = Math.max(0, Math.min(left - unit, canvas.width - width));
  const inside = Math.max(0, Math.min(top, canvas.height - height));
  return [[x, top - height], [x, inside], [x, bottom]].filter(([, y]) => y >= 0 && y + height <= canvas.height);
}

function drawKeypoints(context, instance, place, settings, unit) {
  const isShown = ([, , score]) => score >= MIN_KEYPOINT_SCORE;
  const points = instance.keypoints;
  context.strokeStyle = css(colorOf(instance, settings));
  context.lineWidth = 2 * unit;
  context.beginPath();
  for (const [from, to] of points.length === 17 ? SKELETON : []) {
    if (!isShown(points[from]) || !isShown(points[to])) continue;
    context.moveTo(...place(points[from][0], points[from][1]));
    context.lineTo(...place(points[to][0], points[to][1]));
  }
  context.stroke();
  context.fillStyle = css(colorOf(instance, settings));
  context.strokeStyle = "#fff";
  context.lineWidth = unit;
  for (const point of points.filter(isShown)) {
    context.beginPath();
    context.arc(...place(point[0], point[1]), 3.5 * unit, 0, 2 * Math.PI);
    context.fill();
    context.stroke();
  }
}
