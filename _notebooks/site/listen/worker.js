// All that takes time, away from the page: ONNX Runtime, the model, the spectrogram.
import { hear, predictPlaces, soundingMean, toSamples, withoutOffset } from "./tagging.js";
import { metadataOf } from "./model.js";
import { columns } from "./spectrogram.js";

const MOMENT = 1;             // s of a window of the timeline, where the network takes any length
const LARGEST = 200e6;        // bytes of a model file
const models = {};            // those that were opened: bundled, yamnet, own
let ort, model, newest = 0;

/** The bytes of a file beside this one; what was packed is unpacked. */
async function bytesOf(name) {
  const reply = await fetch(new URL(name, import.meta.url)).catch(() => { throw new Error(`${name} did not arrive; reload the page when there is a network.`); });
  if (!reply.ok) throw new Error(`${name} did not arrive (${reply.status}); reload the page.`);
  const data = new Uint8Array(await reply.arrayBuffer());
  if (data[0] !== 0x1f || data[1] !== 0x8b) return data;
  return new Uint8Array(await new Response(new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

/** A model from the bytes of a file that soundtag exported: what it says about itself, how long the timeline's windows are, and its answers. */
async function modelOf(onnx) {
  let session;
  try { session = await ort.InferenceSession.create(onnx, { executionProviders: ["wasm"] }); }
  catch (e) { throw new Error(`is no ONNX model, or a damaged one (${reason(e)}); get it again`); }
  try {
    const about = metadataOf(onnx), [input] = session.inputNames, [output] = session.outputNames;
    const run = async (ys) => {
      const X = new Float32Array(ys.length * ys[0].length);
      ys.forEach((y, i) => X.set(y, i * y.length));
      return (await session.run({ [input]: new ort.Tensor("float32", X, [ys.length, ys[0].length]) }))[output];
    };
    const zeros = (seconds) => [new Float32Array(toSamples(seconds, about.sr))];
    const { data, dims } = await run(zeros(about.seconds));    // the first run is the slowest
    if (dims.length !== 2 || dims[1] !== about.labels.length) throw new Error("the model gives other labels");
    if (!data.every(Number.isFinite)) throw new Error("the model gives no numbers");
    const span = await run(zeros(MOMENT)).then(() => MOMENT, () => about.seconds);    // some networks take one length only
    return { ...about, span, answer: async (ys) => (await run(ys)).data };
  } catch (e) {
    session.release();
    throw new Error(`is no model that soundtag exported, or a damaged one (${reason(e)}); make it anew by "soundtag export"`);
  }
}

/** Why something failed, in a few words; ONNX Runtime has a number before them. */
const reason = (e) => String(e.message ?? e).split("\n")[0].replace(/^.*ERROR_MESSAGE: /, "").slice(0, 80).replace(/\.$/, "");

/** ONNX Runtime, and the model that comes with the page; `files` says where they are. */
async function begin(files) {
  if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function") throw new Error("This browser has no WebAssembly, or an old one. Use one from 2023 or later, or the command soundtag tag.");
  const [onnx, wasm] = await Promise.all([files.model, files.wasm].map(bytesOf));
  try {
    ort = await import(new URL(files.runtime, import.meta.url));
    Object.assign(ort.env.wasm, { wasmBinary: wasm.buffer, numThreads: 1 });
    ort.env.logLevel = "fatal";
    return models.bundled = await modelOf(onnx);
  } catch (e) {
    throw new Error(`The model cannot run in this browser; it ${e.message}. Use one from 2023 or later, or the command soundtag tag.`);
  }
}

/** Another model: one that is here already, one that lies beside the page, or a file of the reader's. */
async function switchTo({ key, name, file, blob }) {
  if (blob?.size > LARGEST) throw new Error(`${name} is larger than ${LARGEST / 1e6} MB, which no model of soundtag is.`);
  if (file && !models[key]) models[key] = await modelOf(await bytesOf(file));
  if (blob) {
    try { models[key] = await modelOf(new Uint8Array(await blob.arrayBuffer())); }
    catch (e) { throw new Error(`${name} ${e.message}.`); }
  }
  return models[key];
}

/** What the page must know of a model. */
const told = ({ answer, ...about }) => about;

/** Let messages in; false when a newer task has come. */
const goesOn = async (task) => { await new Promise((done) => setTimeout(done)); return task === newest; };

/** What is to be said of a sound that was heard. */
const verdict = ({ windows, loudest, seconds }) => ({ p: soundingMean(windows, model.trim_db), loudness: { loudest, seconds } });

/** A whole sound: its spectrogram, its answer, its timeline, each told as soon as it is there. */
async function whole(task, y, { hop, every }) {
  postMessage({ task, columns: columns(y, model.sr, hop), hop });
  y = withoutOffset(y, model.sr);
  const sound = await hear(model, y, async (start) => {
    if (!await goesOn(task)) return false;
    postMessage({ task, done: (start + model.seconds * model.sr) / y.length });
    return true;
  });
  if (!sound) return;
  postMessage({ task, ...verdict(sound) });
  for await (const moments of predictPlaces(model, y, model.span, every)) {
    if (!await goesOn(task)) return;
    postMessage({ task, moments });
  }
  postMessage({ task, end: true });
}

/** The last seconds of a sound that goes on: the answer of one window, and of its last moment. */
async function moment(task, y, { every }) {
  const moments = [];
  y = withoutOffset(y, model.sr);
  for await (const some of predictPlaces(model, y.slice(-toSamples(model.span, model.sr)), model.span, every)) moments.push(...some);
  postMessage({ task, ...verdict(await hear(model, y)), moments, live: true });
}

addEventListener("message", async ({ data: { task, files, change, y, live, ...how } }) => {
  newest = task;
  try {
    if (files) postMessage({ task, model: told(model = await begin(files)) });
    else if (change) {
      const other = await switchTo(change);
      if (task === newest) postMessage({ task, model: told(model = other), key: change.key, name: change.name });
    }
    else await (live ? moment : whole)(task, y, how);
  } catch (e) {
    postMessage({ task, fault: e.message });
  }
});
