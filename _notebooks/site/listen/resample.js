// Samples at another rate. A browser can do it, too, but with so short a filter that networks hear the difference.

const CROSSINGS = 48, ROLLOFF = .97, BETA = 10;    // of the windowed sinc: zero crossings on each side, cut-off, shape of its Kaiser window
const MP3_RATES = [44100, 48000, 32000];           // Hz, of MPEG 1; of MPEG 2 the half, of MPEG 2.5 a quarter

/** The sampling rate in Hz that a WAV, FLAC, Ogg Vorbis or MP3 file states; undefined where it is another or none. */
export function rateOf(view) {
  const is = (text, at = 0) => at + text.length <= view.byteLength && [...text].every((c, i) => view.getUint8(at + i) === c.charCodeAt(0));
  const usable = (rate) => rate >= 8000 && rate <= 96000 ? rate : undefined;
  if (is("RIFF") && is("WAVE", 8)) {
    for (let at = 12; at + 16 <= view.byteLength; at += 8 + 2 * Math.ceil(view.getUint32(at + 4, true) / 2)) if (is("fmt ", at)) return usable(view.getUint32(at + 12, true));
  } else if (is("fLaC") && view.byteLength > 21) return usable(view.getUint32(18) >>> 12);
  else if (is("OggS") && is("\x01vorbis", 28)) return usable(view.getUint32(40, true));
  else {
    const at = is("ID3") && view.byteLength > 10 ? 10 + [6, 7, 8, 9].reduce((size, i) => 128 * size + view.getUint8(i), 0) : 0;    // after its tags
    const head = at + 4 <= view.byteLength ? view.getUint32(at) : 0, version = head >>> 19 & 3, layer = head >>> 17 & 3;
    if (head >>> 21 === 0x7ff && version !== 1 && layer === 1) return usable(MP3_RATES[head >>> 10 & 3] / [4, NaN, 2, 1][version]);
  }
}

/** Modified Bessel function of the first kind, order 0. */
function bessel(x) {
  let sum = 1, term = 1;
  for (let k = 1; term > 1e-12 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}

const gcd = (a, b) => b ? gcd(b, a % b) : a;

/** Samples at `to` Hz from samples at `from` Hz, by a filter bank of windowed sincs (Smith, Digital audio resampling, 1984). */
export function resample(y, from, to) {
  if (from === to) return y;
  const divisor = gcd(from, to), up = to / divisor, down = from / divisor, cut = ROLLOFF * Math.min(1, to / from), half = Math.ceil(CROSSINGS / cut);
  const phases = Array.from({ length: up }, (_, phase) => {
    return Float64Array.from({ length: 2 * half }, (_, k) => {
      const t = k - half + 1 - phase / up, x = cut * Math.PI * t, inside = 1 - (t / half) ** 2;
      return inside <= 0 ? 0 : cut * (x ? Math.sin(x) / x : 1) * bessel(BETA * Math.sqrt(inside)) / bessel(BETA);
    });
  });
  return Float32Array.from({ length: Math.ceil(y.length * up / down) }, (_, i) => {
    const at = i * down, first = Math.floor(at / up) - half + 1, taps = phases[at % up];
    let sum = 0;
    for (let k = Math.max(0, -first), end = Math.min(taps.length, y.length - first); k < end; k++) sum += taps[k] * y[first + k];
    return sum;
  });
}
