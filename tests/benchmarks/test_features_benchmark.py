"""MFCC of two seconds, one core: ours, librosa's, the other libraries that install, and the FFT alone.
pytest tests/benchmarks --benchmark-enable   (with SOUNDTAG_DATA on real clips, else on the synthetic ones)
"""

import os
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from soundtag.audio import fix_length, load_audio
from soundtag.dataset import load_clips, mini
from soundtag.mfcc import MFCC, _jit, frame_window, windowed_frames
from soundtag.studies.speed import PEERS, bare_ffts, feature_peers

FEATURES = MFCC(sr=44100, n_mfcc=40, hop_length=512)


@pytest.fixture(scope='module')
def sounds():
    "Two seconds each of forty clips: the same for all candidates."
    data = os.environ.get('SOUNDTAG_DATA')
    clips = load_clips(Path(data) / 'FSDKaggle2018', allow_missing=True) if data else mini()
    rng = np.random.default_rng(0)
    return [
        fix_length(load_audio(p, sr=44100)[0], 88200, rng=rng)
        for p in clips.paths[:: len(clips) // 40][:40]
    ]


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@pytest.mark.benchmark(group='MFCC of 40 × 2 s')
@pytest.mark.parametrize('name', ['ours', *PEERS])
def test_features(benchmark, sounds, name):
    if name == 'ours':
        run = FEATURES
    else:
        found, missing = feature_peers(FEATURES, [name])
        if name in missing:
            pytest.skip(missing[name])
        run = found[name]
    out = benchmark(lambda: [run(y) for y in sounds])
    assert len(out) == 40 and np.isfinite(out[0]).all()


@pytest.mark.benchmark(group='MFCC of 40 × 2 s')
@pytest.mark.parametrize('name', ['numpy', 'scipy', 'mkl_fft', 'ducc0', 'pyfftw'])
def test_bare_fft(benchmark, sounds, name):
    found, missing = bare_ffts(FEATURES.n_fft)
    if name in missing:
        pytest.skip(missing[name])
    frames = [np.empty((173, 2048), 'float32') for _ in sounds]
    for y, x in zip(sounds, frames):
        _jit(windowed_frames)(
            y, frame_window('hann', 2048, 2048, 'float32'), FEATURES.starts(y)[1], x
        )
    out = benchmark(lambda: [found[name](x) for x in frames])
    assert out[0].shape == (173, 1025)
