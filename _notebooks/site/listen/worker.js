// All that takes time, away from the page: ONNX Runtime, the model, the spectrogram.
import { hear, predictPlaces, soundingMean, withoutOffset } from "./tagging.js";
import { columns } from "./spectrogram.js";

let model, newest = 0;

/** The bytes of a file beside this one; what was packed is unpacked. */
async function bytesOf(name) {
  const reply = await fetch(new URL(name, import.meta.url)).catch(() => { throw new Error(`${name} did not arrive; reload the page when there is a network.`); });
  if (!reply.ok) throw new Error(`${name} did not arrive (${reply.status}); reload the page.`);
  const data = new Uint8Array(await reply.arrayBuffer());
  if (data[0] !== 0x1f || data[1] !== 0x8b) return data;
  return new Uint8Array(await new Response(new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
}

/** ONNX Runtime with the model in it; `files` says where they are. */
async function load(files) {
  if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function") throw new Error("This browser has no WebAssembly, or an old one. Use one from 2023 or later, or the command soundtag tag.");
  const [about, onnx, wasm] = await Promise.all([files.about, files.model, files.wasm].map(bytesOf));
  let ort;
  try {
    ort = await import(new URL(files.runtime, import.meta.url));
    Object.assign(ort.env.wasm, { wasmBinary: wasm.buffer, numThreads: 1 });
    const session = await ort.InferenceSession.create(onnx, { executionProviders: ["wasm"] });
    model = JSON.parse(new TextDecoder().decode(about));
    model.answer = async (ys) => {
      const X = new Float32Array(ys.length * ys[0].length);
      ys.forEach((y, i) => X.set(y, i * y.length));
      const out = await session.run({ [session.inputNames[0]]: new ort.Tensor("float32", X, [ys.length, ys[0].length]) });
      return out[session.outputNames[0]].data;
    };
    await model.answer([new Float32Array(model.sr)]);    // the first run is the slowest
  } catch (e) {
    throw new Error(`The model cannot run in this browser (${e.message}). Use one from 2023 or later, or the command soundtag tag.`);
  }
  const { answer, ...told } = model;
  return told;
}

/** Let messages in; false when a newer task has come. */
const goesOn = async (task) => { await new Promise((done) => setTimeout(done)); return task === newest; };

/** What is to be said of a sound that was heard. */
const verdict = ({ windows, loudest, seconds }) => ({ p: soundingMean(windows, model.trim_db), loudness: { loudest, seconds } });

/** A whole sound: its spectrogram, its answer, its timeline, each told as soon as it is there. */
async function whole(task, y, { hop, seconds, every }) {
  postMessage({ task, columns: columns(y, model.sr, hop), hop });
  y = withoutOffset(y, model.sr);
  const sound = await hear(model, y, async (start) => {
    if (!await goesOn(task)) return false;
    postMessage({ task, done: (start + model.seconds * model.sr) / y.length });
    return true;
  });
  if (!sound) return;
  postMessage({ task, ...verdict(sound) });
  for await (const moments of predictPlaces(model, y, seconds, every)) {
    if (!await goesOn(task)) return;
    postMessage({ task, moments });
  }
  postMessage({ task, end: true });
}

/** The last seconds of a sound that goes on: the answer of one window, and of its last moment. */
async function moment(task, y, { seconds, every }) {
  const moments = [];
  y = withoutOffset(y, model.sr);
  for await (const some of predictPlaces(model, y.slice(-Math.round(seconds * model.sr)), seconds, every)) moments.push(...some);
  postMessage({ task, ...verdict(await hear(model, y)), moments, live: true });
}

addEventListener("message", async ({ data: { task, files, y, live, ...how } }) => {
  newest = task;
  try {
    if (files) postMessage({ task, model: await load(files) });
    else await (live ? moment : whole)(task, y, how);
  } catch (e) {
    postMessage({ task, fault: e.message });
  }
});
