"""Does a clip cost the same among 10,000 as among 300, and does memory stay flat?
python tests/benchmarks/preparation_at_scale.py DATA [--clips 10000] [--out nbs/results/features_scale.json]

DATA is a data set of real recordings; clips of two seconds are cut from it at random offsets, all different, and written as
wav into a temporary folder (0.18 MB each). Time on the wall, two workers, cold store. Memory is the proportional set size,
summed over all processes.
"""

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from soundtag.audio import fix_length, load_audio, wav_bytes
from soundtag.dataset import Clips, load_clips
from soundtag.mfcc import MFCC
from soundtag.studies.study import ratio
from soundtag.store import prepare_data

SMALL = 300
SR = 44100


def write_clips(source, folder, names):
    "Clips of two seconds, cut from those of `source`."
    rng = np.random.default_rng(0)
    sounds = [load_audio(p, sr=SR)[0] for p in source.paths]
    loud = [y for y in sounds if len(y) > 3 * SR]
    for name in names:
        piece = fix_length(loud[rng.integers(len(loud))], 2 * SR, rng=rng) + rng.normal(
            0, 1e-3, 2 * SR
        ).astype('float32')
        (folder / name).write_bytes(wav_bytes(piece, sr=SR))


def make_clips(source, folder, n):
    "A data set of n clips, written by another process, so that the memory measured is that of the preparation."
    names = [f'{i:05}.wav' for i in range(n)]
    writer = multiprocessing.get_context('spawn').Process(
        target=write_clips, args=(source, folder, names)
    )
    writer.start()
    writer.join()
    table = pd.DataFrame(
        {'path': names, 'label': 'any', 'split': 'train', 'seconds': 2.0},
        index=pd.Index(names, name='fname'),
    )
    return Clips(table, ['any'], folder, 'cut')


def memory():
    "Proportional set size of this process and those it started, in MB."
    parent = {}
    for entry in Path('/proc').glob('[0-9]*/stat'):
        try:
            parent[int(entry.parent.name)] = int(entry.read_text().rpartition(')')[2].split()[1])
        except OSError:
            pass
    ours = {os.getpid()}
    for _ in range(4):
        ours |= {pid for pid, p in parent.items() if p in ours}
    total = 0
    for pid in ours:
        try:
            total += int(
                next(
                    line
                    for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
                    if line.startswith('Pss:')
                ).split()[1]
            )
        except (OSError, StopIteration):
            pass
    return total / 1024


class Watch:
    "The highest memory while something runs."

    def __enter__(self):
        self.peak, self.done = memory(), threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def look(self):
        while not self.done.wait(0.2):
            self.peak = max(self.peak, memory())

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('data', type=Path)
    parser.add_argument('--clips', type=int, default=10000)
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    f, source = MFCC(sr=SR, n_mfcc=40), load_clips(args.data, allow_missing=True)
    with tempfile.TemporaryDirectory() as temp:
        temp = Path(temp)
        (temp / 'clips').mkdir()
        clips = make_clips(source, temp / 'clips', args.clips)
        f(np.zeros(SR, 'float32'))

        def cost(some, name):
            with Watch() as watch:
                start = time.perf_counter()
                store = prepare_data(
                    some, f, seconds=2, cache=temp / name, n_jobs=2, progress=False
                )
                taken = time.perf_counter() - start
            assert store.array().shape == (len(some), 40, 173, 1)
            return 1000 * taken / len(some), watch.peak

        few = [
            cost(clips.subset(clips.table.index[a : a + SMALL]), f'few {a}')
            for a in range(0, min(10 * SMALL, args.clips), SMALL)
        ]
        many, peak = cost(clips, 'many')
        start = time.perf_counter()
        prepare_data(clips, f, seconds=2, cache=temp / 'many', n_jobs=2, progress=False)
        warm = 1000 * (time.perf_counter() - start) / len(clips)
    result = {
        'what': f'preparation of {args.clips} two-second clips against {SMALL}',
        'recipe': {'features': f.settings, 'n_jobs': 2},
        'seeds': [0],
        'data': {
            'name': f'two seconds each, cut from {source.name}',
            'fingerprint': source.fingerprint,
            'clips': args.clips,
            'labels': 1,
        },
        'versions': {'python': platform.python_version()}
        | {n: version(n) for n in ('numpy', 'scipy', 'numba', 'joblib')},
        'ratios': {f'cost a clip, {args.clips} / {SMALL}': ratio(many, [ms for ms, _ in few])},
        'metrics': {},
        'baselines': {},
        'ms_a_clip': {
            str(SMALL): float(np.median([ms for ms, _ in few])),
            str(args.clips): many,
            'warm': warm,
        },
        'peak_memory_mb': {str(SMALL): max(m for _, m in few), str(args.clips): peak},
    }
    print(json.dumps(result, indent=1))
    if args.out:
        temp = args.out.with_name(args.out.name + '.tmp')
        temp.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
        os.replace(temp, args.out)


if __name__ == '__main__':
    main()
