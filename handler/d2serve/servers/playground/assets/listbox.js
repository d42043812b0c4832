/** Keyboard and pointer selection in an element of the role `listbox`. */

export class Listbox {
  /**
   * @param {HTMLElement} element
   * @param {(option: HTMLElement) => void} onSelect called when the user selects an option
   */
  constructor(element, onSelect) {
    Object.assign(this, { element, onSelect });
    element.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.#choose(option);
    });
    element.addEventListener("keydown", (event) => this.#onKey(event));
  }

  get options() {
    return [...this.element.querySelectorAll("[role=option]:not([hidden])")];
  }

  /** Mark an option as selected; null for none. */
  select(option) {
    for (const each of this.element.querySelectorAll("[aria-selected=true]")) {
      each.setAttribute("aria-selected", "false");
    }
    if (!option) {
      this.element.removeAttribute("aria-activedescendant");
      return;
    }
    option.setAttribute("aria-selected", "true");
    this.element.setAttribute("aria-activedescendant", option.id);
    reveal(option, this.element);
  }

  #choose(option) {
    this.select(option);
    this.onSelect(option);
  }

  #onKey(event) {
    const { options } = this;
    const current = options.findIndex((each) => each.getAttribute("aria-selected") === "true");
    const next = {
      ArrowDown: current + 1,
      ArrowRight: current + 1,
      ArrowUp: Math.max(0, current - 1),
      ArrowLeft: Math.max(0, current - 1),
      Home: 0,
      End: options.length - 1,
    }[event.key];
    if (next === undefined || !options.length) return;
    event.preventDefault();
    this.#choose(options[Math.min(next, options.length - 1)]);
  }
}

/** Scroll a container, but not the page, until an element in it is visible. */
export function reveal(element, container) {
  const [inner, outer] = [element.getBoundingClientRect(), container.getBoundingClientRect()];
  const distance = (start, end) => Math.min(start, 0) || Math.max(end, 0);
  container.scrollTop += distance(inner.top - outer.top, inner.bottom - outer.bottom);
  container.scrollLeft += distance(inner.left - outer.left, inner.right - outer.right);
}

/** An option with text; texts never become HTML. */
export function newOption(id, ...children) {
  const option = document.createElement("li");
  option.id = id;
  option.setAttribute("role", "option");
  option.setAttribute("aria-selected", "false");
  option.append(...children);
  return option;
}

/** An element with a class and text. */
export function newElement(tag, className, text = "") {
  return Object.assign(document.createElement(tag), { className, textContent: text });
}
