/**
 * COCO's run-length encoding of masks. Pixel (x, y) of an image of height H has the number
 * x * H + y: down the columns, from the top left.
 */

/**
 * Decode the compressed text.
 * @param {string} text the `counts` of an RLE
 * @returns {Uint32Array} the number of the first pixel after each run; the runs alternate between
 *   unset and set pixels, and the first one is unset
 */
export function decode(text) {
  const ends = [];
  const lengths = [];
  let end = 0;
  for (let position = 0; position < text.length;) {
    let value = 0;
    let shift = 0;
    let bits;
    do {
      bits = text.charCodeAt(position++) - 48;
      value += (bits & 31) * 2 ** shift;
      shift += 5;
    } while (bits & 32 && position < text.length);
    if (bits & 16) value -= 2 ** shift;
    // From the fourth on, a value is the difference to the length two runs before.
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
    end += value;
    ends.push(end);
  }
  return Uint32Array.from(ends);
}

/**
 * Whether a pixel is set.
 * @param {Uint32Array} ends see `decode`
 * @param {number} pixel its number
 */
export function contains(ends, pixel) {
  const run = runOf(ends, pixel);
  return run < ends.length && run % 2 === 1;
}

/** The number of the run of a pixel, by binary search. */
function runOf(ends, pixel) {
  let low = 0;
  let high = ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] > pixel) high = middle;
    else low = middle + 1;
  }
  return low;
}

/**
 * The number of set pixels.
 * @param {Uint32Array} ends see `decode`
 */
export function area(ends) {
  let sum = 0;
  for (let run = 1; run < ends.length; run += 2) sum += ends[run] - ends[run - 1];
  return sum;
}

/**
 * The rectangle of the set pixels.
 * @param {Uint32Array} ends see `decode`
 * @param {number} height of the image
 * @returns {{x: number, y: number, width: number, height: number}} without pixels if it is empty
 */
export function bounds(ends, height) {
  let [left, right, top, bottom] = [Infinity, -1, height, -1];
  for (let run = 1; run < ends.length; run += 2) {
    const [first, last] = [ends[run - 1], ends[run] - 1];
    if (last < first) continue;
    const [column, lastColumn] = [Math.floor(first / height), Math.floor(last / height)];
    left = Math.min(left, column);
    right = Math.max(right, lastColumn);
    // A run that continues in the next column contains the last row and the first.
    top = Math.min(top, column === lastColumn ? first - column * height : 0);
    bottom = Math.max(bottom, column === lastColumn ? last - column * height : height - 1);
  }
  if (right < 0) return { x: 0, y: 0, width: 0, height: 0 };
  return { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}

/**
 * Set the pixels of a mask in an image of 32-bit pixels, cropped to the mask's rectangle.
 * @param {Uint32Array} ends see `decode`
 * @param {number} height of the image
 * @param {{x: number, y: number, width: number, height: number}} rectangle see `bounds`
 * @param {Uint32Array} pixels of the rectangle, row by row
 * @param {number} value of a set pixel
 * @param {number} scale size of the drawn rectangle relative to the mask's, 1 or less
 */
export function fill(ends, height, rectangle, pixels, value, scale = 1) {
  const [width, rows] = scaledSize(rectangle, scale);
  const row = (pixel, top) => Math.max(0, Math.min(rows, Math.ceil((pixel - top) * scale - 0.5)));
  for (let column = 0; column < width; column++) {
    const x = rectangle.x + Math.min(rectangle.width - 1, Math.floor((column + 0.5) / scale));
    const top = x * height + rectangle.y;
    const bottom = top + rectangle.height;
    for (let run = runOf(ends, top); run < ends.length && (ends[run - 1] ?? 0) < bottom; run++) {
      if (run % 2 === 0) continue;
      const last = row(ends[run], top);
      for (let y = row(ends[run - 1], top); y < last; y++) pixels[y * width + column] = value;
    }
  }
}

/**
 * Width and height of a rectangle's bitmap.
 * @param {{width: number, height: number}} rectangle
 * @param {number} scale
 */
export const scaledSize = ({ width, height }, scale) =>
  [width, height].map((size) => Math.max(1, Math.round(size * scale)));
