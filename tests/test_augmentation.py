"Chapter 05 from outside: what holds for pictures of any shape, any amount and any seed."

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from soundtag.augmentation import (
    Augment,
    Batches,
    ClipWindows,
    Ragged,
    _mask,
    crop,
    cutmix,
    freq_mask,
    freq_mixstyle,
    freq_shift,
    gain,
    mixup,
    _random_spans,
    window_starts,
    tilt,
    time_mask,
    time_shift,
    to_db,
    to_power,
    trim_frames,
)
from soundtag.mfcc import MFCC

quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32)
EVERYTHING = Augment(
    time_shift=0.5,
    gain=6,
    tilt=12,
    freq_shift=3,
    mixup=0.4,
    cutmix=0.5,
    solo_share=0.2,
    freq_mixstyle=0.7,
    time_mask=0.2,
    freq_mask=0.2,
)


@st.composite
def pictures(draw, batch=st.integers(1, 6)):
    "Log-mel in dB of any shape, as chapter 04 may give it: from its floor of -100 dB up, silence among it."
    shape = draw(st.tuples(batch, st.integers(1, 12), st.integers(1, 30)))
    X = np.random.default_rng(draw(seeds)).uniform(-100, 60, shape).astype('float32')
    X[draw(st.lists(st.integers(0, shape[0] - 1), max_size=1))] = -100
    return X


@st.composite
def ragged(draw):
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    bands, rng = draw(st.integers(1, 6)), np.random.default_rng(draw(seeds))
    return Ragged.of([rng.uniform(-100, 40, (bands, n)).astype('float32') for n in lengths])


def clip(store, i):
    return store.rows[store.start[i] : store.start[i] + store.frames[i]].T


def power(X):
    "Mean power of each clip, in float64."
    return (10 ** (X.astype('float64') / 10)).mean(axis=(1, 2))


def calls(X, rng):
    "Each function with amounts for X: all that a batch can go through."
    n, bands, frames = X.shape
    amounts = rng.uniform(-20, 20, n)
    masks = rng.integers(0, 5, (2, n, 2))
    return {
        'time_shift': (lambda X, a: time_shift(X, a[0]), [rng.integers(-50, 50, n)]),
        'gain': (lambda X, a: gain(X, a[0]), [amounts]),
        'tilt': (lambda X, a: tilt(X, a[0]), [amounts]),
        'freq_shift': (lambda X, a: freq_shift(X, a[0]), [amounts / 5]),
        'time_mask': (lambda X, a: time_mask(X, *a), list(masks)),
        'freq_mask': (lambda X, a: freq_mask(X, *a), list(masks)),
    }


# what holds for all


@quick
@given(X=pictures(), seed=seeds)
def test_each_clip_is_changed_by_itself(X, seed):
    "In another order the batch gives the same clips in that order, and a clip alone what it gives among others."
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(X))
    for name, (function, amounts) in calls(X, rng).items():
        before = X.copy()
        out = function(X, amounts)
        assert out.shape == X.shape and out.dtype == np.float32 and np.isfinite(out).all(), name
        np.testing.assert_array_equal(X, before, err_msg=f'{name} changes its input')
        np.testing.assert_allclose(
            function(X[order], [a[order] for a in amounts]), out[order], atol=1e-4, err_msg=name
        )
        np.testing.assert_allclose(
            function(X[-1:], [a[-1:] for a in amounts]), out[-1:], atol=1e-4, err_msg=name
        )


# one by one


@quick
@given(X=pictures(), seed=seeds)
def test_time_shift_is_a_roll(X, seed):
    shift = np.random.default_rng(seed).integers(-100, 100, len(X))
    out = time_shift(X, shift)
    np.testing.assert_array_equal(out, np.stack([np.roll(x, s, axis=1) for x, s in zip(X, shift)]))
    np.testing.assert_array_equal(np.sort(out), np.sort(X))
    np.testing.assert_array_equal(time_shift(out, -shift), X)


@quick
@given(X=pictures(), db=st.floats(-40, 40))
def test_gain_is_the_same_everywhere_and_tilt_a_line(X, db):
    np.testing.assert_allclose(gain(X, db) - X, db, atol=1e-4)
    line = tilt(X, db) - X
    np.testing.assert_allclose(line, np.broadcast_to(line[:1, :, :1], X.shape), atol=1e-4)
    if X.shape[1] > 1:
        np.testing.assert_allclose(line[:, [0, -1], 0], [[-db / 2, db / 2]] * len(X), atol=1e-4)
        np.testing.assert_allclose(line.mean(), 0, atol=1e-3)


@quick
@given(X=pictures(), bands=st.integers(-15, 15))
def test_freq_shift_by_whole_bands_moves_the_picture_and_repeats_the_outermost(X, bands):
    i = np.clip(np.arange(X.shape[1]) - bands, 0, X.shape[1] - 1)
    np.testing.assert_allclose(freq_shift(X, bands), X[:, i], atol=1e-4)


@quick
@given(X=pictures(), bands=st.floats(-4, 4))
def test_freq_shift_by_parts_of_a_band_is_between_its_neighbours(X, bands):
    out, low, high = (
        freq_shift(X, bands),
        freq_shift(X, np.floor(bands)),
        freq_shift(X, np.ceil(bands)),
    )
    part = bands - np.floor(bands)
    np.testing.assert_allclose(out, (1 - part) * low + part * high, atol=1e-3)


@quick
@given(X=pictures(), seed=seeds)
def test_cutmix_has_each_frame_from_one_of_two_clips_and_its_label_counts_them(X, seed):
    rng = np.random.default_rng(seed)
    X = X + 200 * np.arange(len(X), dtype='float32')[:, None, None]  # each frame tells whose it is
    partner, w, y = rng.permutation(len(X)), rng.random(len(X)), np.eye(len(X), dtype='float32')
    out, labels = cutmix(X, y, partner, w, rng.random(len(X)))
    own = (out == X).all(axis=1)
    np.testing.assert_array_equal(out, np.where(own[:, None], X, X[partner]))
    assert (
        np.abs(np.diff(own, axis=1, append=own[:, :1]).sum(1)) <= 2
    ).all()  # one piece, on a ring
    kept = np.where(partner == np.arange(len(X)), 1, own.mean(1))
    np.testing.assert_allclose(
        kept[partner != np.arange(len(X))],
        np.rint(w * X.shape[2])[partner != np.arange(len(X))] / X.shape[2],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        labels, kept[:, None] * y + (1 - kept[:, None]) * y[partner], atol=1e-6
    )


@quick
@given(X=pictures(), seed=seeds)
def test_freq_mixstyle_gives_each_band_a_blend_of_two_means_and_keeps_its_course(X, seed):
    rng = np.random.default_rng(seed)
    partner, w = rng.permutation(len(X)), rng.random((len(X), 1))
    out, mean = freq_mixstyle(X, partner, w[:, 0]).astype(float), X.mean(2, dtype=float)
    np.testing.assert_allclose(out.mean(2), w * mean + (1 - w) * mean[partner], atol=1e-2)
    np.testing.assert_allclose(out - out.mean(2, keepdims=True), X - mean[..., None], atol=1e-2)
    np.testing.assert_array_equal(freq_mixstyle(X, partner, np.ones(len(X))), X)


@quick
@given(X=pictures(), seed=seeds, match_level=st.booleans())
def test_mixup_adds_powers_and_labels_by_one_weight(X, seed, match_level):
    rng = np.random.default_rng(seed)
    partner, w, y = (
        rng.integers(0, len(X), len(X)),
        rng.random(len(X)),
        np.eye(len(X), dtype='float32'),
    )
    mixed, labels = mixup(X, y, partner, w, match_level)
    mine, other = power(X), power(X)[partner]
    np.testing.assert_allclose(
        power(mixed), mine if match_level else w * mine + (1 - w) * other, rtol=1e-3
    )
    expected = np.zeros_like(y)
    for i, (p, share) in enumerate(zip(partner, w)):
        expected[i, i] += share
        expected[i, p] += 1 - share
    np.testing.assert_allclose(labels, expected, atol=1e-6)
    assert np.isfinite(mixed).all() and mixed.dtype == labels.dtype == np.float32


@quick
@given(X=pictures(), seed=seeds)
def test_mixup_of_weight_one_is_the_clip_and_of_zero_its_partner(X, seed):
    partner, y = np.random.default_rng(seed).permutation(len(X)), np.eye(len(X), dtype='float32')
    same, labels = mixup(X, y, partner, np.ones(len(X)))
    np.testing.assert_allclose(same, X, atol=1e-3)
    np.testing.assert_array_equal(labels, y)
    other, labels = mixup(X, y, partner, np.zeros(len(X)), match_level=False)
    np.testing.assert_allclose(other, X[partner], atol=1e-3)
    np.testing.assert_array_equal(labels, y[partner])


@quick
@given(X=pictures(), seed=seeds)
def test_masks_cover_what_they_say_and_nothing_else(X, seed):
    n, bands, frames = X.shape
    for mask, axis, length in ((time_mask, 2, frames), (freq_mask, 1, bands)):
        start, width = _random_spans(
            np.random.default_rng(seed).random((2, n, 3)), length, length // 2
        )
        out = mask(X, start, width)
        for x, o, first, size in zip(X, out, start, width):
            hole = sorted({i for a, b in zip(first, size) for i in range(a, a + b)})
            kept = np.delete(np.arange(length), hole)
            np.testing.assert_array_equal(o.take(kept, axis - 1), x.take(kept, axis - 1))
            np.testing.assert_allclose(o.take(hole, axis - 1), x.mean(), rtol=1e-5)


@quick
@given(length=st.integers(1, 300), share=st.floats(0, 1), seed=seeds)
def test_masks_are_as_wide_as_allowed_and_within_the_picture(length, share, seed):
    most = int(share * length)
    start, width = _random_spans(np.random.default_rng(seed).random((2, 2000)), length, most)
    assert (
        start.min() >= 0
        and (start + width).max() <= length
        and width.min() == 0
        and width.max() <= most
    )
    if most < 100:
        assert width.max() == most
    assert (_mask(length, start[:, None], width[:, None]).sum(1) == width).all()


@given(db=st.floats(-100, 100, width=32))
def test_power_and_db_are_inverse(db):
    np.testing.assert_allclose(to_db(to_power(np.float32([db]))), db, atol=1e-4)
    np.testing.assert_allclose(to_power(np.float64([db])), 10 ** (db / 10), rtol=1e-12)


# windows


@quick
@given(store=ragged(), size=st.integers(1, 60), seed=seeds)
def test_a_crop_is_a_piece_of_the_clip_or_the_clip_again_and_again(store, size, seed):
    rng = np.random.default_rng(seed)
    i = rng.integers(0, len(store.frames), 10)
    at = window_starts(store.frames[i], size, rng.random(10))
    repeated, padded = crop(store, i, at, size), crop(store, i, at, size, fill='pad')
    for k, (x, p) in enumerate(zip(repeated, padded)):
        whole = clip(store, i[k])
        n = whole.shape[1]
        np.testing.assert_array_equal(x, whole[:, (at[k] + np.arange(size)) % n])
        if n >= size:
            assert 0 <= at[k] <= n - size
            np.testing.assert_array_equal(p, whole[:, at[k] : at[k] + size])
        else:
            assert 0 <= -at[k] <= size - n
            np.testing.assert_array_equal(p[:, -at[k] : n - at[k]], whole)
            rest = np.delete(p, np.s_[-at[k] : n - at[k]], axis=1)
            assert (rest == whole.min()).all() and rest.shape[1] == size - n


@given(length=st.integers(1, 400), size=st.integers(1, 400), n=st.integers(2, 9))
def test_evenly_spread_windows_reach_both_ends(length, size, n):
    at = window_starts(length, size, np.linspace(0, 1, n))
    room = length - size
    assert at[0] == min(0, room) and at[-1] == max(0, room) and (np.diff(at) >= 0).all()
    assert np.ptp(np.diff(at)) <= 2 and window_starts(length, size, 0.5) == (room + 1) // 2


@quick
@given(store=ragged(), size=st.integers(1, 60), place=st.floats(0, 1))
def test_still_windows_are_crops_at_one_place(store, size, place):
    windows = ClipWindows(store, size, fill='pad').at(place)
    rows = np.arange(len(store.frames))
    start = window_starts(store.frames, size, place)
    assert windows.shape == (len(rows), store.rows.shape[1], size, 1) and len(windows) == len(rows)
    np.testing.assert_array_equal(windows[:][..., 0], crop(store, rows, start, size, 'pad'))
    np.testing.assert_array_equal(windows[rows % 2 == 0], windows[:][rows % 2 == 0])


@quick
@given(store=ragged(), top_db=st.floats(1, 100))
def test_trimmed_frames_begin_and_end_with_sound(store, top_db):
    heard = trim_frames(store, top_db)
    assert heard.rows is store.rows
    for i in range(len(store.frames)):
        level = clip(store, i).max(axis=0)
        loud = np.flatnonzero(level >= level.max() - top_db)
        first = heard.start[i] - store.start[i]
        assert (first, first + heard.frames[i]) == (loud[0], loud[-1] + 1)


# all of it


@quick
@given(X=pictures(), seed=seeds)
def test_a_draw_is_repeatable_finite_and_its_labels_sum_to_one(X, seed):
    y = np.eye(7, dtype='float32')[np.arange(len(X)) % 7]
    a, b = (EVERYTHING(X, y, np.random.default_rng(seed)) for _ in range(2))
    assert a[0].tobytes() == b[0].tobytes() and a[1].tobytes() == b[1].tobytes()
    assert (
        a[0].shape == X.shape and np.isfinite(a[0]).all() and a[0].dtype == a[1].dtype == np.float32
    )
    np.testing.assert_allclose(a[1].sum(1), 1, atol=1e-6)
    other = EVERYTHING(X, y, np.random.default_rng(seed + 1))[0]
    assert (X == -100).all() or other.tobytes() != a[0].tobytes()


SWITCHES = {
    'time_shift': 0,
    'gain': 0,
    'tilt': 0,
    'freq_shift': 0,
    'mixup': 0,
    'freq_mixstyle': 0,
    'time_mask': 0,
    'freq_mask': 0,
}


@pytest.mark.parametrize('name', SWITCHES)
@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_each_switch_does_something_and_moves_no_other_dice(name, seed):
    X = np.random.default_rng(0).uniform(-80, 20, (8, 20, 60)).astype('float32')
    y = np.eye(8, dtype='float32')
    alone = replace(Augment(**SWITCHES), **{name: getattr(EVERYTHING, name)})
    nothing, one = (
        Augment(**SWITCHES)(X, y, np.random.default_rng(seed)),
        alone(X, y, np.random.default_rng(seed)),
    )
    assert nothing[0] is X and nothing[1] is y and (one[0] != X).any()
    assert (one[1] != y).any() == (name == 'mixup')
    both = replace(alone, mixup=1), Augment(mixup=1)
    labels = [a(X, y, np.random.default_rng(seed))[1] for a in both]
    assert (
        name == 'mixup' or labels[0].tobytes() == labels[1].tobytes()
    )  # the same partners and weights
    if name in ('gain', 'tilt'):  # what is added is added, whatever was shifted before
        for shift in (0, 0.5):
            with_it = replace(alone, time_shift=shift)(X, y, np.random.default_rng(seed))[0]
            without = Augment(time_shift=shift)(X, y, np.random.default_rng(seed))[0]
            np.testing.assert_allclose((with_it - without)[..., 0], (one[0] - X)[..., 0], atol=1e-4)


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_cutmix_moves_no_other_dice(seed):
    rng = np.random.default_rng(0)
    X, y = rng.uniform(-80, 20, (64, 8, 60)).astype('float32'), np.eye(64, dtype='float32')
    plain, half, every = (
        Augment(tilt=6, mixup=1, cutmix=share)(X, y, np.random.default_rng(seed))
        for share in (0, 0.5, 1)
    )
    at_once, apart = ((half[0] == other[0]).all(axis=(1, 2)) for other in (plain, every))
    assert (at_once | apart).all() and 12 < apart.sum() < 52
    np.testing.assert_allclose(
        plain[1], every[1], atol=0.5 / 60 + 1e-6
    )  # the same partners and weights, but for the rounding to frames


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_unmixed_clips_are_as_if_nothing_were_mixed_and_the_others_as_if_all_were(seed):
    rng = np.random.default_rng(0)
    X, y = rng.uniform(-80, 20, (64, 8, 60)).astype('float32'), np.eye(64, dtype='float32')
    half, none, every = (
        Augment(tilt=6, **options)(X, y, np.random.default_rng(seed))
        for options in (
            {'mixup': 1, 'cutmix': 0.5, 'solo_share': 0.5},
            {},
            {'mixup': 1, 'cutmix': 0.5},
        )
    )
    alone, mixed = (
        [(a == b).reshape(64, -1).all(1) for a, b in zip(half, other)] for other in (none, every)
    )
    assert (alone[0] | mixed[0]).all() and 12 < alone[0].sum() < 52
    assert alone[1][alone[0]].all() and mixed[1][mixed[0]].all()


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_amounts_stay_within_the_settings(seed):
    X, y = np.zeros((64, 20, 50), 'float32'), np.eye(64, dtype='float32')
    rng = np.random.default_rng(seed)
    level = Augment(gain=6)(X, y, rng)[0][:, 0, 0]
    assert -6 <= level.min() < -3 and 3 < level.max() <= 6
    slope = np.ptp(Augment(tilt=12)(X, y, rng)[0], axis=1)[:, 0]
    assert 6 < slope.max() <= 12.001
    stairs = np.tile(np.arange(20, dtype='float32')[:, None], (64, 1, 50))
    higher = 10 - Augment(freq_shift=3)(stairs, y, rng)[0][:, 10, 0]
    assert -3 <= higher.min() < -1.5 and 1.5 < higher.max() <= 3
    ramp = np.tile(np.arange(50, dtype='float32'), (64, 20, 1))
    shift = (Augment(time_shift=0.2)(ramp, y, rng)[0][:, 0, 0] + 25) % 50 - 25
    assert abs(shift).max() in range(8, 11) and shift.min() < 0 < shift.max()
    picture = rng.uniform(-40, 0, (64, 40, 50)).astype('float32')
    hole = (Augment(time_mask=0.2)(picture, y, rng)[0] != picture).any(axis=1).sum(1)
    assert hole.max() in range(15, 21) and hole.min() < 6  # two masks of up to 10 frames each


def test_one_amount_says_nothing_of_another():
    ramp, y = np.tile(np.arange(1000, dtype='float32'), (400, 2, 1)), np.eye(400, dtype='float32')
    shifted, tilted, louder = (
        Augment(**{name: n})(ramp, y, np.random.default_rng(0))[0]
        for name, n in (('time_shift', 0.4), ('tilt', 10), ('gain', 10))
    )
    own = np.diag(Augment(mixup=1)(0 * ramp, y, np.random.default_rng(0))[1])
    amounts = [
        (shifted[:, 0, 0] + 500) % 1000 - 500,
        np.diff(tilted, axis=1)[:, 0, 0],
        louder[:, 0, 0],
        own,
    ]
    assert np.abs(np.corrcoef(amounts) - np.eye(4)).max() < 0.2


def test_mixup_weights_are_beta():
    X, y = np.zeros((4000, 1, 1), 'float32'), np.eye(4000, dtype='float32')
    for alpha in (0.2, 1, 4):
        own = np.diag(Augment(mixup=alpha)(X, y, np.random.default_rng(0))[1])
        assert abs(own.mean() - 0.5) < 0.03 and abs(own.var() - 1 / (4 * (2 * alpha + 1))) < 0.01


def test_settings_survive_json():
    for a in (Augment(), EVERYTHING, Augment(mixup=1, match_level=False)):
        back = json.loads(json.dumps(a.settings))
        assert Augment.from_settings(back) == a and hash(a) == hash(replace(a))
        assert set(a.settings) == {f.name for f in fields(Augment)}


def test_settings_of_earlier_versions_are_read_where_they_can_be_had():
    dropped = {'noise_snr': None, 'masks': 2, 'fill': 'mean'}
    recorded = {'gain': 6, 'mixup': 1, 'unmixed': 0.5, 'match': False} | dropped
    now = Augment(gain=6, mixup=1, solo_share=0.5, match_level=False)
    assert Augment.from_settings(recorded) == now
    for other in ({'noise_snr': [10, 40]}, {'masks': 1}, {'fill': 'min'}):
        with pytest.raises(ValueError, match=next(iter(other))):
            Augment.from_settings(recorded | other)


# What version 0.1 drew and made for these settings, at three places: no number may move.
DRAWN = {
    'strong': (
        {
            'time_shift': 0.5,
            'gain': 6,
            'tilt': 12,
            'freq_shift': 2,
            'mixup': 1,
            'cutmix': 0.5,
            'solo_share': 0.5,
            'freq_mixstyle': 0.5,
            'time_mask': 0.13,
            'freq_mask': 0.125,
        },
        0.40402996314503115,
        [-38.63551, -29.05575, -4.80428],
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ),
    'mixed': (
        {'mixup': 0.4, 'match_level': False, 'time_mask': 0.13},
        0.5843783720353465,
        [-13.8239, -26.07056, -30.15911],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.00023, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.99977, 0.0],
    ),
    'moved': (
        {'time_shift': 0.3, 'freq_shift': 3, 'gain': 2, 'freq_mask': 0.2},
        0.4623114672238626,
        [-39.2381, -14.24411, -77.56599],
        [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ),
}


@pytest.mark.parametrize('name', DRAWN)
def test_no_number_moves(name):
    settings, dice, levels, label = DRAWN[name]
    rng = np.random.default_rng(5)
    X = rng.uniform(-80, 20, (16, 64, 120)).astype('float32')
    X, y = Augment(**settings)(X, np.eye(16, dtype='float32'), rng)
    assert rng.random() == dice
    np.testing.assert_allclose(X[[0, 5, 15], [0, 40, 63], [3, 70, 119]], levels, atol=1e-4)
    np.testing.assert_allclose(y[5], label, atol=1e-6)


@pytest.mark.parametrize(
    'bad',
    [
        dict(time_shift=0.6),
        dict(gain=-1),
        dict(gain=float('nan')),
        dict(tilt=41),
        dict(freq_shift=-1),
        dict(mixup=-0.1),
        dict(cutmix=1.1),
        dict(cutmix=0.5),
        dict(solo_share=0.5),
        dict(solo_share=2, mixup=1),
        dict(time_mask=1.1),
        dict(freq_mask=-1),
    ],
)
def test_settings_beyond_reason_are_refused_by_name_with_the_cure(bad):
    with pytest.raises(ValueError, match=rf'{next(iter(bad))}=.*: give '):
        Augment(**bad)


# batches


def batches(store, rows=None, **options):
    rows = np.arange(len(store.frames)) if rows is None else rows
    return Batches(
        store,
        rows,
        np.eye(len(store.frames), dtype='float32'),
        **dict(frames=10, batch_size=3, seed=0) | options,
    )


@quick
@given(
    store=ragged(),
    size=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 500),
    fill=st.sampled_from(['repeat', 'pad']),
)
def test_an_epoch_has_each_clip_once_and_its_windows_are_its_own(store, size, seed, epoch, fill):
    b = batches(store, batch_size=size, seed=seed, epoch=epoch, fill=fill)
    seen = list(b)
    assert len(seen) == len(b) == -(-len(store.frames) // size)
    X, y = (np.concatenate(x) for x in zip(*seen))
    assert sorted(y.argmax(1).tolist()) == list(range(len(store.frames))) and X.shape == (
        len(y),
        store.rows.shape[1],
        10,
        1,
    )
    for x, i in zip(X[..., 0], y.argmax(1)):
        assert set(x.ravel().tolist()) <= set(clip(store, i).ravel().tolist())


@quick
@given(store=ragged(), seed=st.integers(0, 2**31), data=st.data())
def test_a_batch_depends_on_seed_epoch_and_number_alone(store, seed, data):
    options = dict(seed=seed, augment=EVERYTHING, batch_size=2)
    b, asked = batches(store, **options), batches(store, **options)
    expected = {(e, i): b.batch(e, i) for e in range(3) for i in range(len(b))}
    for e, i in data.draw(st.permutations(list(expected))):
        for got, x in zip(asked.batch(e, i), expected[e, i]):
            assert got.tobytes() == x.tobytes()
    for e in range(3):
        late = batches(store, epoch=e, **options)
        assert b.epoch == e and all(
            b[i][0].tobytes() == expected[e, i][0].tobytes() == late[i][0].tobytes()
            for i in range(len(b))
        )
        b.on_epoch_end()


@quick
@given(store=ragged(), seed=st.integers(0, 2**31))
def test_another_seed_epoch_or_number_is_another_batch(store, seed):
    assume(len(store.frames) >= 4 and np.ptp(store.rows) > 20)
    b = batches(store, seed=seed, augment=EVERYTHING, batch_size=2)
    different = [
        b.batch(0, 0),
        b.batch(1, 0),
        b.batch(0, 1),
        batches(store, seed=seed + 1, augment=EVERYTHING, batch_size=2).batch(0, 0),
    ]
    assert len({X.tobytes() for X, _ in different}) == 4


def test_order_and_windows_are_drawn_from_different_dice():
    "Generators seeded by [a, b] and [a, b, 0] are one and the same: neither may be used for both."
    dice = np.random.default_rng([7, 0]).random(64)
    np.testing.assert_array_equal(dice, np.random.default_rng([7, 0, 0]).random(64))
    store = Ragged.of([np.arange(500, dtype='float32')[None] for _ in range(64)])
    first = batches(store, batch_size=64, seed=7)[0][0][:, 0, 0, 0]
    assert not np.array_equal(first, window_starts(np.full(64, 500), 10, dice))


def test_each_epoch_has_another_order_and_other_windows():
    store = Ragged.of([np.arange(500, dtype='float32')[None] for _ in range(64)])
    orders, firsts = zip(
        *(
            (y.argmax(1), X[:, 0, 0, 0])
            for X, y in (batches(store, batch_size=64).batch(e, 0) for e in range(4))
        )
    )
    assert len({o.tobytes() for o in orders}) == len({f.tobytes() for f in firsts}) == 4


def test_threads_get_what_one_gets():
    rng = np.random.default_rng(0)
    store = Ragged.of(
        [rng.uniform(-80, 0, (16, n)).astype('float32') for n in rng.integers(5, 90, 60)]
    )
    b = batches(store, frames=40, batch_size=7, augment=EVERYTHING)
    with ThreadPoolExecutor(4) as pool:
        for (X, y), (X2, y2) in zip(pool.map(b.__getitem__, range(len(b))), b):
            assert X.tobytes() == X2.tobytes() and y.tobytes() == y2.tobytes()


def test_clips_left_out_are_never_touched():
    rng = np.random.default_rng(0)
    store = Ragged.of([rng.uniform(-80, 0, (8, 30)).astype('float32') for _ in range(20)])
    rows = np.arange(20)[np.arange(20) % 5 != 0]
    before = [X.tobytes() for X, _ in batches(store, rows, augment=EVERYTHING)]
    for i in set(range(20)) - set(rows.tolist()):
        store.rows[store.start[i] : store.start[i] + 30] = np.nan
    assert before == [X.tobytes() for X, _ in batches(store, rows, augment=EVERYTHING)]


def test_batches_refuse_what_makes_no_sense():
    store = Ragged.of([np.zeros((4, 9), 'float32')] * 3)
    for bad, words in (
        (dict(rows=[]), 'rows is empty'),
        (dict(frames=0), 'frames=0: give'),
        (dict(batch_size=0), 'batch_size=0: give'),
        (dict(fill='loop'), "'loop': give"),
    ):
        with pytest.raises(ValueError, match=words):
            batches(store, **bad)
    with pytest.raises(IndexError, match='batch 1 of 1'):
        batches(store)[1]

    class Store(Ragged):
        features = MFCC(sr=8000)

    mfcc = Store(store.rows, store.start, store.frames)
    for setting in ('gain', 'tilt', 'freq_shift', 'mixup', 'freq_mixstyle', 'freq_mask'):
        with pytest.raises(ValueError, match='MFCC features .* LogMel'):
            batches(mfcc, augment=replace(Augment(), **{setting: getattr(EVERYTHING, setting)}))
    batches(mfcc, augment=Augment(time_shift=0.5, time_mask=0.1))
