// What soundtag.tagging does with samples, in the order of that module, so that page and package say the same.

export const SILENCE_DB = -80;    // dB re full scale; what never rises above it is silence

const INAUDIBLE_DB = -100, QUIET_DB = -37.5, LOUD_DB = -10;    // what never rises above the first is silence; above the second, it is heard louder, at the third
const FAINT_DB = -90, BRIEF = .02;    // what never rises above the one, dB, or is shorter than the other, s, can't be judged

export const toSamples = (seconds, sr) => Math.round(seconds * sr);

/** Overlapping windows as [first sample, samples], or all there are where they are fewer; the last ends where the sound ends. */
export function* windows(y, size, hop) {
  let start = 0;
  for (; start + size < y.length; start += hop) yield [start, y.subarray(start, start + size)];
  start = Math.max(0, y.length - size);
  yield [start, y.subarray(start)];
}

/** Level of each 20 ms in dB re full scale, -200 for zeros; the last may be shorter. */
export function frameLevels(y, sr) {
  const hop = toSamples(.02, sr), levels = new Float64Array(Math.ceil(y.length / hop));
  for (let k = 0; k < levels.length; k++) {
    const end = Math.min(y.length, (k + 1) * hop);
    let sum = 0;
    for (let i = k * hop; i < end; i++) sum += y[i] * y[i];
    levels[k] = 10 * Math.log10(sum / (end - k * hop) + 1e-20);
  }
  return levels;
}

/** A sound of n samples made as long as a window: padded with zeros on both sides, or repeated, such that it begins with the window or, the last time, ends with it. */
export function padOrRepeat(y, size, fill, last = false) {
  const out = new Float32Array(size), n = y.length;
  if (fill !== "repeat") out.set(y, Math.floor((size - n) / 2));
  else if (last) for (let i = 1; i <= size; i++) out[size - i] = y[n - 1 - (i - 1) % n];
  else for (let i = 0; i < size; i++) out[i] = y[i % n];
  return out;
}

/** A window, or a shorter sound, without the silence at its ends, filled up again, and how loud it is in dB re full scale. */
export function trimAndFill(y, { sr, trim_db, fill }, size, last = false) {
  const levels = frameLevels(y, sr), hop = toSamples(.02, sr), level = levels.reduce((a, b) => Math.max(a, b));
  const loud = (l) => trim_db === null || l >= level - trim_db;
  const first = levels.findIndex(loud), end = levels.findLastIndex(loud);
  return [padOrRepeat(y.subarray(first * hop, (end + 1) * hop), size, fill, last), level];
}

/** What the model says about each window; a short sound that is repeated is heard twice. Yields [{start, level, p}] for up to `batch` of them. */
export async function* predictBatches(model, heard, size, batch = 8) {
  const labels = model.labels.length;
  const answers = async (some) => {
    const p = await model.answer(some.map(([, y]) => y));
    return some.map(([start, , level], i) => {
      const scores = Array.from(p.subarray(i * labels, (i + 1) * labels));
      if (model.independent || model.multilabel) return { start, level, p: scores };    // each label has a score of its own
      if (model.rejects) scores.push(Math.max(0, 1 - scores.reduce((a, b) => a + b)));    // none of them
      const powered = scores.map((q) => model.temperature === 1 ? q : Math.max(q, 1e-12) ** (1 / model.temperature));
      const sum = powered.reduce((a, b) => a + b);
      return { start, level, p: powered.slice(0, labels).map((q) => q / sum) };
    });
  };
  let some = [];
  for (const [start, window] of heard) {
    for (const last of window.length < size && model.fill === "repeat" ? [false, true] : [false]) {
      some.push([start, ...trimAndFill(window, model, size, last)]);
      if (some.length === batch) { yield await answers(some); some = []; }
    }
  }
  if (some.length) yield await answers(some);
}

/** Window after window, as the sound goes by; window and hop in s, the model's own where left out. */
export function predictWindows(model, y, seconds = model.seconds, hop = seconds / 2) {
  const size = toSamples(seconds, model.sr);
  return predictBatches(model, windows(y, size, toSamples(hop, model.sr)), size);
}

/** The constant part of a recording, by its first 6 s, where it is no part of the sound. */
function constantOffset(y, sr) {
  const n = Math.min(y.length, 6 * sr), seconds = n / sr;
  let sum = 0, squares = 0;
  for (let i = 0; i < n; i++) { sum += y[i]; squares += y[i] * y[i]; }
  const mean = sum / n, deviation = Math.sqrt(Math.max(0, squares / n - mean * mean));
  return seconds < .02 || Math.abs(mean) <= Math.max(5e-5, (.2 + .04 / seconds) * deviation) ? 0 : Math.fround(mean);
}

/** A sound without its constant part. */
export function withoutOffset(y, sr) {
  const offset = constantOffset(y, sr);
  return offset ? y.map((v) => v - offset) : y;
}

/** The answers about all of a sound, and how loud and long it is: {windows, loudest, seconds}; what is quiet is heard again, louder. `goOn` is told each window's start and may stop it: null. */
export async function hear(model, y, goOn = () => true, gain = 1) {
  const heard = [], factor = Math.fround(gain);
  for await (const some of predictWindows(model, gain === 1 ? y : y.map((v) => factor * v))) {
    heard.push(...some);
    if (!await goOn(heard.at(-1).start)) return null;
  }
  const loudest = heard.reduce((a, { level }) => Math.max(a, level), -Infinity);
  if (gain === 1 && loudest >= INAUDIBLE_DB && loudest < (model.known ? LOUD_DB : QUIET_DB)) {
    const louder = await hear(model, y, goOn, 10 ** ((LOUD_DB - loudest) / 20));
    return louder && { ...louder, loudest };
  }
  return { windows: heard, loudest, seconds: y.length / model.sr };
}

/** The mean over all windows that are not silent; null when all are. */
export function soundingMean(heard, trimDb) {
  const least = Math.max(SILENCE_DB, heard.reduce((a, { level }) => Math.max(a, level), -Infinity) - (trimDb ?? Infinity));
  const loud = heard.filter(({ level }) => level >= least);
  return loud.length ? loud[0].p.map((_, i) => loud.reduce((sum, { p }) => sum + p[i], 0) / loud.length) : null;
}

/** As `predictWindows`, with one answer a place: of a short sound that is heard twice, the mean. */
export async function* predictPlaces(model, y, seconds, hop) {
  for await (const some of predictWindows(model, y, seconds, hop)) {
    yield y.length < toSamples(seconds, model.sr) ? [{ ...some[0], p: soundingMean(some, model.trim_db) ?? some[0].p }] : some;
  }
}

/** How probably a sound is of any of the labels, by the probability of the best of them; as `known_probability` in Python. */
function knownProbability(highest, [slope, offset]) {
  const p = Math.min(Math.max(highest, 1e-4), 1 - 1e-4);
  return 1 / (1 + Math.exp(-slope * Math.log(p / (1 - p)) - offset));
}

/** The most probable labels with their probabilities, best first, in the order of labels where six digits are the same; of a model of several labels all that reach their thresholds; silence alone is [["silence", 1]], and what `hear` found too short or too quiet to judge [["unknown", 1]]. */
export function tag(p, { labels, unknown, known, rejects, multilabel, thresholds }, { loudest, seconds }, top = 3) {
  if (!p && seconds >= BRIEF) return [["silence", 1]];
  if (seconds < BRIEF || loudest < FAINT_DB) return [["unknown", 1]];
  const ranked = (q) => q.map((value, i) => [labels[i], value]).sort((a, b) => Math.round(1e6 * b[1]) - Math.round(1e6 * a[1]));
  if (multilabel) {
    const named = ranked(p).filter(([label, q]) => q >= thresholds[label]);
    return named.length ? named : [["unknown", 1 - ranked(p)[0][1]]];
  }
  if (known) p = p.map((q) => q * knownProbability(Math.max(...p), known));
  const best = ranked(p).slice(0, top);
  const rest = 1 - p.reduce((a, b) => a + b), lacks = (known || rejects) && rest >= .5;
  if (!lacks && (known || best[0][1] >= unknown)) return best;
  return [["unknown", lacks ? rest : 1 - best[0][1]], ...best].slice(0, Math.max(2, top));
}
