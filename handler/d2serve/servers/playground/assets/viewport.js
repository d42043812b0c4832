/** Zoom and pan of the stage, with the mouse, touch and the keyboard. */

const ZOOM_STEP = 1.25;
const PAN_STEP = 60;
const MAX_SCALE = 40;
const MARGIN = 12;

export class Viewport {
  /**
   * @param {HTMLElement} stage
   * @param {() => void} onChange called after the view has changed
   */
  constructor(stage, onChange) {
    Object.assign(this, { stage, onChange, x: 0, y: 0, scale: 1, width: 0, height: 0, fits: true });
    this.pointers = new Map();
    stage.addEventListener("wheel", (event) => this.#onWheel(event), { passive: false });
    stage.addEventListener("keydown", (event) => this.#onKey(event));
    for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) {
      stage.addEventListener(name, (event) => this.#onPointer(event));
    }
    new ResizeObserver(() => this.#onResize()).observe(stage);
  }

  /** Show an image of this size, completely. */
  open(width, height) {
    Object.assign(this, { width, height });
    this.fit();
  }

  /** Show the whole image. */
  fit() {
    const { clientWidth, clientHeight } = this.stage;
    if (!this.width || !clientWidth) return;
    this.scale = Math.min(8, (clientWidth - 2 * MARGIN) / this.width, (clientHeight - 2 * MARGIN) / this.height);
    this.x = (clientWidth - this.width * this.scale) / 2;
    this.y = (clientHeight - this.height * this.scale) / 2;
    this.#setFits(true);
    this.onChange();
  }

  /** Set the scale, and keep the image's point below (x, y) of the stage there. */
  zoomTo(scale, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    if (!this.width) return;
    const smallest = Math.min(0.02, this.scale);
    const next = Math.max(smallest, Math.min(MAX_SCALE, scale));
    this.x = x - ((x - this.x) * next) / this.scale;
    this.y = y - ((y - this.y) * next) / this.scale;
    this.scale = next;
    this.#setFits(false);
    this.onChange();
  }

  zoomBy(factor, x, y) {
    this.zoomTo(this.scale * factor, x, y);
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.#setFits(false);
    this.onChange();
  }

  /** The image's coordinates of a pointer. */
  imagePoint(event) {
    const { left, top } = this.stage.getBoundingClientRect();
    return [(event.clientX - left - this.x) / this.scale, (event.clientY - top - this.y) / this.scale];
  }

  /** Whether the whole image is shown; a finger then scrolls the page, and does not pan. */
  #setFits(fits) {
    this.fits = fits;
    this.stage.dataset.fits = String(fits);
  }

  #onResize() {
    if (this.fits) this.fit();
    else this.onChange();
  }

  #onWheel(event) {
    if (!this.width) return;
    event.preventDefault();
    const { left, top } = this.stage.getBoundingClientRect();
    // Pinching a touchpad is a wheel with Ctrl, in small steps.
    const step = event.ctrlKey ? 60 : 300;
    this.zoomBy(2 ** (-event.deltaY / step), event.clientX - left, event.clientY - top);
  }

  #onKey(event) {
    if (event.target !== this.stage || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = {
      "+": () => this.zoomBy(ZOOM_STEP),
      "=": () => this.zoomBy(ZOOM_STEP),
      "-": () => this.zoomBy(1 / ZOOM_STEP),
      0: () => this.fit(),
      1: () => this.zoomTo(1),
      ArrowLeft: () => this.pan(PAN_STEP, 0),
      ArrowRight: () => this.pan(-PAN_STEP, 0),
      ArrowUp: () => this.pan(0, PAN_STEP),
      ArrowDown: () => this.pan(0, -PAN_STEP),
    }[event.key];
    if (!action || !this.width) return;
    event.preventDefault();
    action();
  }

  #onPointer(event) {
    if (event.target.closest("button, label, #problem")) return;
    const previous = this.pointers.get(event.pointerId);
    if (event.type === "pointerdown") {
      this.moved = false;
      this.stage.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, event);
    } else if (event.type !== "pointermove") {
      this.pointers.delete(event.pointerId);
    } else if (previous) {
      const distance = this.#distance();
      this.pointers.set(event.pointerId, event);
      if (this.pointers.size === 2) this.#pinch(distance);
      else this.pan(event.clientX - previous.clientX, event.clientY - previous.clientY);
      this.moved ||= Math.hypot(event.clientX - previous.clientX, event.clientY - previous.clientY) > 2;
    }
  }

  #distance() {
    const [one, other] = [...this.pointers.values()];
    return other ? Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) : 0;
  }

  #pinch(distanceBefore) {
    const [one, other] = [...this.pointers.values()];
    const { left, top } = this.stage.getBoundingClientRect();
    const [x, y] = [(one.clientX + other.clientX) / 2 - left, (one.clientY + other.clientY) / 2 - top];
    if (distanceBefore) this.zoomBy(this.#distance() / distanceBefore, x, y);
  }
}
