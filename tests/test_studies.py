"The laboratory: studies that are resumed, refuse other settings, and write results of one form."

import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from importlib import import_module
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import at_once, small_cnn
from hypothesis import given, settings
from hypothesis import strategies as st
from warm import Forked

from soundtag.audio import wav_bytes
from soundtag.dataset import load_clips, mini
from soundtag.mfcc import MFCC
from soundtag.rooms import RoomDistribution, simulate_rooms
from soundtag.studies import folds
from soundtag.studies.bundled import model_card
from soundtag.studies.afar import with_rooms
from soundtag.studies.distance import ranging_card
from soundtag.studies.inputs import benchmark_inputs
from soundtag.studies.scenes import benchmark_timeline, match_onsets, split_by_recording
from soundtag.studies.study import STUDIES, Study, StudyError, main, ratio
from soundtag.synthesis import Voice, perform
from soundtag.tagging import TAGGING_MODEL, Tagger
from soundtag.recipe import NETWORKS, RECIPES

NETWORKS['small_cnn'] = small_cnn
SR = 8000
TINY = replace(
    RECIPES['post'],
    name='tiny',
    features=MFCC(sr=SR, n_mfcc=20, n_mels=40, n_fft=512, hop_length=250),
    seconds=0.5,
    network='small_cnn',
    batch_size=8,
    epochs=2,
)


@pytest.fixture(scope='module')
def clips():
    return mini()


@pytest.fixture(scope='module')
def few(clips):
    "Eight training clips of each of three labels."
    names = clips.labels[:3]
    some = clips.train.table[clips.train.table.label.isin(names)].groupby('label').head(8)
    return replace(clips.subset(list(some.index)), labels=names)


def command(*words):
    "Exit code, stdout and stderr of `python -m soundtag.studies`, called in this process."
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        try:
            code = main([str(w) for w in words])
        except SystemExit as e:
            code = e.code
    return code, out.getvalue(), err.getvalue()


# The command


def test_every_study_is_there_and_in_the_help():
    code, out, err = command('--help')
    assert code == 0 and not err and '(default: mini)' in out
    for name, study in STUDIES.items():
        module, function = study.function.split('.')
        assert callable(getattr(import_module(f'soundtag.studies.{module}'), function))
        assert f'  {name} ' in out and study.answers in out


def test_an_unknown_study_is_refused():
    code, out, err = command('sing')
    assert (code, out) == (2, '') and 'sing' in err and 'features' in err


@pytest.mark.parametrize('name', ['features', 'inputs', 'folds', 'far'])
def test_the_command_hands_over_what_was_measured(clips, tmp_path, monkeypatch, name):
    function = f'soundtag.studies.{STUDIES[name].function}'
    monkeypatch.setattr(function, lambda clips, *, out: {'what': name, 'clips': len(clips)})
    code, out, _ = command(name, clips.root)
    assert code == 0 and json.loads(out) == {'what': name, 'clips': len(clips)}
    code, out, _ = command(name, clips.root, '--out', tmp_path / 'b.json')
    assert code == 0 and out == f'{tmp_path / "b.json"}\n'


@pytest.mark.parametrize('name', ['bundled', 'distance'])
def test_a_model_goes_beside_its_result(clips, tmp_path, monkeypatch, name):
    asked = []
    function = f'soundtag.studies.{STUDIES[name].function}'
    monkeypatch.setattr(function, lambda clips, **options: asked.append(options) or {})
    assert command(name, clips.root, '--out', tmp_path / 'b.json')[0] == 0
    assert command(name, clips.root)[0] == 0
    with_file, without = asked
    assert with_file['folder'] == tmp_path / 'b' and 'folder' not in without


def test_the_command_runs_as_a_process():
    command = [sys.executable, '-m', 'soundtag.studies', 'sing']
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and 'invalid choice' in done.stderr and not done.stdout


# The class Study


def study(out, clips, **options):
    options = {'recipe': {'name': 'any'}, 'seeds': [0], 'progress': False} | options
    return Study('a test', clips, out=out, **options)


def as_a_program(*words):
    os.environ.pop('TF_CPP_MIN_LOG_LEVEL', None)
    sys.exit(main(words))


def test_what_goes_wrong_is_said_where_tensorflow_is_kept_quiet(tmp_path):
    said = tmp_path / 'stderr.txt'
    going = Forked(as_a_program, 'folds', str(tmp_path / 'nowhere'), stderr=said)
    assert going.wait() == 2
    assert 'nowhere: no such file or folder' in said.read_text()


def test_a_study_says_what_decides_its_numbers(tmp_path, clips):
    result = study(tmp_path / 's.json', clips, cores=2).result
    assert list(result) == ['what', 'data', 'recipe', 'seeds', 'versions', 'cores']
    assert result['data'] == clips.summary and str(clips.root) not in json.dumps(result)
    assert {'python', 'soundtag', 'keras', 'numpy'} <= set(result['versions'])
    assert not (tmp_path / 's.json').exists()  # nothing is measured yet


def test_a_study_is_resumed_after_each_piece(tmp_path, clips):
    out = tmp_path / 's.json'
    for n in range(3):
        begun = study(out, clips)
        rows = begun.piece('rows', [])
        assert rows == list(range(n))
        rows.append(n)
        begun.write()
    assert study(out, clips).result == json.loads(out.read_text())
    assert 'rows' not in study(out, clips, resumed=False).result
    assert [p.name for p in tmp_path.iterdir()] == ['s.json']


@pytest.mark.parametrize(
    'other, name',
    [
        ({'seeds': [1]}, 'seeds'),
        ({'recipe': {'name': 'another'}}, 'recipe'),
        ({'more_versions': {'librosa': '0'}}, 'versions'),
        ({'epochs': 3}, 'epochs'),
    ],
)
def test_a_study_refuses_what_was_begun_with_other_settings(tmp_path, clips, other, name):
    out = tmp_path / 's.json'
    study(out, clips).write()
    before = out.read_bytes()
    with pytest.raises(StudyError) as e:
        study(out, clips, **other)
    assert str(out) in str(e.value) and f'other {name};' in str(e.value)
    assert '\n' not in str(e.value) and out.read_bytes() == before


def test_a_study_refuses_other_data(tmp_path, clips, few):
    study(tmp_path / 's.json', clips).write()
    with pytest.raises(StudyError, match='other data'):
        study(tmp_path / 's.json', few)


def test_data_sets_share_a_file(tmp_path, clips, few):
    out = tmp_path / 's.json'
    for name, part in (('all', clips), ('few', few), ('all', clips)):
        begun = study(out, part, key=name)
        begun.piece('times', []).append(1)
        begun.write()
    book = json.loads(out.read_text())
    assert list(book) == ['all', 'few']
    assert (book['all']['times'], book['few']['times']) == ([1, 1], [1])
    with pytest.raises(StudyError, match='other data'):
        study(out, few, key='all')


def test_stages_note_their_seconds(tmp_path, clips):
    for _ in range(2):
        begun = study(tmp_path / 's.json', clips)
        begun.finish_stage('one', found=1)
        begun.finish_stage('two', metrics={'a': 1})
    result = json.loads((tmp_path / 's.json').read_text())
    assert (result['found'], result['metrics']) == (1, {'a': 1})
    assert list(result['seconds']) == ['one', 'two'] and min(result['seconds'].values()) >= 0


def test_a_damaged_file_is_not_overwritten(tmp_path, clips):
    (tmp_path / 's.json').write_text('{"what": ')
    with pytest.raises(ValueError, match='s.json'):
        study(tmp_path / 's.json', clips)
    assert (tmp_path / 's.json').read_text() == '{"what": '


def test_a_ratio_is_taken_round_by_round():
    assert ratio([2, 4, 9], [1, 1, 3]) == {'median': 3, 'min': 2, 'max': 4}


def test_a_wrong_call_is_one_line(tmp_path):
    code, out, err = command('features', tmp_path / 'nowhere')
    assert (code, out) == (2, '') and 'nowhere' in err and err.count('\n') == 1


# Studies


@at_once()
def test_benchmark_form(clips, tmp_path):
    few = clips.train.subset(clips.train.table.index[:24])
    result = benchmark_inputs(few, out=tmp_path / 'inputs.json', seconds=0.5, rounds=1)
    assert json.loads((tmp_path / 'inputs.json').read_text()) == result
    assert {'what', 'data', 'recipe', 'seeds', 'versions', 'inputs', 'ratios'} <= set(result)
    assert set(result['inputs']) == {'raw', 'raw_generator', 'log_mel', 'mfcc'}
    assert all(set(r) == {'median', 'min', 'max'} for r in result['ratios'].values())
    assert str(clips.root) not in json.dumps(result)
    assert not list(tmp_path.glob('*.part'))


@at_once()
def test_benchmark_goes_on_where_it_stopped(tmp_path, few, monkeypatch):
    out, recipe = tmp_path / 'folds.json', replace(TINY, epochs=1)

    def run(kinds):
        return folds.benchmark_folds(
            few, out=out, kinds=kinds, recipe=recipe, cache=tmp_path / 'cache', progress=False
        )

    first, asked = run(['sorted by label'])['metrics']['sorted by label'], []
    monkeypatch.setattr(folds, 'cross_validate', lambda *a: asked.append(a) or first)
    result = run(['sorted by label', 'unshuffled'])
    assert len(asked) == 1
    monkeypatch.setattr(folds, 'cross_validate', lambda *a: pytest.fail('trained again'))
    assert run(['sorted by label', 'unshuffled']) == result == json.loads(out.read_text())['mini']
    assert set(result) == {'what', 'data', 'recipe', 'seeds', 'versions', 'metrics'} and list(
        result['metrics']
    ) == ['sorted by label', 'unshuffled']
    for m in result['metrics'].values():
        assert all(set(v) == {'mean', 'sd', 'folds'} and len(v['folds']) == 2 for v in m.values())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 5), max_size=6), st.lists(st.floats(0, 5), max_size=6))
def test_onsets_are_paired_as_sed_eval_pairs_them(true, told):
    sed_eval = pytest.importorskip('sed_eval')
    m = sed_eval.sound_event.EventBasedMetrics(
        ['a'], t_collar=0.2, evaluate_offset=False, event_matching_type='optimal'
    )
    m.evaluate(
        *(
            [{'event_label': 'a', 'onset': t, 'offset': t + 1, 'filename': 'x'} for t in times]
            for times in (true, told)
        )
    )
    assert match_onsets(true, told) == m.overall['Ntp']


@pytest.mark.slow
def test_the_record_can_be_repeated_in_small(real_data, tmp_path):
    clips = load_clips(real_data / 'ESC-10')
    clips = clips.subset((clips.table.fold == 1).to_numpy())
    a, b = split_by_recording(clips)
    assert not set(a.table.group) & set(b.table.group) and set(a.table.label) == set(
        b.table.label
    ) == set(clips.labels)
    tagger = Tagger(lambda X: np.full((len(X), 10), 0.1), clips.labels, 44100, 1.0)
    result = benchmark_timeline(
        [(tagger, clips)], scenes=5, trials=1, out=tmp_path / 'r.json', progress=False
    )
    assert (
        result['metrics']['event']['all']['true'] >= 30
        and json.loads((tmp_path / 'r.json').read_text()) == result
    )


SMALL = RoomDistribution(rooms=5, positions=2, size=(3.0, 8.0), seed=11)


@pytest.fixture(scope='module')
def drum():
    rng = np.random.default_rng(0)
    y = perform('Bass_drum', Voice(0.3, 0.5, 0.5), seconds=1.5, sr=16000, rng=rng)
    return y.astype('float32')


def test_a_clip_and_its_copies_in_rooms_stay_in_one_fold(tmp_path, drum):
    for i in range(8):
        (tmp_path / f'{i}.wav').write_bytes(wav_bytes(drum * (0.5 + i / 20), sr=16000))
    pd.DataFrame(
        {
            'file': [f'{i}.wav' for i in range(8)],
            'label': ['x', 'y'] * 4,
            'group': [i // 2 for i in range(8)],
        }
    ).to_csv(tmp_path / 'list.csv', index=False)
    clips, responses = load_clips(tmp_path), simulate_rooms(SMALL, cache=tmp_path, progress=False)
    both = with_rooms(clips, responses, tmp_path / 'far', copies=3, folds=2, progress=False)
    origin = both.table.index.str.extract(r'(\d)\.wav$')[0].to_numpy()
    assert (
        len(both) == 32
        and both.labels == clips.labels
        and (both.table.groupby(origin).size() == 4).all()
    )
    assert (
        both.table.groupby('group').fold.nunique().max() == 1
        and both.table.groupby(origin).fold.nunique().max() == 1
    )
    assert len(set(both.paths)) == 32 and all(Path(p).exists() for p in both.paths)
    again = with_rooms(clips, responses, tmp_path / 'far', copies=3, folds=2, progress=False)
    assert again.fingerprint == both.fingerprint
    fewer = with_rooms(
        clips, responses, tmp_path / 'far', copies=1, folds=2, progress=False
    )  # never the recordings of other settings
    assert len(fewer) == 16 and fewer.table.groupby('group').fold.nunique().max() == 1


def test_the_bench_is_heard_once(tmp_path, monkeypatch):
    from soundtag.distance import DistanceEstimator
    from soundtag.studies import order

    def bench(*args, **options):
        for i in range(3):
            sound = np.sin(np.arange(16000) * (i + 1))
            yield sound, {'room': 'wedge 0', 'sound': i, 'distance_m': (i + 1) / 3}

    monkeypatch.setattr(order, 'simulate_spaces', lambda *args, **options: None)
    monkeypatch.setattr(order, 'bench_recordings', bench)
    answer = np.float32([[0.1, -0.3, 0.2, 0.7]])
    estimator = DistanceEstimator(lambda X: answer.repeat(len(X), 0), 16000, 1.0)
    path = tmp_path / 'heard.npz'
    first = order.hear_spaces(estimator, 'test', None, None, path, n_jobs=2)
    monkeypatch.delattr(order, 'bench_recordings')  # not made again
    again = order.hear_spaces(estimator, 'test', None, None, path, n_jobs=2)
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert first.distance_m.tolist() == [1 / 3, 2 / 3, 1.0]
    np.testing.assert_array_equal(first[['log_d', 'decay']], answer[:, [0, 3]].repeat(3, 0))


def test_the_card_of_the_distance_model_says_what_was_measured(root):
    result = json.loads((root / 'nbs/results/distance.json').read_text('utf-8'))
    assert (root / 'soundtag/bundled/DISTANCE.md').read_text('utf-8') == ranging_card(result)
    assert (root / 'soundtag/bundled/distance.onnx').stat().st_size < 2e6


def test_the_card_of_the_tagging_model_says_what_was_measured(root):
    result = json.loads((root / 'nbs/results/box.json').read_text('utf-8'))
    assert (Path(TAGGING_MODEL).parent / 'README.md').read_text('utf-8') == model_card(result)
    readme = (root / 'README.md').read_text('utf-8')
    wild, folds = result['wild'], result['metrics']['accuracy']['mean']
    assert f"right on {wild['mean_over_labels']:.1%}" in readme and f'gave {folds:.1%}' in readme
