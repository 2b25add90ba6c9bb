"""Which library decodes which format fastest?   python tests/benchmarks/decoders.py DATA [--out nbs/results/decoders.json]

DATA holds FSDKaggle2018/ (wav) and ESC-10/ (ogg), as SOUNDTAG_DATA does. FLAC and MP3 are made from the wav files for the
time of the run. soundtag and soundfile are always measured, miniaudio and PyAV where they are installed (`pip install
miniaudio av`). Processor time, the decoders in turn; each of five rounds over all files gives one ratio.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile as sf

from soundtag.audio import audio_seconds, decode

ROUNDS = 5


def by_soundfile(path):
    return sf.read(path, dtype='float32', always_2d=True)[0]


def by_miniaudio(path):
    import miniaudio

    info = miniaudio.get_file_info(path)
    sound = miniaudio.decode_file(
        path,
        output_format=miniaudio.SampleFormat.FLOAT32,
        nchannels=info.nchannels,
        sample_rate=info.sample_rate,
    )
    return np.frombuffer(sound.samples, dtype='float32').reshape(-1, info.nchannels)


def by_av(path):
    import av

    with av.open(path) as container:
        y = np.concatenate([f.to_ndarray() for f in container.decode(audio=0)], axis=-1)
    return (y / np.float32(32768) if y.dtype == np.int16 else y).reshape(1, -1).T


DECODERS = {
    'soundtag': lambda path: decode(path)[0],
    'soundfile': by_soundfile,
    'miniaudio': by_miniaudio,
    'FFmpeg (PyAV)': by_av,
}
PACKAGES = {'miniaudio': 'miniaudio', 'FFmpeg (PyAV)': 'av'}


def versions():
    names = ('soundtag', 'numpy', 'soundfile', 'miniaudio', 'av')
    found = {'python': platform.python_version(), 'libsndfile': sf.__libsndfile_version__}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def spread(values):
    return {
        'median': round(statistics.median(values), 3),
        'min': round(min(values), 3),
        'max': round(max(values), 3),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', type=Path)
    parser.add_argument('--out', type=Path, default=Path('nbs/results/decoders.json'))
    args = parser.parse_args()
    files = {
        'wav': sorted(args.data.glob('FSDKaggle2018/FSDKaggle2018.audio_train/*.wav')),
        'ogg': sorted(args.data.glob('ESC-10/audio/*.ogg')),
    }
    clips = [p for paths in files.values() for p in paths]
    fingerprint = hashlib.sha256(
        ''.join(f'{p.name} {p.stat().st_size}\n' for p in clips).encode()
    ).hexdigest()[:16]
    has = versions()
    decoders = {name: f for name, f in DECODERS.items() if PACKAGES.get(name, 'numpy') in has}
    metrics, ratios = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for ext in ('flac', 'mp3'):
            files[ext] = [Path(folder) / f'{p.stem}.{ext}' for p in files['wav']]
            for source, target in zip(files['wav'], files[ext]):
                y, sr = sf.read(source, dtype='float32')
                sf.write(target, y, sr)
        for ext, paths in files.items():
            names, seconds = [os.fspath(p) for p in paths], sum(audio_seconds(p) for p in paths)
            took = {name: [] for name in decoders}
            for _ in range(ROUNDS):
                for name, read in decoders.items():
                    start = time.process_time()
                    for path in names:
                        read(path)
                    took[name].append(1000 * (time.process_time() - start) / seconds)
            for name, ms in took.items():
                metrics[f'{ext}: {name}'] = {
                    'mean': round(statistics.mean(ms), 5),
                    'sd': round(statistics.stdev(ms), 5),
                    'folds': [round(t, 5) for t in ms],
                }
                if name != 'soundtag':
                    ratios[f'{ext}: {name} / soundtag'] = spread(
                        [t / own for t, own in zip(ms, took['soundtag'])]
                    )
            print(
                ext,
                {name: round(statistics.median(ms), 4) for name, ms in took.items()},
                'ms per s of sound',
                flush=True,
            )
    result = {
        'what': 'processor time to decode a second of sound, in ms; each of the folds is one round over all files of a format',
        'data': {
            'name': 'FSD-10 (wav; flac and mp3 made from it) and ESC-10 (ogg)',
            'fingerprint': fingerprint,
            'clips': len(clips),
            'labels': 20,
        },
        'recipe': {},
        'seeds': [],
        'versions': has,
        'metrics': metrics,
        'ratios': ratios,
        'baselines': {},
    }
    scratch = args.out.with_suffix('.part')
    scratch.write_text(json.dumps(result, indent=1) + '\n')
    os.replace(scratch, args.out)


if __name__ == '__main__':
    main()
