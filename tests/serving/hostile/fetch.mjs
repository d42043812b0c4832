// Sends an image by Node's fetch, as a body of known length and as a stream; prints both responses.
import { readFile } from "node:fs/promises";

const [url, file] = process.argv.slice(2);
const image = await readFile(file);

async function send(body, more) {
  const headers = { "content-type": "image/jpeg" };
  const response = await fetch(url, { method: "POST", headers, body, ...more });
  return { status: response.status, prediction: await response.json() };
}

async function* pieces() {
  for (let start = 0; start < image.length; start += 1000) {
    yield image.subarray(start, start + 1000);
  }
}

const whole = await send(image);
const streamed = await send(ReadableStream.from(pieces()), { duplex: "half" });
console.log(JSON.stringify([whole, streamed]));
