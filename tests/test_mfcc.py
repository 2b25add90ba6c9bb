"Features: agreement with librosa, and what must hold for any sound (hypothesis)."

import pickle

import librosa
import numpy as np
import pytest
import scipy.fft
from conftest import some
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from soundtag.audio import load_audio
from soundtag.dataset import load_clips
from soundtag.mfcc import MFCC, STFT, LogMel, fft_engine, from_settings

TOLERANCE = 1e-3  # dB, and for MFCCs the same unit summed by the DCT


def noise(n, seed=0, level=0.1):
    return np.random.default_rng(seed).normal(0, level, n).astype('float32')


def by_librosa(f, y):
    "The same feature by librosa, from the same settings."
    frame = dict(
        n_fft=f.n_fft,
        hop_length=f.hop_length,
        win_length=f.win_length,
        window=f.window,
        center=f.center,
        pad_mode=f.pad_mode,
    )
    if type(f) is STFT:
        return librosa.stft(y, **frame)
    power = librosa.feature.melspectrogram(
        y=y, sr=f.sr, n_mels=f.n_mels, fmin=f.fmin, fmax=f.fmax, **frame
    )
    db = librosa.power_to_db(power, ref=f.ref, amin=f.amin, top_db=f.top_db)
    return librosa.feature.mfcc(S=db, sr=f.sr, n_mfcc=f.n_mfcc) if type(f) is MFCC else db


@st.composite
def sounds(draw, most=12000):
    """Samples of some length: noise, and perhaps a tone and clicks, at some level. Never a tone alone: 80 dB below it there
    would be nothing but the rounding of float32, librosa's and ours, each its own."""
    n, seed = draw(st.integers(1, most)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    y = draw(st.floats(0.01, 1)) * rng.normal(size=n) + draw(st.floats(0, 1)) * np.sin(
        np.arange(n) * rng.uniform(0, 3)
    )
    y[rng.integers(0, n, draw(st.integers(0, 5)))] += 1
    return (y * 10 ** draw(st.floats(-4, 0)) / 5).astype('float32')


@st.composite
def frames(draw):
    "How a sound is cut, odd and even."
    n_fft = draw(st.integers(16, 3000))
    win_length = draw(st.one_of(st.none(), st.integers(8, n_fft)))
    return dict(
        sr=draw(st.sampled_from([8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])),
        n_fft=n_fft,
        hop_length=draw(st.integers(max(1, n_fft // 20), 2 * n_fft)),
        win_length=win_length,
        window=draw(st.sampled_from(['hann', 'hann', 'hamming', 'blackman'])),
    )


@pytest.mark.filterwarnings(
    'ignore:Empty filters', 'ignore:n_fft=', 'ignore:.*is too large for input'
)
@settings(max_examples=60, deadline=None)
@given(sounds(), frames(), st.integers(4, 140), st.data())
def test_agrees_with_librosa(y, cut, n_mels, data):
    features = [
        STFT(**cut),
        LogMel(**cut, n_mels=n_mels),
        MFCC(**cut, n_mels=n_mels, n_mfcc=data.draw(st.integers(1, n_mels))),
    ]
    for f in features:
        ours, theirs = f(y), by_librosa(f, y)
        assert ours.shape == theirs.shape == (f.n_coef, f.frames(len(y)))
        assert ours.dtype == f.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.filterwarnings('ignore:Empty filters', 'ignore:n_fft=')
@pytest.mark.parametrize('sr', [8000, 16000, 22050, 32000, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize(
    'n_fft, hop_length', [(2048, 512), (2047, 511), (1000, 333), (512, 1024), (1025, 100)]
)
def test_rates_hops_and_windows(sr, n_fft, hop_length):
    for n in (1, n_fft // 3, n_fft - 1, n_fft, n_fft + 1, 2 * sr // 10):
        y = noise(n, seed=n)
        for f in (
            LogMel(sr=sr, n_fft=n_fft, hop_length=hop_length, n_mels=64),
            MFCC(sr=sr, n_fft=n_fft, hop_length=hop_length, n_mfcc=40),
        ):
            np.testing.assert_allclose(f(y), by_librosa(f, y), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    'extra',
    [
        dict(center=False),
        dict(pad_mode='reflect'),
        dict(pad_mode='edge'),
        dict(win_length=1500),
        dict(window='hamming'),
        dict(fmin=50.0, fmax=8000.0),
        dict(ref=0.25),
        dict(top_db=None),
        dict(amin=1e-5),
    ],
)
def test_every_setting(extra):
    f, y = LogMel(sr=22050, **extra), noise(22050)
    np.testing.assert_allclose(f(y), by_librosa(f, y), rtol=0, atol=TOLERANCE)


def test_defaults_are_librosas():
    y = noise(30000)
    np.testing.assert_allclose(
        MFCC(sr=22050)(y), librosa.feature.mfcc(y=y, sr=22050), rtol=0, atol=TOLERANCE
    )
    assert MFCC(sr=44100, n_mfcc=40, hop_length=512)(noise(88200)).shape == (40, 173)


@settings(max_examples=40, deadline=None)
@given(sounds(6000), frames(), st.integers(1, 4))
def test_a_shift_by_k_hops_shifts_frames_by_k(y, cut, k):
    f = LogMel(**cut, n_mels=20, center=False, top_db=None)
    y = np.concatenate([y, np.zeros(f.n_fft, 'float32')])
    moved = np.concatenate([noise(k * f.hop_length), y])
    np.testing.assert_array_equal(f(moved)[:, k:], f(y))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), frames())
def test_twice_the_amplitude_is_6_db_more(seed, cut):
    f, y = LogMel(**cut, n_mels=20, amin=1e-30), noise(9000, seed)
    heard = f(y).max(-1) > f(y).max() - 60  # a filter that no bin falls into stays at the bottom
    np.testing.assert_allclose((f(2 * y) - f(y))[heard], 20 * np.log10(2), atol=TOLERANCE)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5000), frames())
def test_silence_is_finite(n, cut):
    for f in (STFT(**cut), LogMel(**cut), MFCC(**cut)):
        assert np.isfinite(f(np.zeros(n, 'float32'))).all()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 3), max_size=3), st.integers(1, 4000), frames())
def test_any_leading_shape_equals_the_loop(lead, n, cut):
    y = noise((*lead, n))
    y *= 10 ** -np.arange(y[..., 0].size, dtype='float32').reshape(
        *lead, 1
    )  # loud and quiet clips side by side
    for f in (STFT(**cut), LogMel(**cut), MFCC(**cut)):
        whole = f(y)
        assert whole.shape == (*lead, f.n_coef, f.frames(n))
        for i in np.ndindex(*lead):
            np.testing.assert_array_equal(whole[i], f(y[i]))


@pytest.mark.parametrize(
    'y',
    [
        np.arange(-500, 500, dtype='int16'),
        noise(1000).astype('float64'),
        noise(2000)[::2],
        list(range(9)),
    ],
)
def test_any_real_input(y):
    f = LogMel(sr=8000, n_fft=256, hop_length=64, n_mels=20)
    np.testing.assert_array_equal(f(y), f(np.array(y, 'float32')))


def test_either_fft_gives_the_same(monkeypatch):
    y, f = noise(44100), LogMel(sr=44100)
    ours = f(y)
    monkeypatch.setattr(
        'soundtag.mfcc.fft_engine', lambda: lambda frames, out: scipy.fft.rfft(frames)
    )
    np.testing.assert_allclose(f(y), ours, rtol=0, atol=1e-4)
    assert callable(fft_engine())


@pytest.mark.parametrize(
    'f', [STFT(sr=8000), LogMel(sr=8000, n_mels=12), MFCC(sr=44100, n_mfcc=40)]
)
def test_settings_travel(f):
    assert from_settings(f.settings) == f == pickle.loads(pickle.dumps(f))
    assert hash(from_settings(f.settings)) == hash(f)
    f(noise(3000))
    assert len(pickle.dumps(f)) < 1000  # settings only: the tables are rebuilt where it arrives


@pytest.mark.parametrize(
    'wrong, named',
    [
        (dict(n_fft=0), 'n_fft'),
        (dict(hop_length=0), 'hop_length'),
        (dict(sr=0), 'sr'),
        (dict(win_length=4096), 'win_length'),
        (dict(n_mels=0), 'n_mels'),
        (dict(fmin=30000.0), 'fmin'),
        (dict(fmax=30000.0), 'fmax'),
        (dict(amin=0.0), 'amin'),
        (dict(n_mfcc=200), 'n_mfcc'),
    ],
)
def test_wrong_settings_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        MFCC(**dict(sr=44100) | wrong)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match='too few'):
        STFT(sr=8000)(np.zeros(0))
    with pytest.raises(ValueError, match='too few'):
        STFT(sr=8000, center=False)(np.zeros(2047))


@pytest.mark.slow
def test_agrees_with_librosa_on_real_clips(real_data):
    "Clips as they are: MFCC and log-mel within 1e-3 dB, shapes equal."
    worst = {}
    limits = threadpool_limits(1)  # librosa's products are small; threads would wait for each other
    for name in ('FSDKaggle2018', 'ESC-10'):
        for path in some(load_clips(real_data / name, allow_missing=True)):
            y, sr = load_audio(path)
            for f in (MFCC(sr=sr, n_mfcc=40), LogMel(sr=sr)):
                ours, theirs = f(y), by_librosa(f, y)
                assert ours.shape == theirs.shape
                worst[type(f).__name__, str(path)] = np.abs(ours - theirs).max()
    limits.restore_original_limits()
    assert len(worst) >= 2 * 140
    assert max(worst.values()) <= TOLERANCE, sorted(worst.items(), key=lambda w: -w[1])[:5]
