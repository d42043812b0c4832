/** The request on the screen as curl, Python and boto3. */

import { contentType, predictionUrl } from "./api.js";

/** Quote for a POSIX shell. */
export const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Quote for Python: JSON's strings are Python's, except for characters that hide. */
export const python = (text) =>
  JSON.stringify(text).replace(/[\u007f-\u00a0\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, (character) =>
    `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);

/**
 * The options that give what is on the screen.
 *
 * Servers refuse thresholds below the network's own: one that drops no instance is left out.
 * @param {import("./panel.js").Panel} panel
 */
export function optionsOf({ scene, settings, shownClasses }) {
  const dropsInstances = scene?.instances.some(({ score }) => score < settings.threshold);
  return {
    ...(dropsInstances && { score_threshold: settings.threshold }),
    ...(shownClasses && { classes: shownClasses }),
    ...(!settings.masks && { masks: "none" }),
  };
}

/**
 * @param {"curl"|"python"|"boto3"} kind
 * @param {object} settings see api.js
 * @param {string} model
 * @param {File} file
 * @param {object} options see `optionsOf`
 */
export function snippet(kind, settings, model, file, options) {
  const request = { settings, model, options, name: file.name, type: contentType(file) };
  if (kind === "curl") return settings.target.kind === "sagemaker" ? awsCli(request) : curl(request);
  return kind === "python" ? client(request) : boto3(request);
}

function curl({ settings, model, options, name, type }) {
  const query = new URLSearchParams(Object.entries(options).map(([key, value]) => [key, String(value)]));
  const token = settings.token ? ['-H "Authorization: Bearer $D2SERVE_TOKEN"'] : [];
  return ["curl", ...token, `-H ${shell(`Content-Type: ${type}`)}`, `--data-binary ${shell(`@${name}`)}`,
    shell(predictionUrl(settings, model) + (String(query) ? `?${query}` : ""))].join(" \\\n  ");
}

function awsCli({ settings, options, name, type }) {
  const { endpoint, region, target_model: targetModel } = settings.target;
  return ["aws sagemaker-runtime invoke-endpoint", `--endpoint-name ${shell(endpoint)}`,
    ...(region ? [`--region ${shell(region)}`] : []),
    ...(targetModel ? [`--target-model ${shell(targetModel)}`] : []),
    `--body ${shell(`fileb://${name}`)}`, `--content-type ${shell(type)}`, "--accept application/json",
    `--custom-attributes ${shell(JSON.stringify(options))}`, "response.json"].join(" \\\n  ");
}

function client({ settings, model, options, name }) {
  const { kind, endpoint, region, target_model: targetModel } = settings.target;
  const isEndpoint = kind === "sagemaker";
  const target = [python(isEndpoint ? endpoint : predictionUrl(settings, model)),
    ...(isEndpoint && region ? [`region=${python(region)}`] : []),
    ...(isEndpoint && targetModel ? [`target_model=${python(targetModel)}`] : []),
    ...(settings.token ? ['token=os.environ["D2SERVE_TOKEN"]'] : [])].join(", ");
  const words = Object.entries(options).map(([key, value]) => `, ${key}=${JSON.stringify(value)}`).join("");
  return `${settings.token ? "import os\n\n" : ""}import d2serve

with d2serve.Client(${target}) as client:
    [detections] = client.predict(${python(name)}${words})
print(detections.class_names, detections.scores, detections.boxes_xyxy)
`;
}

function boto3({ settings, options, name, type }) {
  const { endpoint, region, target_model: targetModel } = settings.target;
  return `import json

import boto3

runtime = boto3.client("sagemaker-runtime"${region ? `, region_name=${python(region)}` : ""})
with open(${python(name)}, "rb") as image:
    response = runtime.invoke_endpoint(
        EndpointName=${python(endpoint ?? "my-endpoint")},${targetModel ? `\n        TargetModel=${python(targetModel)},` : ""}
        Body=image,
        ContentType=${python(type)},
        Accept="application/json",
        CustomAttributes=${python(JSON.stringify(options))},
    )
print(json.load(response["Body"])["labels"])
`;
}
