/** Hover and click on the stage: the instance below the pointer. */

import { instanceAt, segmentAt } from "./scene.js";

const TIP_OFFSET_PX = 14;

export class Pointer {
  /**
   * @param {HTMLElement} stage
   * @param {HTMLElement} tip names the instance
   * @param {import("./viewport.js").Viewport} viewport
   * @param {import("./panel.js").Panel} panel
   * @param {() => void} onChange called after another instance is below the pointer
   */
  constructor(stage, tip, viewport, panel, onChange) {
    Object.assign(this, { stage, tip, viewport, panel, onChange, hovered: null });
    stage.addEventListener("pointermove", (event) => this.#hover(event));
    stage.addEventListener("pointerleave", () => this.leave());
    stage.addEventListener("click", (event) => this.#click(event));
  }

  /** Forget the instance: the pointer, or the image below it, is another one. */
  leave() {
    this.tip.hidden = true;
    this.#set(null);
  }

  #hover(event) {
    const { scene, settings, isVisible } = this.panel;
    if (!scene || this.viewport.pointers.size) return;
    const [x, y] = this.viewport.imagePoint(event);
    const found = instanceAt(scene, x, y, isVisible);
    const segment = settings.segments ? segmentAt(scene, x, y) : null;
    this.#showTip(event, found ? `${found.name} ${found.score.toFixed(2)}` : segment?.name);
    this.#set(found);
  }

  #showTip(event, text = "") {
    const { tip, stage } = this;
    tip.hidden = !text;
    tip.textContent = text;
    const { left, top } = stage.getBoundingClientRect();
    const [x, y] = [event.clientX - left + TIP_OFFSET_PX, event.clientY - top + TIP_OFFSET_PX];
    tip.style.left = `${Math.max(0, Math.min(x, stage.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, Math.min(y, stage.clientHeight - tip.offsetHeight))}px`;
  }

  #set(instance) {
    if (instance === this.hovered) return;
    this.hovered = instance;
    this.onChange();
  }

  #click(event) {
    const { scene, isVisible } = this.panel;
    if (this.viewport.moved || !scene || event.target.closest("button, #problem")) return;
    const [x, y] = this.viewport.imagePoint(event);
    this.panel.select(instanceAt(scene, x, y, isVisible));
  }
}
