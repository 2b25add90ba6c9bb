"Chapter 03 from outside: agreement with the post, librosa and NumPy, and what holds for any input."

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from soundtag.audio import fix_length
from soundtag.normalization import (
    FILLS,
    audio_norm,
    feature_stats,
    loud_span,
    pad_or_repeat,
    trim_and_fill,
    trim_silence,
    window_index,
)

quick = settings(max_examples=50, deadline=None)
clips = hnp.arrays(np.float32, st.integers(1, 400), elements=st.floats(-1, 1, width=32))


def stroke(sr=44100, pause=0.5, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(int(0.6 * sr)) / sr
    rest = np.zeros(int(pause * sr))
    y = np.concatenate([rest, np.exp(-6 * t) * np.sin(2 * np.pi * 440 * t), rest])
    return y + noise * rng.standard_normal(len(y))


# audio_norm


def formula(x):
    "As the post writes it down, in float64."
    low, high = np.float64(np.min(x)), np.float64(np.max(x))
    return (x - low) / (high - low + 1e-6) - 0.5


@quick
@given(y=clips)
def test_audio_norm_is_the_formula(y):
    out = audio_norm(y)
    assert out.dtype == np.float32 and out.shape == y.shape
    if np.ptp(y) > 0.01:  # below, float32 samples themselves are too coarse to compare
        np.testing.assert_allclose(out, formula(y.astype('float64')), atol=2e-5)
    assert out.min() == -0.5 and out.max() <= 0.5


@quick
@given(y=clips, gain=st.floats(0.1, 10), offset=st.floats(-1, 1))
def test_audio_norm_takes_out_gain_and_offset(y, gain, offset):
    if np.ptp(y) > 0.1:
        np.testing.assert_allclose(audio_norm(gain * y + offset), audio_norm(y), atol=2e-4)


@quick
@given(
    y=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=4, max_side=6),
        elements=st.floats(-1, 1, width=32),
    )
)
def test_audio_norm_of_a_batch_is_the_loop(y):
    rows = y.reshape(-1, y.shape[-1])
    np.testing.assert_array_equal(
        audio_norm(y).reshape(rows.shape), np.stack([audio_norm(r) for r in rows])
    )


def test_audio_norm_of_silence_is_a_constant():
    assert (
        set(audio_norm(np.zeros(10)).tolist())
        == set(audio_norm(np.full(10, 0.7)).tolist())
        == {-0.5}
    )
    with pytest.raises(ValueError, match='empty'):
        audio_norm(np.zeros((3, 0)))


def test_audio_norm_leaves_its_input_alone():
    y = stroke().astype('float32')
    before = y.copy()
    audio_norm(y)
    np.testing.assert_array_equal(y, before)


# trim_silence


@pytest.mark.parametrize('top_db', [20, 40, 60])
def test_trim_silence_is_librosa_at_44100(top_db):
    y = stroke(noise=1e-4)
    np.testing.assert_array_equal(
        trim_silence(y, sr=44100, top_db=top_db), librosa.effects.trim(y, top_db=top_db)[0]
    )


@pytest.mark.parametrize('sr', [8000, 16000, 22050, 44100, 192000])
def test_trim_silence_keeps_the_same_seconds_at_any_rate(sr):
    assert abs(len(trim_silence(stroke(sr), sr=sr)) / sr - 0.6) < 0.05


@quick
@given(y=clips, sr=st.sampled_from([1, 50, 8000, 44100]), top_db=st.floats(0.1, 120))
def test_trim_silence_never_returns_nothing(y, sr, top_db):
    out = trim_silence(y, sr=sr, top_db=top_db)
    assert 0 < len(out) <= len(y) and np.shares_memory(out, y)


def test_trim_silence_of_odd_input():
    assert len(trim_silence(np.zeros(0), sr=8000)) == 0
    assert len(trim_silence(np.full(9, np.nan), sr=8000)) == 9
    assert trim_silence(np.stack([stroke(8000)] * 3), sr=8000).shape[0] == 3
    for top_db in (0, -10):
        with pytest.raises(ValueError, match='top_db'):
            trim_silence(stroke(), sr=44100, top_db=top_db)


# loud_span


@quick
@given(
    levels=hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-200, 0, width=32)),
    top_db=st.floats(0.1, 120),
    shift=st.integers(-50, 50),
)
def test_loud_span_is_the_first_and_the_last_that_is_loud(levels, top_db, shift):
    first, end = loud_span(levels, top_db)
    loud = [i for i, level in enumerate(levels) if level >= levels.max() - top_db]
    assert (first, end) == (loud[0], loud[-1] + 1)
    assert loud_span(levels, None) == (0, len(levels))
    whole = np.round(levels)
    assert loud_span(whole + shift, 60) == loud_span(whole, 60)  # a gain changes nothing


def test_loud_span_of_odd_input():
    assert loud_span([], 60) == (0, 0) and loud_span([np.nan] * 4, 60) == (0, 4)
    assert loud_span([-60, 0, -60.001], 60) == (0, 2)  # the edge itself still counts


# window_index, pad_or_repeat, trim_and_fill


@quick
@given(n=st.integers(1, 9), size=st.integers(1, 30), start=st.integers(-40, 40))
def test_window_index_is_the_loop(n, size, start):
    index, outside = window_index(start, size, n, 'repeat')
    assert index.tolist() == [(start + k) % n for k in range(size)]
    index, outside = window_index([start], size, [n], 'pad')
    assert index[0].tolist() == [min(max(start + k, 0), n - 1) for k in range(size)]
    assert outside[0].tolist() == [not 0 <= start + k < n for k in range(size)]


@quick
@given(n=st.integers(1, 12), more=st.integers(0, 30))
def test_a_short_sound_is_padded_in_the_middle_or_repeated_from_either_end(n, more):
    y = np.arange(1, n + 1)
    size = n + more
    np.testing.assert_array_equal(pad_or_repeat(y, size, 'pad'), fix_length(y, size))
    np.testing.assert_array_equal(pad_or_repeat(y, size, 'repeat'), np.resize(y, size))
    last = np.resize(y[::-1], size)[::-1]
    np.testing.assert_array_equal(pad_or_repeat(y, size, 'repeat', last=True), last)
    for fill in FILLS:
        both = pad_or_repeat(np.stack([y, -y]), size, fill)
        np.testing.assert_array_equal(both[1], -both[0])
        assert both.dtype == y.dtype


def test_an_unknown_fill_is_refused():
    for call in (
        lambda: pad_or_repeat(np.ones(2), 4, 'stretch'),
        lambda: window_index(0, 4, 2, ''),
    ):
        with pytest.raises(ValueError, match='give one of repeat, pad'):
            call()


@quick
@given(pause=st.integers(0, 9), behind=st.integers(0, 9), fill=st.sampled_from(FILLS))
def test_a_window_loses_the_silence_at_its_ends(pause, behind, fill):
    frame = 160  # 20 ms
    sound = np.sin(np.arange(5 * frame) / 3)
    y = np.concatenate([np.zeros(pause * frame), sound, np.zeros(behind * frame)])
    options = {'sr': 8000, 'size': 20 * frame, 'fill': fill}
    window, level = trim_and_fill(y, trim_db=60, **options)
    np.testing.assert_array_equal(window, pad_or_repeat(sound, 20 * frame, fill))
    assert abs(level - 20 * np.log10(np.sqrt(0.5))) < 0.5
    whole, _ = trim_and_fill(y, trim_db=None, **options)
    np.testing.assert_array_equal(whole, pad_or_repeat(y, 20 * frame, fill))


# feature_stats


@quick
@given(
    X=hnp.arrays(
        np.float32,
        st.tuples(st.integers(2, 30), st.integers(1, 4), st.integers(1, 5), st.just(1)),
        elements=st.floats(-100, 100, width=32),
    ),
    axis=st.sampled_from([0, (0,), (0, 2), (0, 1, 2), (0, 2, 3)]),
    data=st.data(),
)
def test_feature_stats_are_numpys(X, axis, data):
    rows = data.draw(hnp.arrays(bool, len(X)).filter(np.any))
    mean, std = feature_stats(X, rows, axis=axis)
    part = X[rows].astype('float64')
    np.testing.assert_allclose(mean, part.mean(axis, keepdims=True), atol=1e-4)
    expected = part.std(axis, keepdims=True)
    np.testing.assert_allclose(std[expected > 1e-3], expected[expected > 1e-3], rtol=1e-3)
    assert (std > 0).all() and mean.dtype == std.dtype == np.float32 and mean.shape == std.shape
    assert (std[expected == 0] == 1).all()


def test_feature_stats_see_only_the_rows_they_are_given():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 3, 4, 1)).astype('float32')
    rows = np.arange(50) % 5 != 0
    before = feature_stats(X, rows)
    X[~rows] = np.nan
    for a, b in zip(before, feature_stats(X, rows)):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(before, feature_stats(X, np.flatnonzero(rows))):
        np.testing.assert_array_equal(a, b)


def test_feature_stats_keep_their_digits_far_from_zero():
    rng = np.random.default_rng(0)
    X = (10000 + rng.standard_normal((4000, 2, 3))).astype('float32')
    mean, std = feature_stats(X, slice(None))
    np.testing.assert_allclose(std, X.astype('float64').std(0, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(mean, X.astype('float64').mean(0, keepdims=True), rtol=1e-6)


def test_feature_stats_read_a_memory_map_in_pieces(tmp_path):
    import tracemalloc

    rng = np.random.default_rng(0)
    peaks = []
    for n in (400, 1600):
        X = np.lib.format.open_memmap(
            tmp_path / f'{n}.npy', mode='w+', dtype='float32', shape=(n, 40, 173, 1)
        )
        for i in range(n):
            X[i] = rng.standard_normal((40, 173, 1), dtype='float32')
        tracemalloc.start()
        feature_stats(X, np.arange(n))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] and peaks[1] < 20e6


def test_feature_stats_refuse_what_makes_no_sense():
    X = np.ones((4, 2, 3), dtype='float32')
    with pytest.raises(ValueError, match='no training clips'):
        feature_stats(X, np.zeros(4, bool))
    with pytest.raises(ValueError, match='axis'):
        feature_stats(X, slice(None), axis=(1, 2))
