"Chapter 01b from outside: a stream is the whole, cut; whatever the format, the rate and the blocks."

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from soundtag.audio import AudioError, load_audio
from soundtag.stream import (
    SILENCE_DB,
    array_blocks,
    audio_blocks,
    file_blocks,
    frame_levels,
    windows,
)

quick = settings(max_examples=60, deadline=None)


@pytest.fixture(scope='module')
def sound():
    rng = np.random.default_rng(0)
    t = np.arange(15 * 8000) / 8000
    mono = 0.3 * np.sin(2 * np.pi * 440 * t) + 0.01 * rng.standard_normal(len(t))
    return np.stack([mono, np.roll(mono, 7)])


@pytest.mark.parametrize('ext', ['wav', 'flac', 'ogg', 'mp3'])
@pytest.mark.parametrize('target_sr', [8000, 11025, 44100])
def test_a_stream_is_what_load_audio_gives(sound, tmp_path, ext, target_sr):
    path = tmp_path / f'sound.{ext}'
    sf.write(path, sound.T, 8000)
    blocks = list(audio_blocks(path, target_sr=target_sr))
    whole, _ = load_audio(path, sr=target_sr)
    assert len(blocks) > 2 and all(y.dtype == np.float32 for y in blocks)
    np.testing.assert_allclose(np.concatenate(blocks)[: len(whole)], whole, atol=1e-6)


@pytest.mark.parametrize('seconds', [1, 6, 100])
def test_blocks_of_any_length_join_to_the_same(sound, tmp_path, seconds):
    sf.write(tmp_path / 'sound.wav', sound.T, 8000, subtype='FLOAT')
    for blocks in (
        file_blocks(tmp_path / 'sound.wav', seconds=seconds),
        array_blocks(sound, 8000, seconds=seconds),
    ):
        ys, rates = zip(*blocks)
        assert set(rates) == {8000} and max(y.shape[1] for y in ys) <= 8000 * seconds
        np.testing.assert_array_equal(np.concatenate(ys, axis=1), sound.astype('float32'))


def test_silence_passes_and_what_is_no_number_does_not(sound, tmp_path):
    assert not np.concatenate(list(audio_blocks(np.zeros(100), 8000, target_sr=8000))).any()
    bad = sound.copy()
    bad[0, -1] = np.inf
    with pytest.raises(AudioError, match='NaN'):
        list(audio_blocks(bad, 8000, target_sr=16000))
    with pytest.raises(AudioError, match='no samples'):
        list(audio_blocks(np.zeros(1), 192_000, target_sr=8))


@pytest.mark.parametrize('sr', [None, 0, -8000, float('nan'), float('inf'), '8000'])
def test_an_array_needs_its_rate(sound, sr):
    with pytest.raises(AudioError, match='^array: .*give it in Hz, as sr=44100') as e:
        list(audio_blocks(sound, sr, target_sr=8000))
    assert '\n' not in str(e.value)


def test_a_name_that_is_no_text(sound, tmp_path):
    path = tmp_path / b'b\xe4r.flac'.decode('utf-8', 'surrogateescape')
    try:
        path.touch()
    except (OSError, ValueError):
        pytest.skip('this file system wants names that are text')
    with open(path, 'wb') as f:
        sf.write(f, sound.T, 8000, format='FLAC')
    y, sr = load_audio(path)
    np.testing.assert_array_equal(np.concatenate(list(audio_blocks(path, target_sr=sr))), y)


@quick
@given(
    n=st.integers(1, 60),
    size=st.integers(1, 12),
    hop=st.integers(1, 12),
    pieces=st.integers(1, 20),
)
def test_windows_do_not_depend_on_the_blocks(n, size, hop, pieces):
    y = np.arange(n, dtype='float32')
    cut = [w.tolist() for w in windows(np.array_split(y, pieces), size, min(hop, size))]
    starts = [*range(0, n - size, min(hop, size)), max(0, n - size)]
    assert cut == [y[s : s + size].tolist() for s in starts]


@quick
@given(db=st.floats(-70, 0), sr=st.sampled_from([8000, 22050, 44100]), n=st.integers(1, 3000))
def test_levels_are_those_of_the_power(db, sr, n):
    y = np.full(n, 10 ** (db / 20))
    levels = frame_levels(y, sr=sr)
    assert len(levels) == -(-n // round(0.02 * sr))
    np.testing.assert_allclose(levels, db, atol=1e-6)
    np.testing.assert_allclose(frame_levels(y / 10, sr=sr), levels - 20, atol=1e-6)
    assert (frame_levels(0 * y, sr=sr) == -200).all() and -200 < SILENCE_DB
