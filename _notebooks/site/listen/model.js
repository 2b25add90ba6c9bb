// What a model file says about itself: read from the metadata of an ONNX file, and checked as soundtag.tagging checks it.

const LIMITS = { sr: [8000, 192000], seconds: [.3, 60], temperature: [.05, 20], unknown: [0, 1] };
const OLD_NAMES = { short: "fill", silence: "trim_db" };    // of files from before these had their names

/** The fields of a protocol buffer that hold bytes, as [number, bytes]; the others are passed over. */
function* fields(bytes) {
  let at = 0;
  const whole = () => { if (at > bytes.length) throw new Error("it is cut or damaged"); };
  const varint = () => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      whole();
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint(), kind = key % 8, number = Math.floor(key / 8);
    if (kind === 0) varint();
    else if (kind === 2) {
      const length = varint(), start = at;
      at += length;
      whole();
      yield [number, bytes.subarray(start, at)];
    } else if (kind === 1 || kind === 5) at += kind === 1 ? 8 : 4;
    else throw new Error("it is cut or damaged");
  }
}

const text = (bytes) => new TextDecoder().decode(bytes);
const between = (value, [low, high]) => typeof value === "number" && low <= value && value <= high;
const require = (condition, problem) => { if (!condition) throw new Error(problem); };

/** Throws where an entry can't be meant. */
function check({ labels, fill, trim_db, thresholds, known = null, rejects = false, multilabel = false, ...numbers }) {
  const least = rejects ? 1 : 2;
  require(Array.isArray(labels) && labels.length >= least && labels.length <= 10000, `labels: not ${least} to 10,000`);
  require(typeof rejects === "boolean", "rejects: neither true nor false");
  require(labels.every((label) => typeof label === "string"), "labels: not all are text");
  for (const [name, [low, high]] of Object.entries(LIMITS)) require(between(numbers[name], [low, high]), `${name}: not a number from ${low} to ${high}`);
  require(fill === "pad" || fill === "repeat", "fill: neither pad nor repeat");
  require(trim_db === null || between(trim_db, [1, 200]), "trim_db: not a number from 1 to 200");
  require(known === null || (Array.isArray(known) && known.length === 2 && between(known[0], [0, 100]) && between(known[1], [-100, 100])), "known: not a slope from 0 to 100 and an offset from -100 to 100");
  require(!thresholds || labels.every((label) => between(thresholds[label], [0, 1])), "thresholds: not of all labels, or not from 0 to 1");
  require(!multilabel || thresholds, "thresholds: none, with several labels");
}

/** What `soundtag export` wrote into an ONNX file, under the names of today. Throws where it is no such file. */
export function metadataOf(bytes) {
  for (const [number, value] of fields(bytes)) {
    if (number !== 14) continue;    // metadata_props of a ModelProto: pairs of key (1) and value (2)
    const entry = Object.fromEntries([...fields(value)].map(([n, v]) => [n, text(v)]));
    if (entry[1] !== "soundtag") continue;
    const about = Object.fromEntries(Object.entries(JSON.parse(entry[2])).map(([name, v]) => [OLD_NAMES[name] ?? name, v]));
    check(about);
    return about;
  }
  throw new Error("it has no metadata");
}
