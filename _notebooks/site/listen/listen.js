// The page that listens: takes a sound from a file, an example or the microphone, and draws what the worker makes of it.
import { SILENCE_DB, tag } from "./tagging.js";
import { rateOf, resample } from "./resample.js";
import { columns, HIGH, LOW, ROWS, SIZE } from "./spectrogram.js";

const EVERY = .25;                    // s from one window of the timeline to the next
const LONGEST = 600;                  // s of a file: it is decoded as a whole
const SHOWN = 10, KEPT = 60;          // s of the microphone: on the screen, and in memory
const RANGE = 80;                     // dB from the darkest to the brightest
const LIKELY = .5;                    // Least probability in the timeline's text where the model names no threshold

const $ = (id) => document.getElementById(id);
const view = $("listen"), files = JSON.parse(view.dataset.files);
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
let model, task = 0, waiting, sound, microphone;
let key = "bundled", last;            // the model that answers, and the sound that was heard last

// ---- words

const nice = (label) => label.replaceAll("_", " ");
const percent = (p) => p < .005 ? "< 1 %" : `${p > .995 && p < .9995 ? (100 * p).toFixed(1) : Math.round(100 * p)} %`;
const say = (text, fault = false) => { $("say").textContent = text; $("say").classList.toggle("fault", fault); };
const fail = (text) => { stop(); task++; clear(); say(text, true); };
const put = (node, text) => { if (node.textContent !== text) node.textContent = text; };     // what is the same is not announced again

/** Nothing is left of the last answer. */
function clear() {
  const player = $("player");
  player.pause();
  if (player.src.startsWith("blob:")) URL.revokeObjectURL(player.src);
  player.removeAttribute("src");
  player.hidden = $("now").hidden = $("save").hidden = true;
  view.removeAttribute("aria-busy");
  for (const id of ["heard", "moment"]) put($(id), "");
  for (const id of ["best", "parts", "about"]) $(id).replaceChildren();
  for (const id of ["spectrogram", "times", "timeline"]) $(id).width = 0;
  $("timeline").setAttribute("aria-label", "Timeline: a row a label, deep where it is probable");
  sound = undefined;
}

function showAnswer(p, loudness) {
  const best = tag(p, model, loudness);
  put($("heard"), nice(best[0][0]));
  $("best").replaceChildren(...best.map(([label, q]) => {
    const item = document.createElement("li");
    item.dataset.label = label;
    item.style.setProperty("--p", q);
    item.append(Object.assign(document.createElement("span"), { textContent: nice(label) }), Object.assign(document.createElement("b"), { textContent: percent(q) }));
    return item;
  }));
  view.dispatchEvent(new CustomEvent("answer", { detail: { labels: model.labels, p, best, live: !!microphone } }));
}

// ---- pictures

const MAGMA = ["000004", "140e36", "3b0f70", "641a80", "8c2981", "b73779", "de4968", "f7705c", "fe9f6d", "fecf92", "fcfdbf"].map((c) => [0, 2, 4].map((i) => parseInt(c.slice(i, i + 2), 16)));
const COLOURS = Array.from({ length: 256 }, (_, v) => {
  const at = v / 255 * (MAGMA.length - 1), k = Math.min(MAGMA.length - 2, Math.floor(at));
  return MAGMA[k].map((c, i) => c + (MAGMA[k + 1][i] - c) * (at - k));
});

/** A canvas as sharp as the screen; its context in CSS pixels. */
function sharp(canvas, height = canvas.clientHeight) {
  const width = canvas.clientWidth, ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const ctx = canvas.getContext("2d");
  ctx.scale(ratio, ratio);
  ctx.font = "12px system-ui, sans-serif";
  ctx.textBaseline = "middle";
  return [ctx, width, height];
}

function drawSpectrogram() {
  const [ctx, width, height] = sharp($("spectrogram"));
  const { levels, hop } = sound, count = levels.length / ROWS, rate = model.sr / hop;
  const loudest = levels.reduce((a, b) => Math.max(a, b), -60), image = new ImageData(count, ROWS);
  for (let c = 0; c < count; c++) for (let row = 0; row < ROWS; row++) {
    const v = Math.round(255 * (1 + (levels[c * ROWS + row] - loudest) / RANGE));
    image.data.set([...COLOURS[Math.max(0, v)], 255], 4 * ((ROWS - 1 - row) * count + c));
  }
  const small = new OffscreenCanvas(count, ROWS);
  small.getContext("2d").putImageData(image, 0, 0);
  ctx.fillStyle = "#000004";
  ctx.fillRect(0, 0, width, height);
  const x = (s) => (s - sound.from) / (sound.to - sound.from) * width;
  ctx.drawImage(small, x(sound.first), 0, x(sound.first + count / rate) - x(sound.first), height);
  ctx.fillStyle = "#fff";
  ctx.shadowColor = "#000";
  ctx.shadowBlur = 4;
  for (const hz of [100, 1000, 10000]) ctx.fillText(hz < 1000 ? `${hz} Hz` : `${hz / 1000} kHz`, 6, height * (1 - Math.log(hz / LOW) / Math.log(HIGH / LOW)));
  drawTimes();
}

/** The seconds below the picture, at round distances. */
function drawTimes() {
  const [ctx, width, height] = sharp($("times")), span = sound.to - sound.from;
  const step = [.1, .2, .5, 1, 2, 5, 10, 20, 30, 60, 120].find((s) => s / span * width > 45);
  ctx.fillStyle = getComputedStyle(view).color;
  for (let s = Math.ceil(sound.from / step) * step; (sound.to - s) / span * width > 24; s += step) {
    ctx.textAlign = s === 0 ? "left" : "center";
    ctx.fillText(step < 1 ? s.toFixed(1) : String(Math.round(s)), (s - sound.from) / span * width, height / 2);
  }
  ctx.textAlign = "right";
  ctx.fillText("s", width, height / 2);
}

const place = ({ start }) => [start / model.sr + (model.span - EVERY) / 2, start / model.sr + (model.span + EVERY) / 2];    // the middle of a window is what it speaks for

/** Labels as rows, the strongest first; probability as depth of colour. */
function drawTimeline() {
  const seen = sound.moments.filter((m) => place(m)[1] > sound.from), peak = (i) => seen.reduce((a, m) => Math.max(a, m.p[i]), 0);
  const rows = model.labels.map((label, i) => [i, peak(i)]).sort((a, b) => b[1] - a[1]).slice(0, 5).filter(([, p], k) => k === 0 || p > .1);
  const line = 24, [ctx, width, height] = sharp($("timeline")), style = getComputedStyle(view);
  ctx.clearRect(0, 0, width, height);
  if (!seen.length) return;
  const x = (s) => (s - sound.from) / (sound.to - sound.from) * width;
  rows.forEach(([i], row) => {
    ctx.fillStyle = style.getPropertyValue("--strip");
    seen.forEach((m, k) => {
      const from = m === sound.moments[0] ? 0 : k ? place(seen[k - 1])[1] : place(m)[0];
      const to = m === sound.moments.at(-1) && sound.ended ? sound.seconds : Math.min(place(m)[1], sound.seconds);
      ctx.globalAlpha = m.level < SILENCE_DB ? 0 : m.p[i];
      ctx.fillRect(x(from), row * line + 1, x(to) - x(from), line - 2);
    });
    ctx.globalAlpha = 1;
    const text = nice(model.labels[i]), long = ctx.measureText(text).width + 12;
    ctx.fillStyle = style.getPropertyValue("--plate");
    ctx.fillRect(0, row * line + 3, long, line - 6);
    ctx.fillStyle = style.color;
    ctx.fillText(text, 6, row * line + line / 2 + 1);
  });
}

/** Where one label stays likely: [{label, from, to, p}]; its p is a mean. */
function partsOf({ moments, seconds }) {
  const parts = [];
  for (const m of moments) {
    const i = m.p.indexOf(Math.max(...m.p)), least = Math.max(model.thresholds?.[model.labels[i]] ?? LIKELY, model.unknown);
    const rest = model.rejects ? 1 - m.p.reduce((a, b) => a + b) : 0;
    const named = model.multilabel ? model.labels.filter((label, k) => m.p[k] >= model.thresholds[label]) : m.p[i] >= least ? [model.labels[i]] : [];
    const [label, p] = m.level < SILENCE_DB ? ["silence", 1] : rest >= .5 ? ["unknown", rest] : named.length ? [named.join(", "), m.p[i]] : ["unknown", 1 - m.p[i]];
    const [from, to] = place(m), before = parts.at(-1);
    if (before?.label === label) { before.to = to; before.all.push(p); }
    else parts.push({ label, from: parts.length ? from : 0, to, all: [p] });
    if (parts.length > 1 && parts.at(-1).from < parts.at(-2).to) parts.at(-2).to = parts.at(-1).from;
  }
  parts.at(-1).to = seconds;
  return parts.map(({ all, ...part }) => ({ ...part, p: all.reduce((a, b) => a + b) / all.length }));
}

/** The timeline in words, and what can be done with it. */
function tellTimeline() {
  sound.parts = partsOf(sound);
  $("parts").replaceChildren(...sound.parts.map(({ label, from, to }) => Object.assign(document.createElement("li"), { textContent: `${from.toFixed(1)}–${to.toFixed(1)} s: ${label === "unknown" ? "unclear" : nice(label)}` })));
  const labels = [...new Set(sound.parts.map((p) => nice(p.label)))].join(", ");
  $("timeline").setAttribute("aria-label", `Timeline over ${sound.seconds.toFixed(1)} s: ${labels}. The list below has the times.`);
  $("save").hidden = false;
}

/** The timeline as a file, in the words of `soundtag tag --timeline`. */
const WRITERS = {
  csv: ({ name, parts }) => ["file,onset,offset,label,probability", ...parts.map(({ from, to, label, p }) => [quoted(name), from.toFixed(3), to.toFixed(3), quoted(label), p.toFixed(6)].join(","))].join("\n") + "\n",
  txt: ({ parts }) => parts.map(({ from, to, label }) => `${from.toFixed(6)}\t${to.toFixed(6)}\t${label.split(/\s+/).join(" ")}\n`).join("") };
const quoted = (field) => /[",\n]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field;

function save(kind) {
  const url = URL.createObjectURL(new Blob([WRITERS[kind](sound)], { type: "text/plain" }));
  const stem = sound.name.replace(/\.\w+$/, "").replace(/\W+/g, "_");
  Object.assign(document.createElement("a"), { href: url, download: `${stem}.${kind}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function draw() {
  if (!sound?.levels?.length) return;
  drawSpectrogram();
  drawTimeline();
}

/** What is told of the moment that is played, and a line where it is. */
function follow() {
  const player = $("player"), at = player.currentTime;
  if (!sound || microphone) return;
  $("now").style.left = `${100 * Math.min(1, at / sound.seconds)}%`;
  $("now").hidden = false;
  const m = sound.moments.find((one) => place(one)[1] > at) ?? sound.moments.at(-1);
  if (m && !player.paused) {
    const i = m.p.indexOf(Math.max(...m.p));
    put($("moment"), m.level < SILENCE_DB ? "now: silence" : `now: ${nice(model.labels[i])}, ${percent(m.p[i])}`);
  }
  if (!player.paused) requestAnimationFrame(follow);
}

// ---- sounds

/** Anything the browser can decode, as samples at the model's rate, mixed to one channel. */
async function decoded(bytes, name) {
  if (!bytes.byteLength) throw new Error(`${name} is empty, 0 bytes; record it again.`);
  const rate = rateOf(new DataView(bytes)) ?? 44100;    // its own, so that the browser doesn't change it
  let buffer;
  try { buffer = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes); }
  catch { throw new Error(`${name} is not sound in a format this browser knows, or is damaged; export it as wav, flac, ogg or mp3.`); }
  return resample(checked(mixed(buffer), name), rate, model.sr);
}

function mixed(buffer) {
  const channels = Array.from({ length: buffer.numberOfChannels }, (_, i) => buffer.getChannelData(i));
  return channels.length === 1 ? channels[0] : channels[0].map((_, k) => channels.reduce((sum, c) => sum + c[k], 0) / channels.length);
}

function checked(y, name) {
  if (!y.length) throw new Error(`${name} holds no samples; record it again.`);
  if (!y.every(Number.isFinite)) throw new Error(`${name} holds samples that are NaN or infinite; export it again.`);
  return y;
}

/** Length of a file in s before it is decoded; NaN where the browser does not say. */
const secondsOf = (url) => new Promise((done) => {
  const probe = Object.assign(new Audio(), { preload: "metadata", onloadedmetadata: () => done(probe.duration), onerror: () => done(NaN), src: url });
  setTimeout(done, 1000, NaN);
});

/** Show a sound, and let the worker hear it. */
function take(y, name, url, about) {
  const seconds = y.length / model.sr, hop = Math.max(256, Math.ceil(y.length / 1200));
  sound = { name, seconds, from: 0, to: seconds, first: 0, moments: [], hop };
  const player = $("player");
  if (player.src.startsWith("blob:")) URL.revokeObjectURL(player.src);
  player.src = url;
  player.hidden = false;
  $("parts").replaceChildren();
  $("now").hidden = $("save").hidden = true;
  put($("moment"), "");
  say(`Listening to ${name}, ${seconds.toFixed(1)} s …`);
  tellAbout(about);
  view.setAttribute("aria-busy", "true");
  worker.postMessage({ task: ++task, y, hop, every: EVERY });
}

/** What is known of an example: whose it is, and what a network said that had not heard it. */
function tellAbout(about) {
  $("about").replaceChildren();
  if (!about?.url) return;
  const link = Object.assign(document.createElement("a"), { href: about.url, textContent: about.credit });
  const heldOut = about.right ? `named it rightly, with ${percent(about.p)}` : `took it for something else, with ${percent(about.p)}`;
  const learned = key === "bundled" ? ` The bundled model has learned from this recording, so its answer proves little; a network that had not heard it ${heldOut}.` : "";
  $("about").append("Recording: ", link, `. Its label is ${nice(about.label)}.${learned}`);
}

/** A file or an example, from the first byte to the answer. */
async function open(blob, name, about, plays = !!about) {
  stop();
  $("player").pause();
  if (!model) { waiting = [blob, name, about]; return say(`${name} is heard as soon as the model is here …`); }
  if (/\.onnx$/i.test(name)) return change({ key: "own", name, blob });
  last = [blob, name, about];
  const mine = ++task, url = URL.createObjectURL(blob);
  say(`Reading ${name} …`);
  try {
    const seconds = blob.size > 1e6 ? await secondsOf(url) : NaN;
    if (seconds > LONGEST) throw new Error(`${name} lasts ${Math.round(seconds / 60)} minutes; this page hears ${LONGEST / 60} at most. The command soundtag tag hears any length.`);
    const y = await decoded(await blob.arrayBuffer(), name);
    if (mine !== task) return;
    take(y, name, url, about);
    if (plays) $("player").play().catch(() => {});    // a browser may want another click
  } catch (e) { if (mine === task) { last = undefined; fail(e.message); } }
}

async function example(button) {
  try {
    const reply = await fetch(button.dataset.src);
    if (!reply.ok) throw new Error(reply.status);
    const about = JSON.parse(button.dataset.about);
    open(await reply.blob(), `the ${about.url ? "" : "synthetic "}example ${button.textContent}`, about);
    $("best").scrollIntoView({ block: "nearest" });
  } catch { fail("The example did not arrive; try again when there is a network."); }
}

// ---- models

/** Let another model answer: {key, name, file or blob}. */
function change(wanted) {
  stop();
  clear();
  say(wanted.file && key !== wanted.key ? `Fetching ${wanted.name} …` : `Opening ${wanted.name} …`);
  view.setAttribute("aria-busy", "true");
  worker.postMessage({ task: ++task, change: wanted });
}

/** Show which model answers, and hear the last sound again with it. */
function changed(data) {
  key = data.key;
  if (key === "own") {
    $("own").dataset.name = data.name;
    Object.assign($("own"), { hidden: false, textContent: `${data.name}: ${model.labels.length} sounds` });
  }
  view.querySelectorAll("[data-model]").forEach((b) => b.setAttribute("aria-pressed", b.dataset.model === key));
  tellModel(data.name);
  view.removeAttribute("aria-busy");
  if (last) open(...last.slice(0, 2), last[2], false);
  else say(`${data.name} answers now. Choose a sound.`);
}

function tellModel(name) {
  const names = model.labels.slice(0, 6).map(nice).join(", "), more = model.labels.length > 6 ? ", …" : "";
  put($("which"), key === "bundled" ? "" : `${name} answers: ${model.labels.length} sounds (${names}${more}). The button “${$("bundled").textContent}” brings back the model that comes with this page.`);
}

// ---- microphone

const REFUSED = {
  NotAllowedError: "The microphone was refused. Allow it for this page in the browser's settings, then press Microphone again.",
  NotFoundError: "There is no microphone. Plug one in, then press Microphone again.",
  NotReadableError: "The microphone is in use by another program. Close that, then press Microphone again." };

/** Open the microphone at the model's rate, or at its own where the browser insists. */
async function begin() {
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  if (!navigator.mediaDevices) throw new Error("The browser gives the microphone only to pages that come by https.");
  const stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  let context = new AudioContext({ sampleRate: model.sr }), source;
  try { source = context.createMediaStreamSource(stream); }
  catch { context.close(); context = new AudioContext(); source = context.createMediaStreamSource(stream); }
  await context.audioWorklet.addModule(new URL("microphone.js", import.meta.url));
  const node = new AudioWorkletNode(context, "microphone");
  source.connect(node);
  await context.resume();
  return { stream, context, node, blocks: [], length: 0, heard: 0, columns: 0 };
}

async function start() {
  stop();
  $("player").pause();
  $("player").hidden = true;
  task++;
  say("Asking for the microphone …");
  $("microphone").disabled = true;
  try { microphone = await begin(); }
  catch (e) { return fail(REFUSED[e.name] ?? `The microphone cannot be used: ${e.message}`); }
  finally { $("microphone").disabled = false; }
  $("microphone").setAttribute("aria-pressed", "true");
  put($("microphone"), "Stop");
  say("Listening to the microphone. Nothing is sent anywhere.");
  $("parts").replaceChildren();
  $("about").replaceChildren();
  $("now").hidden = $("save").hidden = true;
  sound = { name: "the microphone", seconds: 0, from: 0, to: SHOWN, first: 0, moments: [], hop: 512, levels: new Float32Array(0), live: true };
  const mic = microphone, rate = mic.context.sampleRate;
  mic.stream.getAudioTracks()[0].onended = () => microphone === mic && finish();
  mic.node.port.onmessage = ({ data }) => {
    mic.blocks.push(data);
    mic.length += data.length;
    if ((mic.length - mic.heard) / rate >= EVERY) hearMoment(mic);
    if (mic.length / rate > KEPT) finish();
  };
}

/** The samples from `from` to the end of what the microphone has heard, at its own rate. */
function recorded(mic, from) {
  const y = new Float32Array(mic.length - from);
  let end = y.length;
  for (let i = mic.blocks.length - 1; i >= 0 && end > 0; i--) {
    const b = mic.blocks[i], part = b.subarray(Math.max(0, b.length - end));
    y.set(part, end -= part.length);
  }
  return y;
}

async function atRate(y, rate) {
  if (rate === model.sr) return y;
  const context = new OfflineAudioContext(1, Math.ceil(y.length / rate * model.sr), model.sr), source = context.createBufferSource();
  source.buffer = context.createBuffer(1, y.length, rate);
  source.buffer.copyToChannel(y, 0);
  source.connect(context.destination);
  source.start();
  return (await context.startRendering()).getChannelData(0);
}

/** Every quarter of a second: the spectrogram grows, and the worker hears the last seconds unless it is still busy. */
async function hearMoment(mic) {
  const rate = mic.context.sampleRate;
  mic.heard = mic.length;
  const end = mic.length / rate, last = await atRate(recorded(mic, Math.max(0, mic.length - Math.ceil(model.seconds * rate))), rate);
  if (microphone !== mic) return;
  const total = Math.round(end * model.sr), { hop } = sound, count = Math.max(0, Math.floor((total - SIZE / 2) / hop) - mic.columns);
  const levels = columns(last, model.sr, hop, count, mic.columns * hop - (total - last.length)), kept = Math.floor(SHOWN * model.sr / hop) * ROWS;
  const all = new Float32Array(sound.levels.length + levels.length);
  all.set(sound.levels);
  all.set(levels, sound.levels.length);
  mic.columns += count;
  sound.levels = all.slice(-kept);
  sound.seconds = end;
  sound.to = Math.max(SHOWN, end);
  sound.from = sound.to - SHOWN;
  sound.first = (mic.columns - sound.levels.length / ROWS) * hop / model.sr;
  draw();
  if (!mic.busy) { mic.busy = true; mic.asked = end; worker.postMessage({ task: mic.task = ++task, y: last, live: true, every: EVERY }); }
}

function stop() {
  const mic = microphone;
  microphone = undefined;
  mic?.stream.getTracks().forEach((t) => t.stop());
  mic?.context.close();
  $("microphone").setAttribute("aria-pressed", "false");
  put($("microphone"), "Microphone");
  return mic;
}

/** The microphone is closed, and what it heard is treated as a file would be. */
async function finish() {
  const mic = stop(), mine = ++task;
  try {
    const y = checked(await atRate(recorded(mic, 0), mic.context.sampleRate), "The recording");
    if (mine !== task) return;
    const blob = new Blob([wav(y, model.sr)], { type: "audio/wav" });
    last = [blob, "the recording"];
    take(y, "the recording", URL.createObjectURL(blob));
  } catch (e) { fail(e.message); }
}

/** A wav file with 16 bits a sample, for the player. */
function wav(y, sr) {
  const view = new DataView(new ArrayBuffer(44 + 2 * y.length)), text = (at, s) => [...s].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * y.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
  view.setUint32(24, sr, true); view.setUint32(28, 2 * sr, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true);
  text(36, "data"); view.setUint32(40, 2 * y.length, true);
  y.forEach((v, i) => view.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(32768 * v))), true));
  return view;
}

// ---- what the worker says, what the reader does

worker.onmessage = ({ data }) => {
  if (data.fault) return fail(data.fault);
  if (data.key) {
    if (data.task === task) { model = data.model; changed(data); }
    return;
  }
  if (data.model) {
    model = data.model;
    view.dataset.ready = "true";
    view.querySelectorAll("button").forEach((b) => { b.disabled = false; });
    $("bundled").setAttribute("aria-pressed", "true");
    say("Ready. Nothing you choose is sent anywhere.");
    keepOffline();
    if (waiting) open(...waiting);
    return;
  }
  if (data.live) {
    if (!microphone || microphone.task !== data.task) return;
    microphone.busy = false;
    const m = data.moments.at(-1);
    sound.moments.push({ ...m, start: Math.max(0, Math.round((microphone.asked - model.span) * model.sr)) });
    showAnswer(data.p, data.loudness);
    put($("moment"), "");
    return;
  }
  if (data.task !== task) return;
  if (data.columns) { sound.levels = data.columns; draw(); }
  if (data.done && data.done < 1) say(`Listening to ${sound.name}: ${Math.round(100 * data.done)} % …`);
  if ("p" in data) { showAnswer(data.p, data.loudness); say(`Heard ${sound.name}, ${sound.seconds.toFixed(1)} s.`); }
  if (data.moments) { sound.moments.push(...data.moments); drawTimeline(); }
  if (data.end) { sound.ended = true; view.removeAttribute("aria-busy"); drawTimeline(); tellTimeline(); view.dispatchEvent(new CustomEvent("timeline", { detail: sound.moments })); }
};
worker.onerror = () => fail("A part of the page did not arrive or cannot run in this browser. Reload the page; if that does not help, use a browser from 2023 or later.");

/** Let a service worker keep the page, once all of it has been loaded. */
async function keepOffline() {
  if (!navigator.serviceWorker) return;
  try {
    await navigator.serviceWorker.register("offline.js");
    await navigator.serviceWorker.ready;
    $("offline").hidden = false;
    view.dataset.offline = "true";
  } catch { $("offline").hidden = true; }
}

for (const [button, input] of [["choose", "file"], ["choose-model", "model-file"]]) {
  $(button).onclick = () => $(input).click();
  $(input).onchange = () => { const file = $(input).files[0]; $(input).value = ""; if (file) input === "file" ? open(file, file.name) : change({ key: "own", name: file.name, blob: file }); };
}
view.querySelectorAll("[data-model]").forEach((b) => { b.onclick = () => b.dataset.model !== key && change({ key: b.dataset.model, name: b.dataset.name, file: b.dataset.file }); });
for (const kind of ["csv", "txt"]) $(`save-${kind}`).onclick = () => save(kind);
$("microphone").onclick = () => microphone ? finish() : start();
view.querySelectorAll("[data-src]").forEach((b) => { b.onclick = () => example(b); });
$("player").onplay = () => requestAnimationFrame(follow);
$("player").onseeked = follow;
addEventListener("dragover", (e) => { e.preventDefault(); view.classList.add("over"); });
addEventListener("dragleave", (e) => { if (!e.relatedTarget) view.classList.remove("over"); });
addEventListener("drop", (e) => {
  e.preventDefault();
  view.classList.remove("over");
  const file = e.dataTransfer.files[0];
  if (file) open(file, file.name);
});
addEventListener("resize", draw);
new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["class", "data-scheme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
worker.postMessage({ task, files });
