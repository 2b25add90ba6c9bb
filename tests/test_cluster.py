"Work on a cluster: the same files as without, whatever dies meanwhile."

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

distributed = pytest.importorskip('distributed')

import dask
import warm
from cluster_work import deadly, slowly
from test_pretrained import WEIGHTS, write_h5

import soundtag.cluster
import soundtag.miniset
import soundtag.store
import soundtag.training
import soundtag.workers
from soundtag.audio import wav_bytes
from soundtag.cli import main
from soundtag.cluster import answer_paths, name_recording, tag_archive
from soundtag.console import CallError
from soundtag.dataset import load_clips
from soundtag.files import write_file
from soundtag.locks import fold_lock, folds_left
from soundtag.mfcc import LogMel
from soundtag.miniset import mini_plan, write_mini
from soundtag.pretrained import Embedding
from soundtag.recipe import LinearRecipe, RunError
from soundtag.results import load_run, write_metrics
from soundtag.store import StoreError, prepare_data
from soundtag.tagging import Tagger, tag_files
from soundtag.training import count_jobs, free_memory, train_folds, watch_folds
from soundtag.workers import (
    ClusterError,
    WorkerDied,
    cluster,
    in_parallel,
    take_result,
    thread_counts,
    use_threads,
)

ROOT = Path(__file__).resolve().parent.parent
FEATURES = LogMel(sr=8000, n_mels=32, n_fft=256, hop_length=100)
SR = 8000


@pytest.fixture(scope='module')
def workers():
    "Two workers, for all tests of this file; they and those that replace them are forked with TensorFlow imported, which takes seconds otherwise."
    lines = []
    method = warm.context.get_start_method()
    forked = dask.config.set({'distributed.worker.multiprocessing-method': method})
    with pytest.MonkeyPatch.context() as patch, forked:
        patch.setattr(distributed.utils, '_forkserver_preload_set', True)  # what `warm` has set
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


def test_a_set_that_is_computed_is_made_by_workers(tmp_path, on_cluster, monkeypatch):
    from joblib import parallel_config

    plan = mini_plan(0)[:3]
    for name in ('here', 'cluster'):
        (tmp_path / name).mkdir()
    with parallel_config('threading'):
        write_mini(tmp_path / 'here', plan, seed=0)
    monkeypatch.setattr(soundtag.miniset, 'mini_clip', None)  # in this process, not in theirs
    write_mini(tmp_path / 'cluster', plan, seed=0)
    made = {p.name: p.read_bytes() for p in (tmp_path / 'cluster').rglob('*.*') if p.is_file()}
    assert len(made) == 5
    assert made == {p.name: p.read_bytes() for p in (tmp_path / 'here').rglob('*.*') if p.is_file()}


def test_a_download_has_no_use_for_a_cluster(capsys):
    assert main(['data', 'esc50', '--cluster', 'local']) == 2
    assert '--cluster is for mini' in capsys.readouterr().err


def test_a_worker_with_other_versions_is_refused_whenever_it_joins(on_cluster, monkeypatch):
    here = soundtag.workers.installed_versions()
    assert 'scikit-learn' in here
    monkeypatch.setattr(soundtag.workers, 'installed_versions', lambda: here | {'numpy': '0.1'})
    with pytest.raises(ClusterError, match='worker tcp.* has numpy .*, here is 0.1; install'):
        list(in_parallel(slowly, range(3)))


def test_threads_of_a_tensorflow_that_runs_cannot_be_changed(monkeypatch):
    import tensorflow as tf

    monkeypatch.setenv('TF_NUM_INTRAOP_THREADS', '')
    monkeypatch.delenv('TF_NUM_INTRAOP_THREADS')
    cores = thread_counts()['tensorflow']
    tf.constant(0.0)  # from now on it has its threads
    with pytest.raises(ClusterError, match=f'wanted {cores + 1}; start the workers anew'):
        with use_threads(cores + 1, 1):
            pass
    assert 'TF_NUM_INTRAOP_THREADS' not in os.environ
    with use_threads(cores, 1):
        assert thread_counts() == {'tensorflow': cores, 'blas': 1}


@pytest.fixture(scope='module')
def ears(tmp_path_factory):
    "The recipe pretrained, with a network of random weights."
    weights = str(write_h5(tmp_path_factory.mktemp('ears') / 'yamnet.h5', WEIGHTS))
    features = Embedding(hop=0.96, shortest=1.1, copies=0, weights=weights)
    return LinearRecipe(name='ears', features=features)


def train(clips, out, recipe='post', folds=2, cache=None, **options):
    cache = cache or out.parent / 'cache'
    return train_folds(clips, recipe, folds, out, cache=cache, progress=False, **options)


def results(out, clips):
    "All numbers of a run, its metrics.json among them, but for how long it took and where."
    write_metrics(load_run(out), clips, cache=out.parent / 'scores')
    metrics = json.loads((out / 'metrics.json').read_text())
    assert metrics['metrics']['accuracy']['folds'] and metrics.pop('seconds')
    return files(out) | {'metrics.json': metrics}


ELSEWHERE = """
import sys
from pathlib import Path
from soundtag.dataset import load_clips
from soundtag.pretrained import Embedding
from soundtag.recipe import LinearRecipe
from soundtag.training import train_folds
folder, weights, out, cache, *ks = sys.argv[1:]
features = Embedding(hop=0.96, shortest=1.1, copies=0, weights=weights)
recipe = LinearRecipe(name='ears', features=features)
for k in ks:
    train_folds(load_clips(folder), recipe, 5, out, fold=int(k), cache=cache, progress=False)
"""


def train_elsewhere(clips, recipe, out, *ks):
    "Some folds in a process of its own, which is returned."
    words = clips.root, recipe.features.weights, out, out.parent / 'cache', *ks
    command = [sys.executable, '-c', ELSEWHERE, *map(str, words)]
    env = os.environ | {'PYTHONPATH': str(ROOT)}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE)


def test_folds_on_workers_and_in_two_processes_give_the_run_of_one_command(
    clips, ears, tmp_path, on_cluster
):
    from joblib import parallel_config

    with parallel_config('threading'):
        train(clips, tmp_path / 'whole', ears, 5)
        expected = results(tmp_path / 'whole', clips)
    others = [train_elsewhere(clips, ears, tmp_path / 'shared', *ks) for ks in ((3, 0), (4, 1, 2))]
    train(clips, tmp_path / 'cluster', ears, 5, cache=tmp_path / 'other')
    for process in others:
        assert process.wait(300) == 0, process.stderr.read().decode()
    assert 'predictions/oof.npy' in expected
    assert files(tmp_path / 'other') == files(tmp_path / 'cache') != {}
    with parallel_config('threading'):
        assert results(tmp_path / 'cluster', clips) == expected
        assert results(tmp_path / 'shared', clips) == expected
    assert not list(tmp_path.glob('.*'))  # no lock is left
    with pytest.raises(RunError, match='fold=5: there is no such fold; give one of 0, 1, 2'):
        train(clips, tmp_path / 'shared', ears, 5, fold=5)


@pytest.mark.slow
@pytest.mark.parametrize('recipe', ['post', 'strong'])
def test_networks_on_workers_are_those_of_this_machine(clips, tmp_path, on_cluster, recipe):
    "Of post those of two processes side by side; of strong those of this process, fold by fold."
    from joblib import parallel_config

    train(clips, tmp_path / 'cluster', recipe, cache=tmp_path / 'other', epochs=2)
    with parallel_config('threading'):
        if recipe == 'post':
            train(clips, tmp_path / 'here', recipe, epochs=2, jobs=2)
        else:
            for k in (1, 0):
                train(clips, tmp_path / 'here', recipe, epochs=2, fold=k)
        assert files(tmp_path / 'other') == files(tmp_path / 'cache') != {}
        expected = results(tmp_path / 'here', clips)
        assert 'predictions/oof.npy' in expected
        assert results(tmp_path / 'cluster', clips) == expected


def test_a_fold_that_is_asked_for_twice_is_trained_once(clips, ears, tmp_path, monkeypatch):
    from joblib import parallel_config

    with parallel_config('threading'):
        train(clips, tmp_path / 'run', ears, fold=1)
    model = tmp_path / 'run/best_1.npz'
    last = tmp_path / 'run/predictions/predictions_1.csv'
    before = model.stat().st_mtime_ns
    last.rename(tmp_path / 'last')  # as while another process is at its end
    waiting = threading.Event()

    def lock(out, k):
        waiting.set()
        return fold_lock(out, k)

    monkeypatch.setattr(soundtag.training, 'fold_lock', lock)
    with ThreadPoolExecutor(1) as pool:
        with fold_lock(tmp_path / 'run', 1):
            second = pool.submit(train, clips, tmp_path / 'run', ears, fold=1)
            assert waiting.wait(60)
            (tmp_path / 'last').rename(last)
        second.result()
    assert model.stat().st_mtime_ns == before
    assert folds_left(tmp_path / 'run') == [0]


def test_a_machine_trains_what_its_memory_holds(tmp_path, monkeypatch):
    from joblib import cpu_count

    write_file(tmp_path / 'meminfo', 'MemFree: 1000 kB\nMemAvailable: 5000000 kB\n')
    assert free_memory(tmp_path, tmp_path) == 5.12e9  # what caches hold is free as well
    assert free_memory(tmp_path / 'none', tmp_path) >= 0  # as elsewhere
    for free, jobs in ((0, 1), (5.12e9, min(2, cpu_count())), (1e15, cpu_count())):
        monkeypatch.setattr(soundtag.training, 'free_memory', lambda: free)
        assert count_jobs() == jobs


def test_a_bar_shows_how_far_the_folds_of_all_workers_are(tmp_path):
    "A fold that is done leaves the tasks; of one that is trained the log says how many epochs."
    sizes = {'steps_per_epoch': 5, 'total_steps': 20}
    tasks = {k: SimpleNamespace(folder=tmp_path / str(k), **sizes) for k in range(3)}
    write_file(tmp_path / '1/round_2/history.csv', 'epoch,loss\n0,0.7\n1,0.6\n')
    shown = threading.Event()
    bar = SimpleNamespace(disable=False, n=0, refresh=shown.set)
    with watch_folds(tasks, bar):
        del tasks[0]
        assert shown.wait(60)
    assert bar.n == 20 + 2 * 5 + 0


@pytest.mark.parametrize(
    'line, files, left',
    [
        ('0::/', {'memory.max': 3e9, 'memory.current': 1e9}, 2e9),
        ('0::/', {'memory.max': 'max', 'memory.current': 1e9}, 5.12e9),
        ('0::/', {'memory.max': 9e9, 'memory.current': 1e9}, 5.12e9),
        ('0::/', {'memory.max': 1e9, 'memory.current': 2e9}, 0),
        (
            '0::/job/step',
            {
                'job/memory.max': 4e9,
                'job/memory.current': 3e9,
                'job/memory.stat': 'anon 1\nactive_file 500000000\ninactive_file 250000000\n',
                'job/step/memory.max': 'max',
                'job/step/memory.current': 1e9,
            },
            1.75e9,
        ),
        (
            '7:cpu:/\n4:hugetlb,memory:/docker/a1',  # as the machine calls it; in the container: /
            {
                'memory/memory.limit_in_bytes': 3e9,
                'memory/memory.usage_in_bytes': 2e9,
                'memory/memory.stat': 'cache 9\ntotal_inactive_file 100000000\n',
            },
            1.1e9,
        ),
        ('nonsense', {'memory.max': 3e9, 'memory.current': 1e9}, 5.12e9),
    ],
)
def test_memory_ends_where_the_limit_of_a_container_is(tmp_path, line, files, left):
    write_file(tmp_path / 'proc/meminfo', 'MemAvailable: 5000000 kB\n')
    write_file(tmp_path / 'proc/self/cgroup', f'{line}\n')
    for name, content in files.items():
        text = content if isinstance(content, str) else str(int(content))
        write_file(tmp_path / 'groups' / name, text)
    assert free_memory(tmp_path / 'proc', tmp_path / 'groups') == left


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
    line = ['tag', clips.root, '--model', 'bundled', '--top', 3, '--out', tmp_path / 'heard']
    assert main([str(w) for w in (*line, '--cluster', on_cluster.scheduler.address)]) == 1
    assert 'workers: 2, with 2 threads; dashboard: http' in capsys.readouterr().err
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
    here = os.path.splitdrive(os.getcwd())[1].lstrip(os.sep)
    assert list(paths.values()) == [
        Path('out/recordings', here, f'{name}.csv') for name in ('a/1.wav', 'b/1.wav', 'b/1.mp3')
    ]


def test_answers_of_one_archive_are_not_given_for_another(tmp_path, capsys):
    t = np.arange(2 * SR) / SR
    for folder, hz in (('a', 300), ('b', 3000)):
        y = 0.2 * np.sin(2 * np.pi * hz * t) * (t % 0.25 < 0.1)
        write_file(tmp_path / folder / '1.wav', wav_bytes(y, sr=SR))
    tables = []
    for folder in ('a', 'b'):
        call = words(tmp_path / folder, tmp_path / 'heard', timeline=False)
        assert tag_archive(call) == 0
        tables.append(pd.read_parquet(tmp_path / 'heard/answers.parquet'))
    a, b = tables
    assert set(b.file) == {str(tmp_path / 'b/1.wav')}
    assert list(a.probability) != list(b.probability)


def hiss(path, seed=0, seconds=2):
    y = 0.1 * np.random.default_rng(seed).standard_normal(seconds * SR)
    return write_file(path, wav_bytes(y, sr=SR))


def answers_of(folder):
    return pd.read_parquet(folder / 'answers.parquet')


def test_a_recording_is_asked_for_again_where_it_is_another(tmp_path, capsys):
    for i in range(3):
        hiss(tmp_path / f'odd/{i}.wav')
    call = words(tmp_path / 'odd', tmp_path / 'heard')
    assert tag_archive(call) == 0
    before = answers_of(tmp_path / 'heard')
    files = sorted((tmp_path / 'heard/recordings').rglob('*.csv'))
    times = [path.stat().st_mtime_ns for path in files]
    hiss(tmp_path / 'odd/1.wav', seconds=5)
    assert tag_archive(call) == 0
    assert [p.stat().st_mtime_ns != t for p, t in zip(files, times)] == [False, True, False]
    after = answers_of(tmp_path / 'heard')
    assert after.groupby('file').offset.max().iloc[1] > 4 and before.offset.max() <= 2
    assert after[~after.file.str.endswith('1.wav')].equals(after[after.offset <= 2])

    asked = tmp_path / 'heard/asked.jsonl'  # as a kill may leave it: with too little
    lines = asked.read_text().splitlines(keepends=True)
    asked.write_text(''.join(line for line in lines if '2.wav' not in line) + '["cut')
    write_file(tmp_path / 'odd/1.wav', b'RIFF')  # no sound any more: its answer goes
    assert tag_archive(call) == 1
    assert files[0].stat().st_mtime_ns == times[0] and files[2].stat().st_mtime_ns != times[2]
    rest = after[~after.file.str.endswith('1.wav')].reset_index(drop=True)
    assert answers_of(tmp_path / 'heard').equals(rest) and not files[1].exists()


def test_a_recording_is_asked_for_once_however_it_is_named(tmp_path, monkeypatch, capsys):
    for i in range(2):
        hiss(tmp_path / f'odd/{i}.wav', seed=i)
    (tmp_path / 'other').mkdir()
    monkeypatch.chdir(tmp_path)
    call = words('odd', 'heard', timeline=False)
    call.audio = ['odd', str(tmp_path / 'odd'), 'odd/../odd/1.wav', 'gone.wav', './gone.wav']
    assert tag_archive(call) == 1
    assert '2 recordings, 1 skipped' in capsys.readouterr().out
    before = answers_of(tmp_path / 'heard')
    paths = [str(tmp_path / f'odd/{i}.wav') for i in range(2)]
    assert list(before.file) == [path for path in paths for _ in range(3)]
    monkeypatch.chdir(tmp_path / 'other')
    hiss(tmp_path / 'odd/1.wav', seed=9)
    call.audio, call.out = ['../odd'], '../heard'
    assert tag_archive(call) == 0
    after = answers_of(tmp_path / 'heard')
    assert list(after.file) == list(before.file)
    assert after[:3].equals(before[:3]) and not after[3:].equals(before[3:])


@pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere names are text')
def test_names_of_any_bytes(tmp_path, capsys):
    odd = [os.fsdecode(name) for name in (b'\xe4r.wav', b'\xf6r.wav')]
    for i, name in enumerate(('a.wav', *odd)):
        hiss(tmp_path / f'odd/{i}.wav', seed=i).rename(tmp_path / 'odd' / name)
    call = words(tmp_path / 'odd', tmp_path / 'heard', timeline=False)
    assert tag_archive(call) == 0
    names = answers_of(tmp_path / 'heard').file.map(os.path.basename)
    assert sorted(set(names)) == ['\\udce4r.wav', '\\udcf6r.wav', 'a.wav']
    answers = [str(path) for path in (tmp_path / 'heard/recordings').rglob('*.csv')]
    assert sum(name in path for path in answers for name in odd) == 2
    write_file(tmp_path / 'odd' / os.fsdecode(b'\xfcr.wav'), b'RIFF')
    assert tag_archive(call) == 1
    assert b'/\xfcr.wav,' in (tmp_path / 'heard/skipped.csv').read_bytes()


def test_a_name_that_leaves_no_room_for_an_answer_is_skipped(tmp_path, capsys):
    long = 251 * 'l' + '.wav'
    for i, name in enumerate(('a.wav', long, 'z.wav')):
        hiss(tmp_path / f'odd/{i}.wav', seed=i).rename(tmp_path / 'odd' / name)
    call = words(tmp_path / 'odd', tmp_path / 'heard', timeline=False)
    assert tag_archive(call) == 1
    names = answers_of(tmp_path / 'heard').file.map(os.path.basename)
    assert sorted(set(names)) == ['a.wav', 'z.wav']
    skipped = pd.read_csv(tmp_path / 'heard/skipped.csv')
    assert list(skipped.file) == [str(tmp_path / 'odd' / long)]
    assert 'its answer cannot be written (File name too long); give' in skipped.reason[0]


def test_a_full_disk_ends_an_archive(tmp_path, monkeypatch, capsys):
    hiss(tmp_path / 'a.wav')

    def full(path, data):
        if Path(path).suffix == '.csv':
            raise OSError(errno.ENOSPC, 'No space left on device', str(path))
        return write_file(path, data)

    monkeypatch.setattr(soundtag.cluster, 'write_file', full)
    line = ['tag', tmp_path / 'a.wav', '--model', 'bundled', '--out', tmp_path / 'heard']
    monkeypatch.setattr(soundtag.cluster, 'cluster', lambda *given: nullcontext())
    assert main([str(w) for w in (*line, '--cluster', 'local')]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and 'a.wav.csv: No space left on device; free space' in err[0]


def test_a_recording_that_the_disk_does_not_give_is_skipped(clips, monkeypatch):
    def fail(*given, **options):
        raise OSError(errno.EIO, 'Input/output error', 'a.wav')

    monkeypatch.setattr(Tagger, 'tag', fail)
    settings = {'model': 'bundled', 'model_hash': '', 'threshold': None, 'timeline': False}
    settings |= {'top': 1, 'columns': ['file', 'label', 'probability']}
    found = name_recording(settings, False, 'a.wav')
    assert found == ('a.wav', None, 'a.wav: Input/output error')


def test_a_worker_that_lives_long_hears_with_the_model_of_today(clips, monkeypatch):
    loaded = []
    load = Tagger.load

    def count(model, **options):
        loaded.append(model)
        return load(model, **options)

    monkeypatch.setattr(Tagger, 'load', count)
    settings = {'model': 'bundled', 'threshold': None, 'timeline': False, 'top': 1}
    settings |= {'columns': ['file', 'label', 'probability']}
    path = str(clips.root / clips.table.path.iloc[0])
    for stamp in ('old', 'old', 'new', 'new'):
        name_recording(settings | {'model_hash': stamp}, False, path)
    assert loaded == ['bundled'] * 2  # at one place, but no longer the same


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


def test_workers_that_are_killed_lose_nothing(clips, tmp_path, on_cluster):
    "Two are killed, one of them while the other's successor starts; others compute what they were at."
    killed = []
    over = threading.Event()

    def running():
        workers = list(on_cluster.cluster.workers.values())
        return [w.process.pid for w in workers if w.process and w.process.pid]

    def kill():
        while len(killed) < 2 and not over.wait(0.3):
            for pid in [pid for pid in running() if pid not in killed][:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    killer = threading.Thread(target=kill)
    killer.start()
    results = list(in_parallel(slowly, range(300)))
    over.set()
    killer.join()
    assert results == [2 * i for i in range(300)]
    assert len(set(killed)) == 2


def test_a_clip_that_kills_workers_is_named(clips, tmp_path, on_cluster, monkeypatch):
    monkeypatch.setattr(soundtag.store, 'compute_clip', deadly)
    monkeypatch.setattr(on_cluster.cluster.scheduler, 'allowed_failures', 0)  # each death takes a new worker
    with pytest.raises(StoreError, match=r'07\.wav: 1 worker died of it.*was computed is kept'):
        prepare(clips, tmp_path)
    monkeypatch.undo()
    assert len(prepare(clips, tmp_path)) == 24  # and the workers go on


def test_by_default_four_workers_must_die(on_cluster):
    from dask.distributed.scheduler import KilledWorker

    allowed = on_cluster.cluster.scheduler.allowed_failures
    died = SimpleNamespace(
        status='error', exception=lambda: KilledWorker('call-1', None, allowed_failures=allowed)
    )
    with pytest.raises(WorkerDied, match=r'4 workers died of 07\.wav') as e:
        take_result(died, '07.wav')
    assert (e.value.item, e.value.deaths) == ('07.wav', 4)


def test_no_scheduler_and_no_dask(monkeypatch):
    import dask.distributed

    brief = partial(dask.distributed.Client, timeout=1)
    monkeypatch.setattr(dask.distributed, 'Client', lambda address, timeout: brief(address))
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
