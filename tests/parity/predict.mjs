// Runs an .onnx artifact in a package of ONNX Runtime for JavaScript.
// Reads a request from standard input: {package, folder, model, inputs: {name: [type, shape, base64]}, runs: [{...}]},
// where each run adds scalar inputs, and prints {version, inputs, runs: [{outputs or error}]}.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const request = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(join(request.folder, "package.json"));
const ort = require(request.package);
if (request.package === "onnxruntime-web") {
  ort.env.wasm.numThreads = 1;
}
const arrays = { uint8: Uint8Array, float32: Float32Array };
const feeds = {};
for (const [name, [type, shape, content]] of Object.entries(request.inputs)) {
  feeds[name] = new ort.Tensor(type, new arrays[type](new Uint8Array(Buffer.from(content, "base64")).buffer), shape);
}
const session = await ort.InferenceSession.create(readFileSync(request.model));
const runs = [];
for (const scalars of request.runs) {
  const given = { ...feeds };
  for (const [name, value] of Object.entries(scalars)) {
    given[name] = new ort.Tensor("float32", Float32Array.of(value), []);
  }
  try {
    const outputs = {};
    for (const [name, tensor] of Object.entries(await session.run(given))) {
      outputs[name] = { shape: tensor.dims, values: Array.from(tensor.data) };
    }
    runs.push({ outputs });
  } catch (error) {
    runs.push({ error: String(error.message) });
  }
}
console.log(JSON.stringify({ inputs: session.inputNames, runs }));
