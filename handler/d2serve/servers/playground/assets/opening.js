/** Open images: with the file dialog, from the clipboard, or dropped on the page. */

const filesOf = (transfer) => [...(transfer?.files ?? [])];

/**
 * @param {HTMLInputElement} input of the file dialog
 * @param {HTMLElement} hint shown while files are dragged over the page
 * @param {(files: File[]) => void} open
 */
export function listenForFiles(input, hint, open) {
  input.addEventListener("change", () => {
    open([...input.files]);
    // Opening the same file again is a change, too.
    input.value = "";
  });
  document.addEventListener("paste", (event) => {
    const files = filesOf(event.clipboardData);
    if (files.length) event.preventDefault();
    open(files);
  });
  listenForDrops(hint, open);
}

function listenForDrops(hint, open) {
  // Each element that the pointer enters or leaves has its own event.
  let depth = 0;
  const setDepth = (value) => {
    depth = value;
    hint.hidden = depth <= 0;
  };
  addEventListener("dragenter", () => setDepth(depth + 1));
  addEventListener("dragleave", () => setDepth(depth - 1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    setDepth(0);
    open(filesOf(event.dataTransfer));
  });
}
