/** Colors of classes and instances. */

// The golden angle keeps the hues of neighboring numbers apart.
const GOLDEN_ANGLE = 137.508;

/**
 * @param {number} index of a class or an instance
 * @returns {[number, number, number]} red, green and blue, 0 to 255
 */
export function color(index) {
  const hue = (index * GOLDEN_ANGLE + 210) % 360;
  const channel = (offset) => {
    const part = (offset + hue / 30) % 12;
    // HSL with a saturation of 0.75 and a lightness of 0.5.
    const value = 0.5 - 0.375 * Math.max(-1, Math.min(part - 3, 9 - part, 1));
    return Math.round(255 * value);
  };
  return [channel(0), channel(8), channel(4)];
}

/** @param {number[]} rgb */
export const css = (rgb) => `rgb(${rgb.join(" ")})`;

/**
 * Black or white, whichever has the higher contrast (WCAG 2) on a color.
 * @param {number[]} rgb
 */
export function textColor(rgb) {
  const [red, green, blue] = rgb.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}
