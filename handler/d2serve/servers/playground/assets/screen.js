/** The canvases of the stage: the image, and the detections over it. */

import { draw } from "./renderer.js";

const BACKGROUND = "#8a8f98";

export class Screen {
  /**
   * @param {HTMLElement} stage
   * @param {HTMLCanvasElement} base of the image
   * @param {HTMLCanvasElement} overlay of the detections
   * @param {import("./viewport.js").Viewport} viewport
   * @param {() => {item: object, settings: object, visible: object[], active: object|null}} content
   */
  constructor(stage, base, overlay, viewport, content) {
    Object.assign(this, { stage, base, overlay, viewport, content, isFrameDue: false, last: [] });
  }

  /** Draw at the next frame. */
  redraw() {
    if (this.isFrameDue) return;
    this.isFrameDue = true;
    requestAnimationFrame(() => {
      this.isFrameDue = false;
      this.paint();
    });
  }

  /** Draw now. */
  paint() {
    const { item, settings, visible, active } = this.content();
    const { viewport } = this;
    const unit = window.devicePixelRatio || 1;
    const view = { x: viewport.x * unit, y: viewport.y * unit, scale: viewport.scale * unit };
    this.#paintImage(item, view, unit);
    const context = this.#context(this.overlay, unit);
    if (item?.scene) draw(context, item.scene, view, settings, visible, active, unit);
    else context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  }

  /** Draw the image itself, which the filters do not change, only when the view has changed. */
  #paintImage(item, view, unit) {
    const state = [item, item?.image, item?.scene, view.x, view.y, view.scale, unit, this.stage.clientWidth, this.stage.clientHeight];
    if (state.every((value, index) => value === this.last[index])) return;
    this.last = state;
    const context = this.#context(this.base, unit);
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    const size = item?.scene ?? item?.image;
    if (!size) return;
    const rectangle = [view.x, view.y, size.width * view.scale, size.height * view.scale];
    context.imageSmoothingEnabled = view.scale < 4;
    context.imageSmoothingQuality = "medium";
    context.fillStyle = BACKGROUND;
    if (item.hasImage) context.drawImage(item.image, ...rectangle);
    else context.fillRect(...rectangle);
  }

  #context(canvas, unit) {
    const [width, height] = [Math.round(this.stage.clientWidth * unit), Math.round(this.stage.clientHeight * unit)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    return canvas.getContext("2d");
  }
}
