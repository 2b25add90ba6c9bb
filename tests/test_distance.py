"Chapter 10a from outside: no room in two parts, no level heard, and one file that answers like the network."

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import at_once

from soundtag.audio import wav_bytes
from soundtag.rooms import RoomDistribution, simulate_rooms
from soundtag.synthesis import Voice, perform

SR = 16000
DISTANCE_TEXT = r", ((near|middle|far) \([\d.]+ to [\d.]+ m\)|distance: can't tell)$"
ROOMS = RoomDistribution(rooms=20, positions=2, size=(3.0, 8.0), seed=11)


@pytest.fixture(scope='module')
def drum():
    return perform(
        'Bass_drum', Voice(0.3, 0.5, 0.5), seconds=1.5, sr=SR, rng=np.random.default_rng(0)
    ).astype('float32')


# what is learned


@pytest.fixture(scope='module')
def small_task(tmp_path_factory):
    from soundtag.distance import DistanceRecipe
    from soundtag.studies.recordings import Sounds, plan_recordings

    rng = np.random.default_rng(2)
    labels = [('Bass_drum', 'Flute', 'Chime')[i % 3] for i in range(30)]
    samples = [
        perform(label, Voice(*rng.uniform(0, 1, 3)), seconds=1.0, sr=SR, rng=rng).astype('float32')
        for label in labels
    ]
    sounds = Sounds(
        samples,
        pd.DataFrame({'label': labels, 'group': [f'take {i // 2}' for i in range(30)]}),
        pd.DataFrame(),
        SR,
    )
    recipe = DistanceRecipe(rooms=ROOMS, examples=(96, 40, 60), epochs=1, seconds=1.5)
    responses = simulate_rooms(
        recipe.rooms, cache=tmp_path_factory.mktemp('rooms'), n_jobs=1, progress=False
    )
    return sounds, responses, recipe, plan_recordings(sounds, responses, recipe)


def test_no_room_and_no_recording_is_in_two_parts(small_task):
    sounds, responses, recipe, plan = small_task
    plan = plan.assign(group=sounds.table.group.to_numpy()[plan.sound])
    for key in ('group', 'room', 'response', 'sound'):
        there = plan[plan.response >= 0] if key == 'response' else plan
        assert there.groupby(key).part.nunique().max() == 1, key
    assert (
        plan.part.value_counts().to_dict() == {'train': 96, 'test': 60, 'valid': 40}
        and (plan[plan.part == 'test'].response >= 0).all()
    )
    at = plan[plan.response >= 0]
    np.testing.assert_array_equal(at.distance_m, responses.table.distance_m.to_numpy()[at.response])


def test_pictures_do_not_depend_on_threads_and_gain_is_a_constant_of_the_level(small_task):
    from soundtag.studies.recordings import make_examples

    sounds, responses, recipe, plan = small_task
    test = plan[plan.part == 'test'].iloc[:40]
    one, two = (
        make_examples(test, sounds, responses, recipe, n_jobs=n, progress=False) for n in (1, 2)
    )
    np.testing.assert_array_equal(one, two)
    louder, *turned = np.moveaxis(
        make_examples(
            test, sounds, responses, recipe, variant='gain', n_jobs=1, progress=False
        ).astype('float32')
        - one,
        -1,
        0,
    )
    assert (
        np.abs(louder - np.median(louder, axis=(1, 2), keepdims=True)).max() < 0.3
        and np.ptp(np.median(louder, axis=(1, 2))) > 20
    )
    assert np.abs(turned).max() < 0.1 and one.shape[-1] == 3


@at_once()
def test_the_network_cannot_hear_the_level(small_task):
    from soundtag.distance import (
        predict_distance,
        fit_distance,
        scale_uncertainty,
        regression_targets,
    )
    from soundtag.studies.recordings import make_examples

    sounds, responses, recipe, plan = small_task
    train = plan[plan.part == 'train']
    X, log_d = (
        make_examples(train, sounds, responses, recipe, n_jobs=1, progress=False),
        np.log(train.distance_m.to_numpy()),
    )
    model = fit_distance(X, regression_targets(train), recipe)
    for a, b in zip(
        predict_distance(model, X),
        predict_distance(model, X.astype('float32') + np.array([20, 0, 0], 'float32')),
    ):
        np.testing.assert_allclose(a, b, atol=1e-3)
    assert model.count_params() < 300_000 and model.output_shape == (None, 2)
    scale_uncertainty(model, X, log_d)
    mean, log_sd = predict_distance(model, X)
    assert abs(np.mean(np.abs(log_d - mean) <= 1.28155 * np.exp(log_sd)) - 0.8) < 0.02


def test_phase_is_the_same_in_numpy_and_in_layers(drum):
    import keras
    from soundtag.distance import DistanceRecipe, phase_layers

    recipe, rng = DistanceRecipe(), np.random.default_rng(0)
    sounds = [
        0.1 * drum[:SR],
        0.1 * rng.standard_normal(SR),
        1e-3 * rng.standard_normal(SR) * np.exp(-np.arange(SR) / 900),
    ]
    y = np.stack([np.resize(s, SR) for s in sounds]).astype('float32')
    audio = keras.Input((SR,))
    expected = np.stack([recipe.extractor(s)[..., 1:] for s in y])
    layers = np.asarray(keras.Model(audio, phase_layers(audio, recipe.features))(y))
    assert expected.shape == layers.shape and np.abs(expected).max() <= 20.01
    assert np.abs(expected - layers).mean() < 1e-3 and np.abs(expected - layers).max() < 0.05


# the model that comes along


def test_it_hears_no_level_and_takes_any_rate_and_length(drum):
    from soundtag.distance import DistanceEstimator

    estimator = DistanceEstimator.load()
    long = np.tile(drum, 5)
    heard = estimator.predict_windows(long, SR)
    assert len(heard) == 4 and np.abs(heard[:, 1]).max() < 4
    np.testing.assert_allclose(estimator.predict_windows(0.01 * long, SR), heard, atol=0.01)
    assert len(estimator.predict_windows(long[:100], SR)) == 1
    # steps are another sound, at another rate
    stepped = estimator.predict_windows(np.repeat(long, 3), 3 * SR)
    assert np.abs(stepped[:, 1] - heard[:, 1]).max() < 1


def test_it_says_near_middle_or_far_with_limits_and_never_a_number_of_metres(drum):
    from soundtag.distance import Distance, DistanceEstimator

    def answer(metres, sd):
        logs = np.float32([[np.log(metres), np.log(sd)]])
        return DistanceEstimator(lambda X: logs, SR, 1.0).distance(drum, SR)

    places = [answer(metres, 0.4).place for metres in (0.5, 0.99, 1.01, 2.9, 3.1)]
    assert places == ['near', 'near', 'middle', 'middle', 'far']
    middle = answer(2, 0.4)
    assert middle.metres is None
    np.testing.assert_allclose((middle.low, middle.high), 2 * np.exp(1.2816 * np.array([-0.4, 0.4])), atol=0.01)
    assert answer(2, 1.0) == Distance('unknown')  # as unsure as somebody who hears nothing


def test_what_tells_nothing_gets_no_distance(drum):
    from soundtag.distance import Distance, DistanceEstimator

    estimator = DistanceEstimator.load()
    assert estimator.distance(np.zeros(SR), SR) is None
    assert estimator.distance(drum[: SR // 5], SR) == Distance('unknown')  # too short


def test_the_command_tells_names_and_distances(drum, tmp_path):
    (tmp_path / 'drum.wav').write_bytes(wav_bytes(np.tile(drum, 3), sr=SR))
    (tmp_path / 'none.wav').write_bytes(b'RIFF')
    code = (
        'import sys; from soundtag.cli import main; code = main(sys.argv[1:]);'
        'assert not {"tensorflow", "keras"} & set(sys.modules); sys.exit(code)'
    )
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            code,
            'tag',
            str(tmp_path / 'drum.wav'),
            str(tmp_path / 'none.wav'),
            '--model',
            'bundled',
            '--distance',
            '--format',
            'json',
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    rows = json.loads(done.stdout)
    assert [r['distance'] for r in rows[1:]] == [rows[0]['distance']] * 2 + [None]
    assert all(r['distance_m'] is None for r in rows)  # metres need the room
    if rows[0]['distance'] == 'unknown':
        assert rows[0]['low_m'] is rows[0]['high_m'] is None
    else:
        assert rows[0]['distance'] in ('near', 'middle', 'far')
        assert 0 < rows[0]['low_m'] < rows[0]['high_m']
    done = subprocess.run(
        [
            sys.executable,
            '-c',
            code,
            'tag',
            str(tmp_path / 'drum.wav'),
            '--model',
            'bundled',
            '--distance',
            '--timeline',
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines and all(re.search(DISTANCE_TEXT, line) for line in lines), done.stdout


@at_once()
def test_a_table_is_learned_by_the_command(drum, tmp_path, capsys):
    from soundtag.cli import main

    rng = np.random.default_rng(0)
    for i in range(8):
        (tmp_path / f'{i}.wav').write_bytes(
            wav_bytes(0.1 * rng.standard_normal(SR).astype('float32') + 0.5 * drum[:SR], sr=SR)
        )
    (tmp_path / '8.wav').write_bytes(b'RIFF')
    table = tmp_path / 'rooms.csv'
    pd.DataFrame({'file': [f'{i}.wav' for i in range(9)], 'distance_m': np.arange(9) + 0.5}).to_csv(
        table, index=False
    )
    assert (
        main(
            [
                'train',
                str(table),
                '--task',
                'distance',
                '--epochs',
                '1',
                '--out',
                str(tmp_path / 'run'),
            ]
        )
        == 1
    )
    printed = capsys.readouterr()
    assert 'always the mean' in printed.out and '8.wav' in printed.err
    assert (
        main(
            [
                'tag',
                str(tmp_path / '0.wav'),
                '--model',
                'bundled',
                '--distance-model',
                str(tmp_path / 'run/distance.keras'),
            ]
        )
        == 0
    )
    assert re.search(DISTANCE_TEXT, capsys.readouterr().out.strip())
    assert (
        main(
            ['train', str(tmp_path / '0.wav'), '--task', 'distance', '--out', str(tmp_path / 'no')]
        )
        == 2
    )
