"Chapter 01 from outside: faults in files, agreement with librosa and soxr, and what holds for any sound."

import io
import json
import os
import struct

import librosa
import numpy as np
import pytest
import soundfile as sf
import soxr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from soundtag.audio import (
    AudioError,
    audio_seconds,
    fix_length,
    load_audio,
    resample,
    samples_to_seconds,
    seconds_to_samples,
    to_mono,
    wav_bytes,
)
from soundtag.formats import AudioWarning, cut_short

SR = 16000
FORMATS = ('wav', 'flac', 'ogg', 'mp3', 'aiff')
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sound(seconds=2.0, sr=SR, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(seconds_to_samples(seconds, sr=sr)) / sr
    y = np.stack(
        [
            0.4 * np.sin(2 * np.pi * (300 + 90 * c) * t) + 0.05 * rng.standard_normal(len(t))
            for c in range(channels)
        ]
    )
    return np.round(y * 32768).astype('int16')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('audio')
    for ext in FORMATS:
        sf.write(folder / f'a.{ext}', sound(8.0)[0], SR)
    return folder


def complaint(path, **kwargs):
    "The one line a user sees; it names the file and, after a semicolon, the cure."
    with pytest.raises(AudioError) as caught:
        load_audio(path, **kwargs)
    text = str(caught.value)
    assert text.startswith(f'{path}: ') and '; ' in text and '\n' not in text
    return text


# Agreement


@pytest.mark.parametrize('ext', FORMATS)
@pytest.mark.parametrize('sr', [None, 8000, 22050, 44100])
def test_loads_what_librosa_loads(folder, ext, sr):
    ours, rate = load_audio(folder / f'a.{ext}', sr=sr)
    theirs, their_rate = librosa.load(folder / f'a.{ext}', sr=sr)
    assert rate == their_rate and ours.dtype == np.float32 and ours.flags.c_contiguous
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    'subtype',
    ['PCM_U8', 'PCM_16', 'PCM_24', 'PCM_32', 'FLOAT', 'DOUBLE', 'ULAW', 'ALAW', 'IMA_ADPCM'],
)
@pytest.mark.parametrize('channels', [1, 2])
def test_any_wav_is_what_soundfile_reads(tmp_path, subtype, channels):
    path = tmp_path / 'x.wav'
    sf.write(path, sound(0.2, channels=channels).T / 32768, SR, subtype=subtype)
    expected = sf.read(path, dtype='float32', always_2d=True)[0].T
    np.testing.assert_array_equal(load_audio(path, mono=False)[0], expected)
    np.testing.assert_allclose(load_audio(path)[0], librosa.to_mono(expected), atol=1e-7)


@pytest.mark.parametrize('format', ['WAVEX', 'RF64', 'W64', 'CAF', 'AU'])
def test_relatives_of_wav(tmp_path, format):
    sf.write(tmp_path / 'x.wav', sound(0.2, channels=2).T, SR, format=format)
    np.testing.assert_array_equal(
        load_audio(tmp_path / 'x.wav', mono=False)[0], sound(0.2, channels=2) / np.float32(32768)
    )


def test_resample_is_soxr_and_librosa():
    y = sound(1.0)[0] / np.float32(32768)
    for target in (8000, 11025, 44100, 48000):
        ours = resample(y, orig_sr=SR, target_sr=target)
        np.testing.assert_allclose(
            ours, librosa.resample(y, orig_sr=SR, target_sr=target, res_type='soxr_hq'), atol=1e-6
        )
        reference = soxr.resample(y, SR, target, quality='HQ')
        np.testing.assert_array_equal(ours[: len(reference)], reference[: len(ours)])


def test_seconds_are_those_of_the_samples(folder):
    for ext in FORMATS:
        y, sr = load_audio(folder / f'a.{ext}')
        assert audio_seconds(folder / f'a.{ext}') == len(y) / sr == 8


# Faults


def test_nothing_there(tmp_path):
    (tmp_path / 'empty.wav').touch()
    (tmp_path / 'folder.wav').mkdir()
    assert 'no such file' in complaint(tmp_path / 'absent.wav')
    assert 'is empty' in complaint(tmp_path / 'empty.wav')
    assert 'is a folder' in complaint(tmp_path / 'folder.wav')


def test_not_allowed(folder, monkeypatch):
    "Played: a test may run as root, who may read everything, so taking the permission away would prove nothing."

    def no(*args, **kwargs):
        raise PermissionError(13, 'Permission denied')

    monkeypatch.setattr('builtins.open', no)
    assert 'permissions' in complaint(folder / 'a.wav')


@pytest.mark.parametrize('ext', [*FORMATS, 'raw', 'xyz'])
def test_a_text_is_no_sound(tmp_path, ext):
    (tmp_path / f'letter.{ext}').write_text('This is no sound.\n' * 100)
    assert 'not sound' in complaint(tmp_path / f'letter.{ext}')
    with pytest.raises(AudioError, match='not sound'):
        audio_seconds(tmp_path / f'letter.{ext}')


@pytest.mark.parametrize('ext', FORMATS)
@pytest.mark.parametrize('share', [0.97, 0.9, 0.5, 0.1, 0.01])
def test_half_a_file_is_refused(folder, tmp_path, ext, share):
    whole = (folder / f'a.{ext}').read_bytes()
    path = tmp_path / f'half.{ext}'
    path.write_bytes(whole[: int(share * len(whole))])
    assert ';' in complaint(path)


def test_one_byte_short(folder, tmp_path):
    for ext in ('wav', 'ogg', 'aiff'):
        (tmp_path / f'x.{ext}').write_bytes((folder / f'a.{ext}').read_bytes()[:-1])
        assert 'cut short' in complaint(tmp_path / f'x.{ext}')


@pytest.mark.parametrize(
    'riff, data',
    [
        (0, 0),
        (0xFFFFFFFF, 0),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x7FFFF024, 0x7FFFF000),
        (0x80000024, 0x80000000),
    ],
)
def test_a_stream_that_could_not_know_its_length(tmp_path, riff, data):
    wav = wav_bytes(sound(0.5)[0] / 32768, sr=SR)
    (tmp_path / 'x.wav').write_bytes(
        wav[:4] + struct.pack('<I', riff) + wav[8:40] + struct.pack('<I', data) + wav[44:]
    )
    assert cut_short(tmp_path / 'x.wav') == ''
    y, sr = load_audio(tmp_path / 'x.wav')
    np.testing.assert_array_equal(y * 32768, sound(0.5)[0])


def test_chunks_around_the_sound_are_no_sound(tmp_path):
    wav = wav_bytes(sound(0.5)[0] / 32768, sr=SR)
    note = b'LIST' + struct.pack('<I', 5) + b'hello\0'  # of odd length, so padded
    (tmp_path / 'x.wav').write_bytes(wav[:36] + note + wav[36:] + note)
    np.testing.assert_array_equal(load_audio(tmp_path / 'x.wav')[0] * 32768, sound(0.5)[0])


def test_nothing_to_hear(tmp_path):
    for name, y, word in (
        ('none', np.zeros(0), 'no samples'),
        ('zeros', np.zeros(99), 'silent'),
        ('constant', np.full(99, 0.25), 'silent'),
        ('nan', np.array([0, np.nan, 0.5]), 'NaN'),
        ('inf', np.array([0, np.inf, 0.5]), 'NaN'),
    ):
        sf.write(tmp_path / f'{name}.wav', y.astype('float32'), SR, subtype='FLOAT')
        assert word in complaint(tmp_path / f'{name}.wav', sr=8000)
    (tmp_path / 'none16.wav').write_bytes(wav_bytes(np.zeros(0), sr=SR))
    assert 'no samples' in complaint(tmp_path / 'none16.wav')


def test_channels_that_cancel(tmp_path):
    y = sound(0.2)[0]
    sf.write(tmp_path / 'x.wav', np.stack([y, -y], axis=1), SR)
    with pytest.warns(AudioWarning, match='x.wav: its channels cancel'):
        np.testing.assert_array_equal(load_audio(tmp_path / 'x.wav')[0] * 32768, y)
    assert load_audio(tmp_path / 'x.wav', mono=False)[0].shape == (2, len(y))


@quick
@given(
    seed=st.integers(0, 2**32 - 1),
    ext=st.sampled_from(FORMATS[:3]),
    hits=st.integers(1, 30),
    head=st.booleans(),
)
def test_a_damaged_file_is_refused_or_gives_finite_samples(folder, tmp_path, seed, ext, hits, head):
    rng = np.random.default_rng(seed)
    data = bytearray((folder / f'a.{ext}').read_bytes()[:40000])
    for at in rng.integers(0, 200 if head else len(data), hits):
        data[at] = rng.integers(256)
    (tmp_path / f'x.{ext}').write_bytes(data)
    try:
        y, sr = load_audio(tmp_path / f'x.{ext}')
    except AudioError:
        return
    assert np.isfinite(y).all() and sr > 0 and y.ndim == 1 and len(y)


# Sizes


def test_eight_channels_at_192_khz(tmp_path):
    sf.write(tmp_path / 'x.wav', sound(0.5, sr=192000, channels=8).T, 192000)
    y, sr = load_audio(tmp_path / 'x.wav', sr=44100)
    assert sr == 44100 and y.shape == (22050,)
    assert load_audio(tmp_path / 'x.wav', mono=False)[0].shape == (8, 96000)


@pytest.mark.parametrize('ext', ['wav', 'flac', 'ogg', 'mp3'])
def test_twenty_milliseconds(tmp_path, ext):
    sf.write(tmp_path / f'x.{ext}', sound(0.02, sr=44100)[0], 44100)
    y, sr = load_audio(tmp_path / f'x.{ext}', sr=16000)
    assert y.shape == (320,) and sr == 16000


def test_ten_minutes(tmp_path):
    sf.write(tmp_path / 'x.wav', np.tile(sound(2.0, sr=44100)[0], 300), 44100)
    assert audio_seconds(tmp_path / 'x.wav') == 600
    assert load_audio(tmp_path / 'x.wav', sr=22050)[0].shape == (600 * 22050,)


def test_names_with_spaces_and_letters_of_any_script(tmp_path):
    path = tmp_path / 'čistý zvuk 音.wav'
    path.write_bytes(wav_bytes(sound(0.1)[0] / 32768, sr=SR))
    assert load_audio(os.fspath(path))[1] == SR


# What holds for any sound

floats = hnp.arrays(np.float32, st.integers(2, 300), elements=st.floats(-1, 1, width=32))


@quick
@given(
    pcm=hnp.arrays(np.int16, hnp.array_shapes(max_dims=2, max_side=40)), sr=st.integers(1, 192000)
)
def test_a_wav_keeps_every_16_bit_sample(pcm, sr):
    y, rate = sf.read(io.BytesIO(wav_bytes(pcm / 32768, sr=sr)), dtype='int16')
    assert rate == sr
    np.testing.assert_array_equal(
        np.atleast_1d(y), pcm.T if pcm.ndim == 1 or len(pcm) > 1 else pcm[0]
    )


@quick
@given(y=floats, size=st.integers(1, 400), seed=st.none() | st.integers(0, 99))
def test_fix_length_keeps_what_fits(y, size, seed):
    out = fix_length(y, size, rng=None if seed is None else np.random.default_rng(seed))
    assert out.shape == (size,) and out.dtype == y.dtype
    longer, shorter = (y, out) if len(y) >= size else (out, y)
    places = np.lib.stride_tricks.sliding_window_view(longer, len(shorter))
    assert (places == shorter).all(axis=1).any()


@quick
@given(
    y=floats,
    a=st.sampled_from([8000, 11025, 22050, 44100, 192000]),
    b=st.sampled_from([8000, 16000, 44100, 48000]),
)
def test_resampling_keeps_time_and_rows(y, a, b):
    out = resample(np.stack([y, -y])[None], orig_sr=a, target_sr=b)
    assert out.shape == (1, 2, int(np.ceil(len(y) * b / a))) and np.isfinite(out).all()
    np.testing.assert_array_equal(out[0, 0], -out[0, 1])
    np.testing.assert_array_equal(out[0, 0], resample(y, orig_sr=a, target_sr=b))


@quick
@given(n=st.integers(0, 10**9), sr=st.sampled_from([8000, 11025, 22050, 44100, 48000, 192000]))
def test_samples_survive_the_way_to_seconds_and_back(n, sr):
    assert seconds_to_samples(samples_to_seconds(n, sr=sr), sr=sr) == n


@quick
@given(
    y=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 8), st.integers(1, 50)),
        elements=st.floats(-1, 1, width=32),
    )
)
def test_mono_is_the_mean(y):
    np.testing.assert_allclose(to_mono(y), y.mean(axis=0), atol=1e-6)


# Real recordings, and the figures measured on them


def test_every_real_clip_loads(real_data):
    paths = [
        *real_data.glob('FSDKaggle2018/FSDKaggle2018.audio_train/*.wav'),
        *real_data.glob('ESC-10/audio/*.ogg'),
    ]
    assert len(paths) == 701
    for path in paths:
        y, sr = load_audio(path)
        assert sr == 44100 and y.ndim == 1 and abs(len(y) / sr - audio_seconds(path)) < 1e-9


def test_recorded_run_of_the_decoders(root):
    run = json.loads((root / 'nbs/results/decoders.json').read_text())
    assert {'what', 'data', 'versions', 'metrics', 'ratios'} <= set(run)
    assert all(r['min'] <= r['median'] <= r['max'] for r in run['ratios'].values())
