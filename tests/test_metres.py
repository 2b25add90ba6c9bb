"Chapters 10ab and 10d from outside: order, ratios, metres in a room that was learned, and no metres elsewhere."

import csv
import io
import json
from dataclasses import asdict
import math

import numpy as np
import pytest

from soundtag.audio import wav_bytes
from soundtag.distance import DistanceEstimator
from soundtag.metres import (
    CalibratedEstimator,
    Heard,
    Spreads,
    compare_distances,
    predict_calibrated,
)
from soundtag.models import ModelError
from soundtag.tables import DataError

SR = 16000
# Logarithm and deviation, as before there was a prior
OWN_MODEL = 0.684292, 0.649047
FILE_WITHOUT_PRIOR = 0.602498, 0.477180
TONE = np.sin(np.arange(SR)).astype('float32')


def soft_is_far(decay=0.0, spreads=None):
    "Hears the distance in the level, up to a factor that it doesn't know: 1 m is 0.5."

    def predict(X):
        log_d = -np.log(np.abs(X).max(1))
        rest = np.full((len(X), 3), (-1.5, 0, decay))
        rest[:, 1] = log_d
        return np.c_[log_d, rest].astype('float32')

    return DistanceEstimator(predict, SR, 1.0, spreads or {})


def at(metres):
    return TONE / (2 * metres)


def test_recordings_are_sorted_whatever_the_order_they_come_in():
    names = {'b': at(2), 'none': 0 * TONE, 'c': at(4), 'a': at(1)}
    rows = compare_distances(names, soft_is_far(), sr=SR)
    assert [row[0] for row in rows] == ['a', 'b', 'c', 'none']
    assert rows[0][1:] == (1, 1, 1) and rows[3][1:] == (None, None, None)
    np.testing.assert_allclose([row[1] for row in rows[:3]], [1, 2, 4], rtol=1e-3)
    assert all(low < ratio < high for _, ratio, low, high in rows[1:3])


def test_a_wider_spread_of_answers_gives_wider_ratios():
    narrow, wide = (
        compare_distances({'a': at(1), 'b': at(2)}, soft_is_far(spreads={'ratio': s}), sr=SR)[1]
        for s in (0.2, 0.8)
    )
    assert wide[2] < narrow[2] < narrow[1] < narrow[3] < wide[3]


def test_metres_come_with_a_calibration_and_hold_in_its_room():
    plain = soft_is_far()
    room = CalibratedEstimator.fit(plain, [(at(1), 1.0), (at(3), 3.0)], sr=SR)
    assert plain.distance(at(2), SR).metres is None
    two = room.distance(at(2), SR)
    assert 1.5 < two.metres < 3 and two.low < two.metres < two.high
    five = [(at(m), m) for m in (0.5, 1.0, 2.0, 3.0, 5.0)]
    better = CalibratedEstimator.fit(plain, five, sr=SR).distance(at(2), SR)
    assert abs(better.metres - 2) <= abs(two.metres - 2)
    assert better.high / better.low < two.high / two.low
    assert room.distance(0 * TONE, SR) is None


def test_a_recording_that_dies_away_otherwise_gets_no_metres():
    room = CalibratedEstimator.fit(soft_is_far(), [(at(1), 1.0), (at(3), 3.0)], sr=SR)
    hall = soft_is_far(decay=2.0).predict_windows(at(2), SR)
    assert room.answer(soft_is_far().predict_windows(at(2), SR)).metres
    answer = room.answer(hall)
    assert answer.metres is None and answer == soft_is_far().answer(hall)


def test_intervals_of_a_calibration_hold_where_rooms_and_sounds_stray_as_stated():
    rng = np.random.default_rng(0)
    s = Spreads(room=0.5, slope=0.2, sound=0.3, rest=0.5)
    covered = []
    for _ in range(400):
        shift, slope, sounds = rng.normal(0, 0.5), rng.normal(1, 0.2), rng.normal(0, 0.3, 2)

        def heard(metres, sound):
            stray = shift + sounds[sound] + rng.normal(0, 0.25)
            log_d = (np.log(metres) - stray + s.center * (slope - 1)) / slope
            return Heard(log_d, log_d, 0.5, 0.0)

        points = [
            {'metres': metres} | asdict(heard(metres, 0)) for metres in (1.0, 3.0)
        ]
        truth = np.exp(rng.uniform(np.log(0.5), np.log(6)))
        mean, sd = predict_calibrated(points, heard(truth, 1), s)
        covered.append(abs(mean - np.log(truth)) <= 1.2816 * sd)
    assert 0.72 < np.mean(covered) < 0.88


def test_models_without_a_prior_answer_as_they_did():
    points = [
        {'metres': 1.0, 'log_d': 0.4, 'deviation': 0.7},
        {'metres': 3.0, 'log_d': 1.1, 'deviation': 0.9},
    ]
    of_a_file = Spreads(
        offset=-0.1426, gain=0.9417, center=0.7006, room=0.1572, slope=0.002, sound=0.1853, rest=0.6905
    )
    for spreads, before in ((Spreads(), OWN_MODEL), (of_a_file, FILE_WITHOUT_PRIOR)):
        answer = predict_calibrated(points, Heard(0.8, 0.8, 0.6, 0.0), spreads)
        np.testing.assert_allclose(answer, before, rtol=1e-3)


def test_what_is_expected_counts_the_more_the_less_is_heard():
    points = [{'metres': m, 'log_d': np.log(m), 'deviation': 0.1} for m in (1.0, 3.0)]
    heard = Heard(np.log([0.5, 2.0, 8.0]), np.zeros(3), np.ones(3), np.zeros(3))
    answers = {
        rest: predict_calibrated(
            points, heard, Spreads(rest=rest, power=0.0, expected=np.log(2), expected_sd=0.6)
        )
        for rest in (0.01, 0.5, 50.0)
    }
    alone = predict_calibrated(points, heard, Spreads(rest=0.5, power=0.0))
    sure, middle, deaf = (np.exp(mean) for mean, _ in answers.values())
    assert sure[0] < middle[0] < deaf[0] < 2.01 and 1.99 < deaf[2] < middle[2] < sure[2]
    np.testing.assert_allclose(answers[50.0][1], 0.6, rtol=1e-3)
    # Bayes, for one recording: precisions add up
    precision = 1 / alone[1] ** 2 + 1 / 0.6**2
    mean = (alone[0] / alone[1] ** 2 + np.log(2) / 0.6**2) / precision
    np.testing.assert_allclose(answers[0.5], (mean, precision**-0.5))
    with_none, _ = predict_calibrated([], heard, Spreads(expected=np.log(2), expected_sd=1e-3))
    np.testing.assert_allclose(np.exp(with_none), 2, rtol=1e-3)


def test_calibrated_intervals_are_as_wide_as_was_measured():
    points = [{'metres': m, 'log_d': np.log(m), 'deviation': 0.5} for m in (1.0, 3.0)]
    heard = Heard(0.5, 0.5, 0.8, 0.0)
    mean, sd = predict_calibrated(points, heard, Spreads())
    same, wide = predict_calibrated(points, heard, Spreads(scale=1.2, scale_power=0.5))
    assert same == mean and math.isclose(wide, 1.2 * math.sqrt(0.8) * sd)


def test_intervals_without_a_calibration_are_as_wide_as_was_measured():
    def answer(deviation, spreads):
        rows = np.array([[0, np.log(2), np.log(deviation)]])
        return DistanceEstimator(lambda X: X, SR, 1.0, spreads).answer(rows)

    measured = {'interval': 0.8, 'interval_power': 0.5}
    plain, narrow = answer(0.64, {}), answer(0.64, measured)
    assert narrow.place == plain.place and narrow == answer(0.64, {})  # 0.8 times 0.8
    assert answer(0.85, measured).high < answer(0.85, {}).high
    # what tells nothing is found by what is stated
    assert answer(0.89, {'interval': 2.0}).place == 'middle'
    assert answer(0.91, measured).place == 'unknown'


@pytest.mark.parametrize(
    ('metres', 'said'),
    [
        ((1.0,), '2 to 10'),
        ((1.0,) * 11, '2 to 10'),
        ((1.0, -3.0), '0.1 to 100'),
        ((1.0, float('nan')), '0.1 to 100'),
        ((2.0, 2.2), '1.5 times'),
        ((3.0, 1.0), 'do not sound farther'),
    ],
)
def test_what_teaches_nothing_is_refused(metres, said):
    recordings = [(at(i), m) for i, m in enumerate(metres, 1)]
    with pytest.raises(DataError, match=said):
        CalibratedEstimator.fit(soft_is_far(), recordings, sr=SR)


def test_a_calibration_is_kept_with_its_card_and_belongs_to_its_model(tmp_path):
    model = DistanceEstimator.load()
    heard = {'log_d': 0.1, 'relative': 0.1, 'deviation': 0.5, 'decay': -1.0}
    points = ({'name': 'a.wav', 'metres': 1.0} | heard,)
    room = CalibratedEstimator(model.predict, model.sr, model.seconds, model.spreads, points * 2)
    path = room.save(tmp_path / 'kitchen.json')
    assert CalibratedEstimator.load(path).points == room.points
    assert '| a.wav | 1 |' in (tmp_path / 'kitchen.md').read_text()
    about = json.loads(path.read_text())
    about['distance calibration']['fingerprint'] = 'another'
    path.write_text(json.dumps(about))
    with pytest.raises(ModelError, match='calibrate again'):
        CalibratedEstimator.load(path)
    about['distance calibration']['points'][0]['metres'] = math.nan
    no_number = json.dumps(about)
    for content in ('{', '{}', '[]', '{"distance calibration": {"points": [{}, {}]}}', no_number):
        path.write_text(content)
        with pytest.raises(ModelError, match='is no calibration'):
            CalibratedEstimator.load(path)


def test_the_command_sorts_and_calibrates(tmp_path, monkeypatch, capsys):
    from soundtag import distances
    from soundtag.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(distances, 'load_estimator', lambda model=None, trust=False: soft_is_far())
    for metres in (1, 2, 4):
        (tmp_path / f'{metres}.wav').write_bytes(wav_bytes(at(metres), sr=SR))
    (tmp_path / 'none.wav').write_bytes(b'RIFF')
    assert main(['distance', '4.wav', 'none.wav', '1.wav', '2.wav', '--format', 'csv']) == 1
    printed = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(printed.out)))
    assert [row['file'] for row in rows] == ['1.wav', '2.wav', '4.wav'] and 'none.wav' in printed.err
    assert abs(float(rows[2]['ratio']) - 4) < 0.1 and rows[2]['distance_m'] == ''
    assert main(['distance', '4.wav', '1.wav']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith('1.wav: nearest') and 'about 4 times as far as 1.wav' in lines[1]
    assert main(['distance', 'calibrate', 'kitchen', '1.wav=1', '2.wav=2', '4.wav=4']) == 0
    assert 'off by' in capsys.readouterr().out
    kept = json.loads((tmp_path / 'kitchen.json').read_text())['distance calibration']['points']
    assert [(p['name'], p['metres']) for p in kept] == [('1.wav', 1), ('2.wav', 2), ('4.wav', 4)]
    assert main(['distance', 'calibrate', 'kitchen', '1.wav']) == 2
    assert main(['distance', 'calibrate', 'kitchen', '1.wav=1', '2.wav=far']) == 2
    assert 'FILE=METRES' in capsys.readouterr().err


def test_what_was_calibrated_tells_metres_in_tag(tmp_path, capsys):
    from soundtag.cli import main

    model = DistanceEstimator.load()
    rng = np.random.default_rng(0)
    burst = 0.3 * rng.standard_normal(2 * SR) * np.exp(-np.arange(2 * SR) / 4000)
    (tmp_path / 'a.wav').write_bytes(wav_bytes(burst, sr=SR))
    rows = model.predict_windows(tmp_path / 'a.wav')
    _, log_d, log_sd, *more = rows[0]
    relative, decay = more or (log_d, None)
    points = tuple(
        {'name': 'b', 'metres': m} | asdict(Heard(log_d + r, relative + r, 0.5, decay))
        for m, r in ((1.0, -0.5), (3.0, 0.5))
    )
    room = CalibratedEstimator(model.predict, model.sr, model.seconds, model.spreads, points)
    room.save(tmp_path / 'kitchen.json')
    words = ['tag', str(tmp_path / 'a.wav'), '--model', 'bundled', '--format', 'json']
    assert main([*words, '--distance-model', str(tmp_path / 'kitchen.json')]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    if row['distance'] != 'unknown':
        assert row['low_m'] < row['distance_m'] < row['high_m']
