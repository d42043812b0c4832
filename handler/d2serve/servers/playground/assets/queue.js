/** The requests of the opened images, some at a time. */

import { predict, RequestError } from "./api.js";

const CONCURRENT_REQUESTS = 2;

export class Queue {
  /**
   * @param {import("./gallery.js").Gallery} gallery
   * @param {() => Promise<{settings: object, model: string, token: string}>} request how to send the images
   * @param {(item: import("./item.js").Item) => void} onChange called after the state of an item has changed
   */
  constructor(gallery, request, onChange) {
    Object.assign(this, { gallery, request, onChange, running: 0 });
  }

  /** Send an image, again if it was sent before. */
  add(item) {
    const first = item.first ?? item;
    first.controller?.abort();
    first.state = "queued";
    this.onChange(first);
    this.#next();
  }

  #next() {
    const item = this.gallery.items.find((each) => each.state === "queued");
    if (!item || this.running >= CONCURRENT_REQUESTS) return;
    this.running += 1;
    this.#send(item).finally(() => {
      this.running -= 1;
      this.#next();
    });
    this.#next();
  }

  async #send(item) {
    item.state = "running";
    this.onChange(item);
    const controller = new AbortController();
    item.controller = controller;
    const result = await this.#predict(item.file, controller.signal).catch(errorOf);
    if (controller.signal.aborted) return;
    const { response, error, ...facts } = result;
    if (error) this.#finish(item, null, error);
    else this.#finishAll(item, response.predictions ?? [response], facts);
  }

  async #predict(file, signal) {
    const { settings, model, token } = await this.request();
    return predict(settings, model, file, token, signal);
  }

  /** An array may contain several images: each has an item of its own. */
  #finishAll(item, responses, facts) {
    for (const [index, response] of responses.entries()) {
      const target = index ? (item.parts[index - 1] ??= this.gallery.add(item.file, `${item.file.name} [${index}]`, item)) : item;
      const { error } = response;
      if (error) this.#finish(target, null, new RequestError(0, error.code, error.message, error.hint), facts);
      else this.#finish(target, response, null, facts);
    }
  }

  #finish(item, response, error, facts) {
    item.finish(response, error, facts);
    this.onChange(item);
  }
}

function errorOf(error) {
  if (error instanceof RequestError) return { error };
  console.error(error);
  return { error: new RequestError(0, "page", "The page cannot show this response.", error.message) };
}
