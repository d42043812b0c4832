/** An opened image. */

import { createScene, paintMasks } from "./scene.js";

/**
 * Decode an image file; null where the browser cannot.
 * @param {File} file
 */
export const decoded = (file) => createImageBitmap(file).catch(() => null);

/**
 * @typedef {"queued"|"running"|"error"|"done"} State
 */

export class Item {
  /**
   * @param {File} file
   * @param {string} label its name; with a position where the file has several images
   * @param {Item|null} first the item of the file's first image, null if this is it
   */
  constructor(file, label, first = null) {
    Object.assign(this, { file, label, first, parts: [] });
    /** @type {State} */
    this.state = "queued";
    this.response = null;
    this.error = null;
    this.facts = {};
    this.release();
  }

  /** Set the response, or the error in its place. */
  finish(response, error, facts = {}) {
    Object.assign(this, { scene: null, preparing: null, response, error, facts, state: error ? "error" : "done" });
  }

  /**
   * Prepare the drawing: the image, upright as on the server, and its detections.
   * @param {object} settings of the panel
   */
  async load(settings) {
    await this.#decode();
    if (!this.response || !this.decoding) return;
    this.preparing ??= this.#prepare(this.response, settings);
    await this.preparing;
  }

  async #prepare(response, settings) {
    const scene = await createScene(response);
    const isOutdated = response !== this.response || !this.decoding;
    if (isOutdated) return;
    paintMasks(scene, settings);
    this.scene = scene;
  }

  async #decode() {
    this.decoding ??= decoded(this.file);
    const { decoding } = this;
    const image = await decoding;
    if (decoding === this.decoding) this.image = image;
    else image?.close();
  }

  /** Release the memory of the drawing: tens of megabytes an image. */
  release() {
    this.image?.close();
    Object.assign(this, { decoding: null, image: null, preparing: null, scene: null });
  }

  /** Whether the decoded image is the one of the response: not so for arrays of several. */
  get hasImage() {
    const { image, scene } = this;
    return Boolean(image) && (!scene || (image.width === scene.width && image.height === scene.height));
  }
}
