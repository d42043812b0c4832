/** Panoptic and semantic maps in COCO panoptic format: a PNG whose colors are ids. */

import { color } from "./colors.js";

/**
 * Decode a map.
 * @param {{png: string, segments_info: object[]}|undefined} content
 * @returns {Promise<{ids: Uint32Array, infos: Map<number, object>, bitmap: HTMLCanvasElement}|null>}
 */
export async function segmentMap(content, width, height) {
  if (!content) return null;
  const bytes = Uint8Array.from(atob(content.png), (character) => character.charCodeAt(0));
  const png = new Blob([bytes], { type: "image/png" });
  // A color profile or alpha would change the ids.
  const decoded = await createImageBitmap(png, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const bitmap = Object.assign(document.createElement("canvas"), { width, height });
  const context = bitmap.getContext("2d", { willReadFrequently: true });
  context.drawImage(decoded, 0, 0);
  decoded.close();
  const image = context.getImageData(0, 0, width, height);
  const pixels = new Uint32Array(image.data.buffer);
  // Little endian: the bytes of a pixel are red, green, blue and alpha.
  const ids = pixels.map((pixel) => pixel & 0xffffff);
  const infos = new Map(content.segments_info.map((info) => [info.id, info]));
  paint(pixels, ids, infos);
  context.putImageData(image, 0, 0);
  return { ids, infos, bitmap };
}

/** The color of a segment; instances of one class differ. */
export const segmentColor = (info) => color(info.isthing ? info.category_id + 7 * info.id : info.category_id);

function paint(pixels, ids, infos) {
  const colors = new Map([...infos].map(([id, info]) => [id, packed(segmentColor(info))]));
  ids.forEach((id, index) => {
    pixels[index] = colors.get(id) ?? 0;
  });
}

const packed = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
