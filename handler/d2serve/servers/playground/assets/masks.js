/** Masks of instances: run-length encoded or polygons, with one interface. */

import * as rle from "./rle.js";

/**
 * @typedef {object} Mask
 * @property {{x: number, y: number, width: number, height: number}} rectangle in pixels
 * @property {(x: number, y: number) => boolean} contains whether a point of the image is inside
 * @property {(canvas: HTMLCanvasElement, rgb: number[], scale: number) => void} paint draw the mask
 *   on a canvas of its rectangle's size times `scale`
 */

const context = document.createElement("canvas").getContext("2d");

/**
 * @param {{size: number[], counts: string}|number[][]|undefined} mask of a response
 * @returns {Mask|null}
 */
export function maskOf(mask) {
  if (Array.isArray(mask)) return new PolygonMask(mask);
  return typeof mask?.counts === "string" ? new RunMask(mask) : null;
}

class RunMask {
  constructor({ size: [height], counts }) {
    this.height = height;
    this.ends = rle.decode(counts);
    this.rectangle = rle.bounds(this.ends, height);
  }

  contains(x, y) {
    return rle.contains(this.ends, Math.floor(x) * this.height + Math.floor(y));
  }

  paint(canvas, [red, green, blue], scale) {
    const target = canvas.getContext("2d");
    const image = target.createImageData(canvas.width, canvas.height);
    // Little endian: the bytes of a pixel are red, green, blue and alpha.
    const value = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    rle.fill(this.ends, this.height, this.rectangle, new Uint32Array(image.data.buffer), value, scale);
    target.putImageData(image, 0, 0);
  }
}

class PolygonMask {
  constructor(polygons) {
    this.path = new Path2D();
    for (const points of polygons) {
      this.path.moveTo(points[0], points[1]);
      for (let index = 2; index < points.length; index += 2) this.path.lineTo(points[index], points[index + 1]);
      this.path.closePath();
    }
    const [left, right] = rangeOf(polygons, 0);
    const [top, bottom] = rangeOf(polygons, 1);
    this.rectangle = { x: left, y: top, width: right - left, height: bottom - top };
  }

  contains(x, y) {
    return context.isPointInPath(this.path, x, y);
  }

  paint(canvas, rgb, scale) {
    const target = canvas.getContext("2d");
    target.setTransform(1, 0, 0, 1, 0, 0);
    target.clearRect(0, 0, canvas.width, canvas.height);
    target.setTransform(scale, 0, 0, scale, -this.rectangle.x * scale, -this.rectangle.y * scale);
    target.fillStyle = `rgb(${rgb.join(" ")})`;
    target.fill(this.path);
  }
}

/** The whole numbers around the coordinates of an axis, 0 for x and 1 for y. */
function rangeOf(polygons, axis) {
  const values = polygons.flatMap((points) => points.filter((_, index) => index % 2 === axis));
  if (!values.length) return [0, 0];
  return [
    Math.floor(values.reduce((one, other) => Math.min(one, other))),
    Math.ceil(values.reduce((one, other) => Math.max(one, other))),
  ];
}
