"Work on a cluster: the same files as without, whatever dies meanwhile."

import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip('distributed')

from test_pretrained import WEIGHTS, write_h5

import soundtag.store
from soundtag.audio import wav_bytes
from soundtag.cluster import answer_paths, tag_archive
from soundtag.console import CallError
from soundtag.dataset import load_clips
from soundtag.files import write_file
from soundtag.locks import fold_lock, folds_left
from soundtag.mfcc import LogMel
from soundtag.pretrained import Embedding
from soundtag.recipe import LinearRecipe, RunError
from soundtag.store import StoreError, compute_clip, prepare_data
from soundtag.tagging import Tagger, tag_files
from soundtag.training import train_folds
from soundtag.workers import ClusterError, cluster, in_parallel

ROOT = Path(__file__).resolve().parent.parent
FEATURES = LogMel(sr=8000, n_mels=32, n_fft=256, hop_length=100)
SR = 8000


@pytest.fixture(scope='module')
def workers():
    "Two workers, for all tests of this file."
    lines = []
    with cluster('local', lines.append) as client:
        assert 'dashboard: http' in lines[-1]
        yield client


@pytest.fixture
def on_cluster(workers):
    from joblib import parallel_config

    with parallel_config('dask', client=workers):
        yield workers


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp('clips')
    for i in range(24):
        rng = np.random.default_rng(i)
        tone = np.sin(np.arange(SR // 2) * (0.2 + 0.3 * (i % 2)))
        y = tone + 0.3 * rng.standard_normal(SR // 2)
        write_file(folder / ('low', 'high')[i % 2] / f'{i:02}.wav', wav_bytes(0.2 * y, sr=SR))
    write_file(folder / 'low/broken.wav', b'RIFF')
    return load_clips(folder)


def files(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in Path(folder).rglob('*')
        if p.name in ('features.dat', 'index.jsonl') or p.suffix in ('.npy', '.csv')
    }


def prepare(clips, cache, **options):
    return prepare_data(clips, FEATURES, cache=cache, progress=False, **options)


def test_a_store_is_the_same_byte_by_byte(clips, tmp_path, on_cluster):
    from joblib import parallel_config

    store = prepare(clips, tmp_path / 'cluster', seconds=0.4)
    with parallel_config('threading'):
        prepare(clips, tmp_path / 'here', seconds=0.4)
    assert files(tmp_path / 'cluster') == files(tmp_path / 'here') != {}
    assert list(store.skipped.fname) == ['low/broken.wav']


def test_workers_that_are_killed_lose_nothing(clips, tmp_path, on_cluster):
    "Each of the two is killed once, at any moment; what they were at is computed by others."
    over = threading.Event()

    def kill():
        for _ in range(2):
            over.wait(0.3)
            for worker in list(on_cluster.cluster.workers.values())[:1]:
                if worker.process and worker.process.pid:
                    os.kill(worker.process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    results = list(in_parallel(slowly, range(200)))
    killer.join()
    assert results == [2 * i for i in range(200)]


def slowly(item):
    time.sleep(0.01)
    return 2 * item


def deadly(path, known, **settings):
    if path.endswith('07.wav'):
        time.sleep(0.7)  # as one that runs out of memory
        os.kill(os.getpid(), 9)
    return compute_clip(path, known, **settings)


def test_a_clip_that_kills_workers_is_named(clips, tmp_path, on_cluster, monkeypatch):
    monkeypatch.setattr(soundtag.store, 'compute_clip', deadly)
    with pytest.raises(StoreError, match=r'07\.wav: 4 workers died of it.*was computed is kept'):
        prepare(clips, tmp_path)
    monkeypatch.undo()
    assert len(prepare(clips, tmp_path)) == 24  # and the workers go on


@pytest.fixture(scope='module')
def ears(tmp_path_factory):
    "The recipe pretrained, with a network of random weights."
    weights = str(write_h5(tmp_path_factory.mktemp('ears') / 'yamnet.h5', WEIGHTS))
    features = Embedding(hop=0.96, shortest=1.1, copies=0, weights=weights)
    return LinearRecipe(name='ears', features=features)


def train(clips, out, recipe='post', **options):
    options |= {'cache': out.parent / 'cache', 'progress': False}
    return train_folds(clips, recipe, 2, out, **options)


ELSEWHERE = """
import sys
from soundtag.dataset import load_clips
from soundtag.pretrained import Embedding
from soundtag.recipe import LinearRecipe
from soundtag.training import train_folds
folder, weights, out, cache, k = sys.argv[1:]
features = Embedding(hop=0.96, shortest=1.1, copies=0, weights=weights)
recipe = LinearRecipe(name='ears', features=features)
train_folds(load_clips(folder), recipe, 2, out, fold=int(k), cache=cache, progress=False)
"""


def train_elsewhere(clips, recipe, out, k):
    "In a process of its own, which is returned."
    words = clips.root, recipe.features.weights, out, out.parent / 'cache', k
    command = [sys.executable, '-c', ELSEWHERE, *map(str, words)]
    env = os.environ | {'PYTHONPATH': str(ROOT)}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE)


def test_folds_on_workers_and_in_two_processes_give_the_run_of_one_command(
    clips, ears, tmp_path, on_cluster
):
    from joblib import parallel_config

    others = [train_elsewhere(clips, ears, tmp_path / 'shared', k) for k in (1, 0)]
    train(clips, tmp_path / 'cluster', ears)
    for process in others:
        assert process.wait(300) == 0, process.stderr.read().decode()
    with parallel_config('threading'):
        train(clips, tmp_path / 'whole', ears)
    expected = files(tmp_path / 'whole')
    assert 'predictions/oof.npy' in expected
    assert files(tmp_path / 'cluster') == expected
    assert files(tmp_path / 'shared') == expected
    assert not list(tmp_path.glob('.*'))  # no lock is left
    with pytest.raises(RunError, match='fold=2: there is no such fold; give one of 0, 1'):
        train(clips, tmp_path / 'shared', ears, fold=2)


@pytest.mark.slow
@pytest.mark.parametrize('recipe', ['post', 'strong'])
def test_networks_on_workers_are_those_of_one_process(clips, tmp_path, on_cluster, recipe):
    from joblib import parallel_config

    train(clips, tmp_path / 'cluster', recipe, epochs=2)
    with parallel_config('threading'):
        train(clips, tmp_path / 'whole', recipe, epochs=2)
        for k in (1, 0):
            train(clips, tmp_path / 'shared', recipe, epochs=2, fold=k)
        train(clips, tmp_path / 'jobs', recipe, epochs=2, jobs=2)
    expected = files(tmp_path / 'whole')
    assert 'predictions/oof.npy' in expected
    for name in ('cluster', 'shared', 'jobs'):
        assert files(tmp_path / name) == expected


def test_a_whole_run_waits_for_no_fold(clips, tmp_path):
    with fold_lock(tmp_path / 'run', 1):
        with pytest.raises(RunError, match='another process is training fold 1 there'):
            train(clips, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


def test_what_is_left_is_told(tmp_path):
    write_file(tmp_path / 'folds.csv', 'fname,fold\na,0\nb,1\n"c\nd",4\n')
    write_file(tmp_path / 'predictions/predictions_1.csv', '')
    assert folds_left(tmp_path) == [0, 4]


def words(audio, out, **more):
    options = {'timeline': True, 'picture': None, 'raw': None, 'distance': None, 'trust': False}
    options |= {'format': 'text', 'top': 3, 'threshold': None, 'model': 'bundled'}
    return Namespace(audio=[str(audio)], out=str(out), cluster=None, **options | more)


def test_an_archive_is_named_as_file_by_file(clips, tmp_path, on_cluster, capsys):
    call = words(clips.root, tmp_path / 'heard', timeline=False)
    assert tag_archive(call) == 1
    table = pd.read_parquet(tmp_path / 'heard/answers.parquet')
    tagger = Tagger.load('bundled')
    paths = sorted(str(clips.root / path) for path in clips.table.path if 'broken' not in path)
    expected = [
        (path, label, round(p, 6))
        for path, tags in tag_files(tagger, paths)
        for label, p in tags
    ]
    assert list(zip(table.file, table.label, table.probability)) == expected
    skipped = pd.read_csv(tmp_path / 'heard/skipped.csv')
    assert len(skipped) == 1 and 'broken.wav' in skipped.file[0] and skipped.reason[0]
    answers = {p: p.stat().st_mtime_ns for p in (tmp_path / 'heard/recordings').rglob('*.csv')}
    lost = next(iter(answers))
    lost.unlink()
    assert tag_archive(call) == 1
    again = {p: p.stat().st_mtime_ns for p in (tmp_path / 'heard/recordings').rglob('*.csv')}
    assert again.keys() == answers.keys()
    assert [p for p in answers if again[p] != answers[p]] == [lost]
    assert pd.read_parquet(tmp_path / 'heard/answers.parquet').equals(table)
    with pytest.raises(CallError, match=r'holds answers with other settings \(top\)'):
        tag_archive(words(clips.root, tmp_path / 'heard', timeline=False, top=1))


def test_answers_of_files_with_one_name_lie_apart():
    paths = answer_paths([Path('a/1.wav'), Path('b/1.wav'), Path('b/1.mp3')], Path('out'))
    assert [p.as_posix() for p in paths.values()] == [
        'out/recordings/a/1.wav.csv',
        'out/recordings/b/1.wav.csv',
        'out/recordings/b/1.mp3.csv',
    ]


@pytest.mark.parametrize(
    'wrong, message',
    [
        ({'out': ''}, '--out'),
        ({'raw': 8000}, '--raw'),
        ({'distance': True}, '--distance'),
        ({'format': 'csv'}, '--format'),
        ({'audio': '-'}, 'names in place'),
    ],
)
def test_what_an_archive_has_no_use_for(tmp_path, wrong, message):
    options = {'audio': tmp_path, 'out': tmp_path / 'x'} | wrong
    with pytest.raises(CallError, match=message):
        tag_archive(words(**options))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    write_file(tmp_path / 'photos/a.jpg', b'')
    with pytest.raises(CallError, match='holds no answers of ours'):
        tag_archive(words(tmp_path, tmp_path / 'photos'))


def test_no_scheduler_and_no_dask(monkeypatch):
    with pytest.raises(ClusterError, match='no scheduler answers there.*--cluster local'):
        with cluster('tcp://127.0.0.1:9'):
            pass
    monkeypatch.setitem(sys.modules, 'dask.distributed', None)
    with pytest.raises(ClusterError, match=r'pip install "soundtag\[cluster\]"'):
        with cluster('local'):
            pass


def test_without_the_option_dask_is_not_imported():
    code = (
        'import sys; from soundtag.cli import build_parser; build_parser(); '
        'from soundtag.workers import in_parallel; list(in_parallel(abs, [1], prefer="threads")); '
        'print([m for m in sys.modules if m.split(".")[0] in ("dask", "distributed")])'
    )
    env = os.environ | {'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stderr
