"Chapter 06f: the folder of a run, altered in 300 ways: a right answer or one line, at once, and nothing else."

import json
import os
import random
import shutil
import time
from collections import Counter

import numpy as np
import pytest
import soundfile as sf
from conftest import at_once

import soundtag.tagging
import soundtag.training
from soundtag.cli import main
from soundtag.dataset import DataError, load_clips
from soundtag.models import ModelError
from soundtag.recipe import RunError
from soundtag.results import evaluate, load_run
from soundtag.runs import (
    Choice,
    ListOf,
    Number,
    Text,
    check_config,
    read_config,
    read_folds,
    read_history,
    read_labels,
    read_probabilities,
    read_run_file,
    read_seconds,
)
from soundtag.studies.damage import alter_run, copy_run, rewrite
from soundtag.tagging import load_tagger
from soundtag.training import train_folds

SR = 16000


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as m:
        m.setenv('SOUNDTAG_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    "Noises of three colours, eight each."
    root = tmp_path_factory.mktemp('data') / 'noises'
    rng = np.random.default_rng(0)
    for label, k in (('white', 1), ('pink', 4), ('brown', 16)):
        (root / label).mkdir(parents=True)
        for i in range(8):
            y = np.convolve(rng.normal(0, 0.1, SR // 4), np.ones(k) / k**0.5)
            sf.write(root / label / f'{i}.wav', y, SR)
    return load_clips(root)


def train(clips, out):
    with at_once():
        return train_folds(clips, 'post', 2, out, epochs=1, progress=False)


@pytest.fixture(scope='module')
def run(clips, tmp_path_factory):
    return train(clips, tmp_path_factory.mktemp('runs') / 'noises')


def ask_tagger(out, clips, monkeypatch):
    answers = load_tagger(out).tag(clips.paths[0])
    assert answers and all(0 <= p <= 1 for _, p in answers)


def ask_report(out, clips, monkeypatch):
    metrics = evaluate(load_run(out))
    json.dumps(metrics, allow_nan=False)
    assert 0 <= metrics['metrics']['accuracy']['mean'] <= 1


def go_on(out, clips, monkeypatch):
    "A fold that is trained again gets the files of before."

    def restore(k, task, folder, bar):
        for path in RUN.rglob(f'*_{k}.*'):
            (folder / path.relative_to(RUN)).unlink(missing_ok=True)
            shutil.copy(path, folder / path.relative_to(RUN))

    with monkeypatch.context() as patch:
        patch.setattr(soundtag.training, 'run_fold', restore)
        train(clips, out)
    load_run(out)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('seed', range(3))
def test_altered_runs_are_answered_or_refused(run, clips, tmp_path, monkeypatch, seed):
    "300 in all: no traceback, no hang, no nonsense."
    global RUN
    RUN = run
    known = {}
    read_model = soundtag.tagging.read_model

    def read_once(path, **options):
        key = os.stat(path).st_ino
        return known[key] if key in known else known.setdefault(key, read_model(path, **options))

    monkeypatch.setattr(soundtag.tagging, 'read_model', read_once)
    rng = random.Random(seed)
    outcomes = Counter()
    for i in range(100):
        out = copy_run(run, tmp_path / 'run')
        name = alter_run(rng, out)
        ask = rng.choice([ask_tagger, ask_report, ask_report, go_on])
        start = time.process_time(), time.perf_counter()
        try:
            with monkeypatch.context() as patch:
                patch.chdir(tmp_path)
                ask(out, clips, patch)
            outcomes['answered'] += 1
        except (RunError, ModelError, DataError) as e:
            assert '\n' not in str(e) and len(str(e)) < 1000, (i, name, e)
            outcomes['refused'] += 1
        except Exception as e:
            raise AssertionError(f'{i}: {ask.__name__} of an altered {name}') from e
        assert time.process_time() - start[0] < 5, (i, name)
        assert time.perf_counter() - start[1] < 60, (i, name)  # of a machine with much to do
    assert outcomes['refused'] > 40 and outcomes['answered'] > 5, outcomes


CHANGES = {
    'a frame of 16 GB': ('config.json', ('recipe', 'features', 'n_fft'), 2**34),
    'no rate': ('config.json', ('recipe', 'features', 'sr'), float('nan')),
    'a list of features': ('config.json', ('recipe', 'features'), [1]),
    'years': ('config.json', ('recipe', 'seconds'), 1e9),
    'folds': ('config.json', ('folds', 'number'), -5),
    'a root with a zero': ('config.json', ('data', 'root'), 'a\0b'),
    'all files there are': ('config.json', ('data', 'root'), '/usr'),
    'cores': ('seconds_0.json', ('cores',), []),
    'a seed': ('config.json', ('seed',), 'x'),
}


@pytest.mark.parametrize('what', CHANGES)
@pytest.mark.parametrize('command', ['tag', 'report', 'export'])
def test_the_command_says_one_line_and_exits_with_2(run, clips, tmp_path, capsys, command, what):
    name, (*above, last), value = CHANGES[what]
    out = copy_run(run, tmp_path / 'run')
    tree = json.loads((out / name).read_text())
    node = tree
    for key in above:
        node = node[key]
    node[last] = value
    if what == 'all files there are':
        tree['data'].pop('source', None)
    rewrite(out / name, json.dumps(tree))
    words = {
        'tag': ['tag', '--model', out, clips.paths[0]],
        'report': ['report', out],
        'export': ['export', out, tmp_path / 'x.onnx'],
    }
    harmless = command != 'report' and (what in ('cores', 'all files there are'))
    if harmless and command == 'export':
        return  # it takes long, and is tested elsewhere
    start = time.process_time()
    code = main([str(word) for word in words[command]])
    said = capsys.readouterr()
    assert time.process_time() - start < (60 if harmless else 5)
    if harmless:
        assert code == 0 and said.out
    else:
        assert code == 2 and said.err.count('\n') == 1 and str(out) in said.err, said.err


def test_every_written_run_passes(run):
    assert read_config(run / 'config.json')['folds']['number'] == 2
    assert read_labels(run / 'labels.json') == ['brown', 'pink', 'white']
    assert len(read_folds(run / 'folds.csv', 2)) == 24
    assert len(read_history(run / 'history_1.csv')['val_loss']) == 1
    assert read_seconds(run / 'seconds_0.json')['cores'] >= 1
    assert read_probabilities(run / 'predictions/oof.npy', 3, 24).shape == (24, 3)


@pytest.mark.parametrize(
    'rule, right, wrong',
    [
        (Number(0, 1), [0, 1, 0.5], [-1, 2, float('nan'), True, None, '1', []]),
        (Number(1, 5, whole=True, optional=True), [1, 5, None], [1.0, 0, 6, False]),
        (Text(3), ['', 'abc'], ['abcd', None, 5, 'a\0', '\ud800']),
        (Choice(('a', 'b')), ['a'], ['c', None, ['a'], 1]),
        (Choice((True, False)), [True, False], [1, 0, 'True', None]),
        (ListOf(Number(0, 1), 2), [[], [0, 1]], [[2], [0, 0, 0], 'ab', None, {}]),
    ],
)
def test_rules(rule, right, wrong):
    assert all(map(rule.accepts, right)) and not any(map(rule.accepts, wrong)) and str(rule)


def test_settings_of_earlier_versions_pass(run):
    config = json.loads((run / 'config.json').read_text())
    old = {'epoch_from': 'watch', 'fill': 'short', 'trim_db': 'silence', 'test_windows': 'crops'}
    today = config['recipe']
    config['recipe'] = {old.get(name, name): value for name, value in today.items()}
    config['recipe'] |= {'patience': 5, 'watch': 'scored'}
    assert check_config(config)['recipe'] == today


def test_a_damaged_fold_is_trained_again_with_a_line(run, clips, tmp_path, monkeypatch):
    global RUN
    RUN = run
    out = copy_run(run, tmp_path / 'run')
    rewrite(out / 'predictions/train_predictions_1.npy', b'')
    with pytest.warns(UserWarning, match='train_predictions_1.npy: is damaged .*fold 1 is trained'):
        go_on(out, clips, monkeypatch)
    a, b = (load_run(folder).oof for folder in (run, out))
    np.testing.assert_array_equal(a, b)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'config.json')
    with pytest.raises(ValueError, match='no regular file'):
        read_run_file(tmp_path / 'config.json', read_config, ValueError)
