// Sends an image by Node's fetch, as each kind of body; prints the responses by kind.
import { readFile } from "node:fs/promises";

const [url, file] = process.argv.slice(2);
const image = await readFile(file);
const document = JSON.stringify({ image: image.toString("base64") });
const jpeg = { "content-type": "image/jpeg" };

async function send(body, more) {
  const response = await fetch(url, { method: "POST", body, ...more });
  return { status: response.status, prediction: await response.json() };
}

async function* pieces() {
  for (let start = 0; start < image.length; start += 1000) {
    yield image.subarray(start, start + 1000);
  }
}

function form(...file) {
  const parts = new FormData();
  parts.append("masks", "rle");
  parts.append("data", ...file);
  return parts;
}

const stream = ReadableStream.from(pieces());
console.log(
  JSON.stringify({
    whole: await send(image, { headers: jpeg }),
    streamed: await send(stream, { headers: jpeg, duplex: "half" }),
    untyped: await send(image),
    // fetch declares text/plain.
    string: await send(document),
    blob: await send(new Blob([image], { type: "image/jpeg" })),
    "blob of JSON": await send(new Blob([document])),
    form: await send(form(new Blob([image]))),
    "form of a type": await send(form(new Blob([image], { type: "image/*" }), "a.jpg")),
    "form of JSON": await send(form(new Blob([document], { type: "application/json" }))),
  }),
);
