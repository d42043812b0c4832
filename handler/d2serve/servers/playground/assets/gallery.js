/** The opened images, as thumbnails. */

import { decoded, Item } from "./item.js";
import { Listbox, newElement, newOption } from "./listbox.js";

const THUMBNAIL_PX = 72;
const BADGES = { queued: "waiting", running: "…", error: "error" };

export class Gallery {
  /**
   * @param {HTMLElement} element
   * @param {(item: Item) => void} onSelect called when the user selects an image
   */
  constructor(element, onSelect) {
    this.element = element;
    /** @type {Item[]} */
    this.items = [];
    /** @type {Item|null} the one on the screen */
    this.current = null;
    this.thumbnails = Promise.resolve();
    this.list = new Listbox(element, (option) => onSelect(this.items.find((each) => each.option === option)));
  }

  /** Add a file, or one of the images of a file. */
  add(file, label = file.name, first = null) {
    const item = new Item(file, label, first);
    const size = THUMBNAIL_PX * Math.min(2, window.devicePixelRatio || 1);
    item.thumbnail = Object.assign(document.createElement("canvas"), { width: size, height: size });
    item.thumbnail.setAttribute("aria-hidden", "true");
    item.option = newOption(`image-${this.items.length}`, item.thumbnail, newElement("span", "name small", label), newElement("span", "badge small"));
    item.option.title = label;
    this.items.push(item);
    this.element.append(item.option);
    this.element.hidden = this.items.length < 2;
    return item;
  }

  /** Show an item's state and, once, its thumbnail. */
  update(item) {
    item.option.dataset.state = item.state;
    item.option.lastChild.textContent = BADGES[item.state] ?? String(item.response.scores.length);
    if (item.hasThumbnail || item.first) return;
    item.hasThumbnail = true;
    // One after the other: a decoded photograph is 50 MB.
    this.thumbnails = this.thumbnails.then(() => drawThumbnail(item));
  }

  /** Mark an item as the one on the screen, and release the one before it. */
  show(item) {
    if (this.current !== item) this.current?.release();
    this.current = item;
    this.list.select(item.option);
  }
}

async function drawThumbnail({ file, thumbnail }) {
  const image = await decoded(file);
  if (!image) return;
  const scale = Math.max(thumbnail.width / image.width, thumbnail.height / image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  thumbnail.getContext("2d").drawImage(image, (thumbnail.width - width) / 2, (thumbnail.height - height) / 2, width, height);
  image.close();
}
