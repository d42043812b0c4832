/** Downloads: the image with what is drawn on it, and COCO results. */

import { draw } from "./renderer.js";
import { newCanvas } from "./scene.js";

const round = (value) => Math.round(value * 1000) / 1000;

/**
 * COCO results of the visible instances, as the API's format `coco`.
 * @param {object[]} visible instances
 * @param {object} response
 */
export function cocoResults(visible, response) {
  return visible.map((instance) => {
    const [x1, y1, x2, y2] = instance.box;
    const mask = response.masks?.[instance.index];
    return {
      image_id: 0,
      category_id: instance.classIndex,
      bbox: [x1, y1, round(x2 - x1), round(y2 - y1)],
      score: instance.score,
      ...(mask && { segmentation: mask }),
      // COCO's keypoints are pixel indices; the center of a pixel is half a pixel further.
      ...(response.keypoints && {
        keypoints: instance.keypoints.flatMap(([x, y, score]) => [round(x - 0.5), round(y - 0.5), score]),
      }),
    };
  });
}

/**
 * The image in full resolution with the instances on it.
 * @returns {Promise<Blob>} a PNG
 */
export async function overlayImage(scene, image, settings, visible) {
  const canvas = newCanvas(scene.width, scene.height);
  // Lines and labels as large as on a screen of 1,000 pixels.
  const unit = Math.max(1, Math.max(scene.width, scene.height) / 1000);
  draw(canvas.getContext("2d"), scene, { x: 0, y: 0, scale: 1 }, settings, visible, null, unit);
  const result = newCanvas(scene.width, scene.height);
  const context = result.getContext("2d");
  if (image) context.drawImage(image, 0, 0);
  context.drawImage(canvas, 0, 0);
  return new Promise((resolve) => result.toBlob(resolve, "image/png"));
}

/** Save a blob as a file. */
export function download(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  // The browser has opened the blob by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
