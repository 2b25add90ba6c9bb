// A spectrogram for the eye: rows at equal musical intervals, power in dB re full scale.

export const SIZE = 2048, ROWS = 96, LOW = 50, HIGH = 20000;    // samples a frame; rows, from Hz to Hz

const turn = (f) => Float64Array.from({ length: SIZE / 2 }, (_, k) => f(2 * Math.PI * k / SIZE));
const COS = turn(Math.cos), SIN = turn(Math.sin);

/** Fast Fourier transform of SIZE numbers in place, radix 2 (Cooley and Tukey 1965). */
function fft(re, im) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) { [re[i], re[j]] = [re[j], re[i]]; [im[i], im[j]] = [im[j], im[i]]; }
  }
  for (let half = 1; half < n; half *= 2) {
    for (let k = 0; k < half; k++) {
      const c = COS[k * n / 2 / half], s = -SIN[k * n / 2 / half];
      for (let i = k; i < n; i += 2 * half) {
        const j = i + half, x = re[j] * c - im[j] * s, y = re[j] * s + im[j] * c;
        re[j] = re[i] - x; im[j] = im[i] - y; re[i] += x; im[i] += y;
      }
    }
  }
}

const HANN = Float64Array.from({ length: SIZE }, (_, i) => .5 - .5 * Math.cos(2 * Math.PI * i / SIZE));

/** Frequency in Hz of a row's lower edge, row 0 the lowest. */
const edge = (row) => LOW * (HIGH / LOW) ** (row / ROWS);

/** Levels in dB, shape (count, ROWS): the loudest bin of each row, in frames `hop` samples apart, from sample `from` on. */
export function columns(y, sr, hop, count = Math.max(1, Math.ceil(y.length / hop)), from = 0) {
  const out = new Float32Array(count * ROWS);
  const re = new Float64Array(SIZE), im = new Float64Array(SIZE);
  const bins = Array.from({ length: ROWS + 1 }, (_, row) => Math.min(SIZE / 2, Math.round(edge(row) * SIZE / sr)));
  for (let c = 0; c < count; c++) {
    const start = Math.round(from + (c + .5) * hop) - SIZE / 2;
    for (let i = 0; i < SIZE; i++) re[i] = (y[start + i] ?? 0) * HANN[i];
    im.fill(0);
    fft(re, im);
    for (let row = 0; row < ROWS; row++) {
      let power = 0;    // above half the sampling rate there is nothing
      if (edge(row) < sr / 2) for (let k = bins[row]; k < Math.max(bins[row] + 1, bins[row + 1]); k++) power = Math.max(power, re[k] ** 2 + im[k] ** 2);
      out[c * ROWS + row] = 10 * Math.log10(power * (4 / SIZE) ** 2 + 1e-12);
    }
  }
  return out;
}
