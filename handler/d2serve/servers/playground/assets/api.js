/** Requests to the server of this page. */

/** Without a file name, so that the URLs of the API are relative to it. */
const BASE = new URL(".", document.baseURI);
const TYPES = { npy: "application/x-npy", tif: "image/tiff", tiff: "image/tiff", bmp: "image/bmp" };
// The response is one that the page can draw, whatever the defaults of the archive are.
const OPTIONS = "format=default&masks=rle";

/** An error with the contract's code, message and hint. */
export class RequestError extends Error {
  constructor(status, code, message, hint = "") {
    super(message);
    Object.assign(this, { status, code, hint });
  }
}

/** The models and the target of the page. */
export async function config() {
  return (await send(new URL("playground/config.json", BASE))).json();
}

/** @throws {RequestError} without a response, or with an error status */
async function send(url, request) {
  const response = await fetch(url, request).catch((error) => {
    throw new RequestError(0, "no_response", "The server did not respond.", `Check that it is running. (${error.message})`);
  });
  if (!response.ok) throw await errorOf(response);
  return response;
}

/**
 * The URL of a model, as clients call it.
 * @param {object} settings see `config`
 * @param {string} model
 */
export function predictionUrl(settings, model) {
  if (settings.target.kind === "url") return settings.target.url;
  return new URL(`predictions/${encodeURIComponent(model)}`, BASE).href;
}

/**
 * Detect instances in a file.
 * @param {AbortSignal} signal
 * @returns {Promise<{response: object, timing: object[], ms: number}>}
 * @throws {RequestError}
 */
export async function predict(settings, model, file, token, signal) {
  const path = settings.target.kind === "server" ? predictionUrl(settings, model) : "invocations";
  const headers = { "Content-Type": contentType(file), Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const body = await file.arrayBuffer().catch((error) => {
    throw new RequestError(0, "unreadable", "The browser cannot read this file.", `Open files, not folders. (${error.message})`);
  });
  const started = performance.now();
  const sent = await send(new URL(`${path}?${OPTIONS}`, BASE), { method: "POST", body, headers, signal });
  const response = await sent.json().catch(() => null);
  const ms = performance.now() - started;
  if (!response || !(response.scores || response.predictions)) {
    throw new RequestError(sent.status, "no_prediction", "The response is not a prediction.",
      "Another server may have answered in place of d2serve.");
  }
  return { response, timing: timings(sent.headers.get("Server-Timing")), ms };
}

/** @param {File} file */
export function contentType(file) {
  const suffix = file.name.split(".").pop().toLowerCase();
  return TYPES[suffix] ?? (file.type || "application/octet-stream");
}

/** Parse `Server-Timing`. */
function timings(header) {
  return (header ?? "").split(",").flatMap((entry) => {
    const [name, ...parameters] = entry.split(";").map((part) => part.trim());
    const find = (key) => parameters.find((each) => each.startsWith(`${key}=`))?.slice(key.length + 1);
    return name ? [{ name, ms: find("dur"), description: find("desc")?.replaceAll('"', "") }] : [];
  });
}

/** The error of a response: the API's, TorchServe's own, or the text of a gateway. */
async function errorOf(response) {
  const text = await response.text().catch(() => "");
  try {
    const content = JSON.parse(text);
    const { code, message, hint } = content.error ?? content;
    if (message) return new RequestError(response.status, String(code), message, hint);
  } catch {
    // Not JSON.
  }
  const plain = text.replace(/<[^>]*>/g, " ").replace(/\s+/g, " ").trim().slice(0, 200);
  return new RequestError(response.status, `http_${response.status}`,
    `The server responded with status ${response.status}.`, plain);
}
