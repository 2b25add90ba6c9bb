"Training as a user meets it: the same numbers, killed or not; every file; every fault."

import errno
import json
import os
import random
import shutil
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import at_once, small_cnn
from scipy.stats import gmean
from warm import Forked

import soundtag.files as files
import soundtag.fitting as fitting
import soundtag.fold as fold_files
import soundtag.runs as runs
import soundtag.tagging as tagging
import soundtag.training as training
from soundtag.audio import wav_bytes
from soundtag.augmentation import Augment, ClipWindows, Ragged
from soundtag.dataset import DataError, load_clips
from soundtag.fitting import (
    FoldTask,
    build_model,
    fit_fold,
    predict_clips,
    predict_rows,
    relabel,
    training_batches,
)
from soundtag.metrics import geometric_mean, top3_csv
from soundtag.mfcc import LogMel, MFCC
from soundtag.model import conv_norm_relu
from soundtag.recipe import (
    NETWORKS,
    OLD_NAMES,
    RECIPES,
    Recipe,
    RunError,
    TrainingData,
    current_record,
)
from soundtag.tagging import Tagger
from soundtag.training import split_rows, train_folds


def two_layer_cnn(n_labels, *, input_shape):
    "A second convolution, over all bands, or what is learned of labels by lot would not be so different for each clip."
    layers = fitting.keras.layers
    inputs = fitting.keras.Input(input_shape)
    x = conv_norm_relu(inputs, 8, 5, strides=2)
    x = conv_norm_relu(x, 16, (x.shape[1], 1), padding='valid')
    x = layers.GlobalAveragePooling2D()(x)
    return fitting.keras.Model(inputs, layers.Dense(n_labels, activation='softmax')(x))


NETWORKS['two_layer_cnn'] = two_layer_cnn
NETWORKS['small_cnn'] = small_cnn  # chapters 06d, 08, 09a and 11, and test_install.py, train those of the recipes
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
FIXED = replace(
    RECIPES['strong'],
    name='fixed',
    features=LogMel(sr=SR, n_mels=32, n_fft=512, hop_length=125),
    window=0.4,
    extra_windows=(0.3,),
    test_windows=2,
    network='small_cnn',
    batch_size=8,
    epochs=4,
    min_steps=0,
)
LABELS = 'buzz', 'hiss', 'low tone'


def sound(label, i):
    t, rng = np.arange(SR // 2) / SR, np.random.default_rng([LABELS.index(label), i])
    clean = {
        'buzz': np.sign(np.sin(2 * np.pi * (90 + 3 * i) * t)),
        'hiss': rng.standard_normal(len(t)),
        'low tone': np.sin(2 * np.pi * (250 + 9 * i) * t),
    }[label]
    return 0.2 * clean + 0.02 * rng.standard_normal(len(t))


def make_set(folder, per_label=8, test=2):
    "A small data set with test clips, as a CSV; two takes of each recording."
    rows = []
    for label in LABELS:
        for i in range(per_label + test):
            name = f'{label[:3]}{i}.wav'
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(wav_bytes(sound(label, i), sr=SR))
            rows.append((name, label, 'train' if i < per_label else 'test', f'{label}{i // 2}'))
    pd.DataFrame(rows, columns=['file', 'label', 'split', 'group']).to_csv(
        folder / 'clips.csv', index=False
    )
    return folder / 'clips.csv'


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    return tmp_path_factory.mktemp('training')


@pytest.fixture(scope='module')
def clips(home):
    return load_clips(make_set(home / 'set'))


def train(clips, out, folds=2, seed=0, recipe=TINY, **options):
    return train_folds(
        clips, recipe, folds, out, seed, cache=Path(out).parent / 'cache', progress=False, **options
    )


@pytest.fixture(scope='module')
def finished(home, clips):
    "A run that nobody disturbed."
    return train(clips, home / 'finished')


@pytest.fixture(scope='module')
def finished_at_once(home, clips):
    "The same, step by step, which may differ in the last digits."
    with at_once():
        return train(clips, home / 'finished_at_once')


def files_in(out):
    return {p.relative_to(out).as_posix() for p in Path(out).rglob('*') if p.is_file()}


def numbers(out):
    "Every number of a run, byte by byte."
    return {
        name: (Path(out) / name).read_bytes()
        for name in files_in(out)
        if name.endswith(('.npy', '.csv'))
    }


def expected(ks):
    each = {
        f
        for k in ks
        for f in (
            f'best_{k}.keras',
            f'history_{k}.csv',
            f'seconds_{k}.json',
            f'predictions/train_predictions_{k}.npy',
            f'predictions/test_predictions_{k}.npy',
            f'predictions/predictions_{k}.csv',
        )
    }
    return each | {
        'config.json',
        'labels.json',
        'folds.csv',
        'skipped.csv',
        'predictions/oof.npy',
        'predictions/predictions.csv',
    }


def test_a_run_writes_exactly_its_files(finished, home):
    found = files_in(finished)
    assert {f for f in found if not f.startswith('logs/')} == expected(range(2))
    logs = {str(Path(f).parent) for f in found if f.startswith('logs/')}
    assert logs == {f'logs/fold_{k}/{part}' for k in range(2) for part in ('train', 'validation')}
    assert not list(home.glob('.*'))  # no lock is left beside it


def test_files_can_be_read_without_soundtag_and_fit_together(finished, clips):
    labels = json.loads((finished / 'labels.json').read_text('utf-8'))
    folds = pd.read_csv(finished / 'folds.csv')
    oof = np.load(finished / 'predictions/oof.npy', allow_pickle=False)
    assert labels == sorted(LABELS) and list(folds.columns) == ['fname', 'fold']
    assert list(folds.fname) == list(clips.train.table.index)
    assert oof.shape == (len(folds), len(labels)) and oof.dtype == np.float32
    np.testing.assert_allclose(oof.sum(1), 1, atol=1e-5)
    for k in range(2):
        p = np.load(finished / f'predictions/train_predictions_{k}.npy', allow_pickle=False)
        assert p.shape == oof.shape and np.array_equal(p[folds.fold == k], oof[folds.fold == k])
        history = pd.read_csv(finished / f'history_{k}.csv')
        assert (
            list(history) == ['epoch', 'accuracy', 'loss', 'val_accuracy', 'val_loss']
            and len(history) == TINY.epochs
        )
    config = json.loads((finished / 'config.json').read_text('utf-8'))
    assert config['data']['fingerprint'] == clips.fingerprint and config['folds'] == {
        'number': 2,
        'kind': 'auto',
    }
    assert config['recipe']['epoch_from'] == 'test_fold' and 'optimistic' in config['selection']
    assert pd.read_csv(finished / 'skipped.csv').empty


def test_top3_and_the_mean_of_the_folds(finished, clips):
    labels = np.array(json.loads((finished / 'labels.json').read_text('utf-8')))
    p = np.stack(
        [np.load(finished / f'predictions/test_predictions_{k}.npy') for k in range(2)]
    ).astype(float)
    mean = gmean(p)
    np.testing.assert_allclose(geometric_mean(p), mean / mean.sum(1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(mean, np.prod(p, 0) ** (1 / 2), rtol=1e-6)
    for name, q in (('predictions', mean), ('predictions_1', p[1])):
        table = pd.read_csv(finished / f'predictions/{name}.csv')
        assert list(table) == ['fname', 'label'] and list(table.fname) == list(
            clips.test.table.index
        )
        for text, row in zip(table.label, q):
            assert text.split(' ') == [
                l.replace(' ', '_') for l in labels[np.argsort(-row, kind='stable')[:3]]
            ]
    assert top3_csv(['x'], np.array([[0.2, 0.8]]), ['a', 'b']) == 'fname,label\nx,b a\n'


@pytest.fixture(scope='module')
def odd(home):
    "A run on a set with folds of its own, no test clips, and a clip that is text."
    data = make_set(home / 'odd_set')
    (home / 'odd_set/his3.wav').write_text('this is text')
    clips = load_clips(data).train
    table = clips.table.assign(
        fold=pd.Series(np.arange(len(clips)) // 2 % 2 + 4, index=clips.table.index).astype('Int64')
    )
    with at_once():
        return train(replace(clips, table=table), home / 'odd', epochs=1)


def test_without_test_clips_there_is_nothing_to_submit(odd):
    assert np.load(odd / 'predictions/test_predictions_4.npy').shape == (0, 3)
    assert (odd / 'predictions/predictions.csv').read_text() == 'fname,label\n'


def test_own_folds_keep_their_numbers(odd):
    assert files_in(odd) >= expected((4, 5)) and set(pd.read_csv(odd / 'folds.csv').fold) == {4, 5}


def test_one_bad_clip_is_left_out_and_told(odd):
    skipped = pd.read_csv(odd / 'skipped.csv')
    assert (
        list(skipped) == ['fname', 'path', 'reason']
        and list(skipped.fname) == ['his3.wav']
        and 'his3.wav' in skipped.reason[0]
    )
    assert 'his3.wav' not in set(pd.read_csv(odd / 'folds.csv').fname)
    assert len(np.load(odd / 'predictions/oof.npy')) == len(pd.read_csv(odd / 'folds.csv')) == 23


# ── the same numbers ─────────────────────────────────────────────────────────


@at_once()
def test_another_seed_gives_other_numbers(home, clips, finished_at_once):
    other = train(clips, home / 'other_seed', seed=1, fold=0)
    name = 'predictions/train_predictions_0.npy'
    assert numbers(other)[name] != numbers(finished_at_once)[name]


def train_anew(data, out, recipe, context):
    with context():
        train(load_clips(data), out, recipe=recipe)


def start(home, out, recipe=TINY, context=at_once):
    "Train in another process; what it says of a fault lies beside the run."
    args = home / 'set/clips.csv', out, recipe, context
    return Forked(train_anew, *args, stderr=out.with_suffix('.txt'))


def kill_when(process, out, ready, limit=120):
    "SIGKILL as soon as `ready()`; the process must not have ended by itself."
    end = time.monotonic() + limit
    while not ready():
        assert process.poll() is None, out.with_suffix('.txt').read_text()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.join()


def test_killed_at_any_moment_and_started_again(home, finished_at_once):
    out = home / 'killed'
    moments = [
        lambda: (out / '.fold_0/history.csv').exists(),  # in the midst of the first fold
        lambda: (out / 'history_0.csv').exists(),  # while its files are being put in place
        lambda: (out / '.fold_1').exists(),
    ]  # one fold done, one begun
    for ready in moments:
        kill_when(start(home, out), out, ready)
    first = (out / 'best_0.keras').stat().st_mtime_ns
    process = start(home, out)
    assert process.wait(180) == 0, out.with_suffix('.txt').read_text()
    assert (out / 'best_0.keras').stat().st_mtime_ns == first, 'a finished fold was trained again'
    assert numbers(out) == numbers(finished_at_once)
    assert {f for f in files_in(out) if not f.startswith('logs/')} == expected(range(2))
    assert not [p for p in out.rglob('.*')] and not list(home.glob('.killed*'))


@pytest.fixture(scope='module')
def fixed(home, clips):
    return train(clips, home / 'fixed_whole', recipe=FIXED)


def test_a_fixed_schedule_goes_on_in_mid_fold(home, fixed):
    "Killed in its second fold, it begins with the epoch after the last whole one, and ends with the same numbers."
    out, whole = home / 'fixed', fixed
    shutil.copytree(whole, out)
    for path in [*out.rglob('*_1.*'), out / 'predictions/oof.npy']:
        path.unlink()
    kill_when(
        start(home, out, FIXED, nullcontext),
        out,
        lambda: (
            (out / '.fold_1/history.csv').exists()
            and len((out / '.fold_1/history.csv').read_text().splitlines()) > 2
        ),
    )
    done = (out / '.fold_1/last.keras').stat().st_mtime_ns
    process = start(home, out, FIXED, nullcontext)
    while (
        process.poll() is None
        and (out / '.fold_1/last.keras').exists()
        and (out / '.fold_1/last.keras').stat().st_mtime_ns == done
    ):
        assert len((out / '.fold_1/history.csv').read_text().splitlines()) > 1, (
            'the fold was begun anew'
        )
        time.sleep(0.05)
    assert process.wait(180) == 0, out.with_suffix('.txt').read_text()
    assert numbers(out) == numbers(whole) and not [p for p in out.rglob('.*')]
    assert all(len(pd.read_csv(out / f'history_{k}.csv')) == FIXED.epochs for k in range(2))
    config = json.loads((out / 'config.json').read_text('utf-8'))
    assert (
        config['recipe']['augment'] == FIXED.augment.settings
        and 'nothing is picked' in config['selection']
    )


def test_fold_by_fold_is_as_all_at_once(home, clips, finished):
    "A network learns the same whichever fold its process trained before."
    for k in (1, 0):
        train(clips, home / 'by_fold', fold=k)
    assert numbers(home / 'by_fold') == numbers(finished)


def test_windows_in_training_are_windows_in_tagging(fixed, clips):
    "A sound shorter than the window is repeated, as training does; a longer one is heard in windows."
    tagger = Tagger.load(fixed)
    assert tagger.fill == 'repeat' and tagger.labels == sorted(LABELS)
    brief, long = sound('buzz', 0)[: SR // 10], sound('buzz', 0)
    window = round(FIXED.window * SR)
    np.testing.assert_allclose(
        tagger.probabilities(brief, SR),
        tagger.probabilities(np.resize(brief, window), SR),
        atol=1e-6,
    )
    p = np.concatenate([p for p, _ in tagger.predict_windows(long, SR)])
    assert len(p) == 2 and np.allclose(p.mean(0), tagger.probabilities(long, SR))
    assert [label for label, _ in tagger.tag(clips.paths[0], top=3)] and np.isclose(
        tagger.probabilities(clips.paths[0]).sum(), 1, atol=1e-5
    )
    times = json.loads((fixed / 'seconds_0.json').read_text('utf-8'))
    assert times['training'] > 0 and times['cores'] >= 1


@at_once()
def test_what_is_scored_changes_no_weight_of_a_fixed_schedule(tmp_path):
    "Neither the sound nor the labels of the clips held out, nor which clips they are."
    rng = np.random.default_rng(0)
    pictures = [rng.normal(-40, 10, (32, n)).astype('float32') for n in rng.integers(20, 60, 40)]
    targets = np.eye(2, dtype='float32')[np.arange(40) % 2]
    spoiled = pictures[:20] + [p - 30 for p in pictures[20:]]
    weights = []
    for i, (sounds, held) in enumerate(
        [(pictures, np.arange(20, 30)), (spoiled, np.arange(20, 40))]
    ):
        (tmp_path / str(i)).mkdir()
        X = ClipWindows(Ragged.of(sounds), FIXED.frames)
        data = TrainingData(X, targets, unverified=np.arange(10, 40))
        recipe = replace(FIXED, extra_windows=(), epochs=2)
        task = FoldTask(data, recipe, np.arange(20), held, 0, tmp_path / str(i))
        weights.append(fit_fold(task).get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def banded(n, labels=3):
    "Pictures of any length, of which the band that is loud tells the label."
    rng, y = np.random.default_rng(0), np.arange(n) % labels
    sounds = [
        rng.normal(-40, 5, (32, frames)).astype('float32') for frames in rng.integers(20, 60, n)
    ]
    for sound, label in zip(sounds, y):
        sound[10 * label : 10 * label + 10] += 20
    return ClipWindows(Ragged.of(sounds), FIXED.frames), y, rng


def test_wrong_labels_are_found_and_replaced(tmp_path):
    "Three in ten labels are wrong; a short first training sees through most of them and leaves the verified ones alone, and a second one knows better."
    X, y, rng = banded(120)
    wrong, rows = rng.choice(120, 36, replace=False), np.arange(90)
    targets = np.eye(3, dtype='float32')[np.where(np.isin(np.arange(120), wrong), (y + 1) % 3, y)]
    unverified = np.setdiff1d(np.arange(120), wrong[:6])  # these pass for verified
    recipe = replace(FIXED, epochs=16, batch_size=16)
    data = TrainingData(X, targets, unverified)
    learned = relabel(FoldTask(data, recipe, rows, rows[:1], 0, tmp_path)).data.targets
    found = np.flatnonzero((learned != targets).any(axis=1))
    assert set(found) <= set(unverified) & set(rows) and np.isin(found, wrong).mean() > 0.8
    assert np.isin(found, wrong).sum() > 0.8 * np.intersect1d(wrong[6:], rows).size
    assert (learned[found].argmax(1) == y[found]).mean() > 0.8


@at_once()
def test_doubting_can_be_killed_at_any_moment(tmp_path):
    "In each of the three trainings: the same weights."
    X, y, _ = banded(24)
    targets = np.eye(3, dtype='float32')[np.where(np.arange(24) % 2, y, (y + 1) % 3)]
    recipe = replace(FIXED, extra_windows=(), batch_size=16)

    class Kill(fitting.keras.callbacks.Callback):
        begun = 0

        def on_epoch_begin(self, epoch, logs=None):
            self.begun += 1
            if self.begun in (2, 4, 6, 10):
                raise KeyboardInterrupt

    kill, weights = Kill(), []
    data = TrainingData(X, targets, unverified=np.arange(6, 24))
    for name, callbacks in (('whole', []), ('killed', [kill])):
        (tmp_path / name).mkdir()
        task = FoldTask(data, recipe, np.arange(18), np.arange(18, 24), 0, tmp_path / name)
        for _ in range(5):
            try:
                model = fit_fold(task, callbacks=callbacks)
            except KeyboardInterrupt:
                continue
            break
        weights.append(model.get_weights())
    assert kill.begun == 12  # two epochs, two and four, four of them begun twice
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


@at_once()
def test_stopped_between_two_files(home, clips, finished_at_once, monkeypatch):
    "Stop while the files of start, fold and end are written, as a kill between two system calls would; the numbers stay the same, whatever this process trained before."
    whole = files.write_file
    out, written, last = home / 'many_stops', 0, 0

    def dies(path, data):
        nonlocal written
        written += 1
        if written == last:
            raise KeyboardInterrupt
        return whole(path, data)

    for module in (files, runs, fold_files, training):
        monkeypatch.setattr(module, 'write_file', dies)
    for last in (3, 6, 8, 13, 11):  # four files at the start, five a fold, two at the end
        written = 0
        with pytest.raises(KeyboardInterrupt):
            train(clips, out)
    last = 0
    train(clips, out)
    assert numbers(out) == numbers(finished_at_once)


def test_two_at_once(home, clips):
    with training.run_lock(home / 'shared_run'):
        with pytest.raises(RunError, match='another process is training'):
            train(clips, home / 'shared_run')
    assert not (home / 'shared_run').exists() and not list(home.glob('.shared_run*'))


# ── faults ───────────────────────────────────────────────────────────────────


def refused(message, f, *args, **options):
    with pytest.raises((RunError, DataError), match=message) as e:
        f(*args, **options)
    assert '\n' not in str(e.value)


@pytest.fixture
def no_work(monkeypatch):
    "Whatever is refused is refused before features are computed."
    monkeypatch.setattr(
        training, 'prepare_data', lambda *a, **k: pytest.fail('features were computed')
    )


def test_a_folder_of_another_run_says_what_differs(finished, home, clips, no_work):
    refused('seed: 0 there, 1 here', train, clips, finished, seed=1)
    refused('folds number: 2 there, 4 here', train, clips, finished, folds=4)
    refused('recipe epochs: 2 there, 9 here', train, clips, finished, epochs=9)
    refused('data: clips [0-9a-f]+ there, clips [0-9a-f]+ here', train, clips.train, finished)
    (home / 'holiday').mkdir()
    (home / 'holiday/photo.jpg').write_bytes(b'')
    refused('holds no run; name another folder with --out', train, clips, home / 'holiday')
    assert files_in(home / 'holiday') == {'photo.jpg'}


def test_other_versions_are_refused(finished, clips, no_work, monkeypatch):
    here = training.versions()
    monkeypatch.setattr(training, 'versions', lambda: here | {'keras': '9'})
    refused(
        f"begun with other versions .*keras: {here['keras']} there, 9 here", train, clips, finished
    )


def test_bad_calls(home, clips, no_work):
    refused(
        "no recipe is called 'pots'; choose one of post", train, clips, home / 'x', recipe='pots'
    )
    refused('buz.*|training clips', train, clips, home / 'x', folds=1000)
    one = clips.train.table.index[clips.train.table.label == 'buzz'][1:]
    refused('the label buzz', train, clips.subset(~clips.table.index.isin(one)), home / 'x')
    refused(
        '2 labels or more',
        train,
        clips.subset((clips.table.label == 'buzz').to_numpy()),
        home / 'x',
    )
    refused('2 labels or more', train, clips.test, home / 'x')
    refused('epochs=0', train, clips, home / 'x', epochs=0)
    refused('seed=-1', train, clips, home / 'x', seed=-1)
    refused(
        'make more', train, clips, home / 'x', 2, recipe=replace(TINY, epoch_from='validation_fold')
    )
    assert not (home / 'x').exists()


def test_no_clip_left(tmp_path):
    data = make_set(tmp_path / 'set')
    clips = load_clips(data)
    for p in (tmp_path / 'set').glob('*.wav'):
        p.write_text('this is text')
    refused('none of the 30 clips can be used; the first: .*wav', train, clips, tmp_path / 'run')
    with pytest.raises(DataError, match='no clip of the label .* can be used.*wav'):
        load_clips(data)
    assert not (tmp_path / 'run').exists()


@at_once()
def test_a_full_disk_loses_nothing(clips, finished_at_once, home, monkeypatch):
    "Neither at the start nor while the second fold is written."
    whole, out = files.write_file, home / 'full'
    for name in ('config.json', 'train_predictions_1.npy'):

        def full(path, data):
            if Path(path).name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            return whole(path, data)

        for module in (files, training):
            monkeypatch.setattr(module, 'write_file', full)
        refused('the disk is full .*finished folds are kept', train, clips, out)
    monkeypatch.undo()
    first = (out / 'best_0.keras').stat().st_mtime_ns
    train(clips, out)
    assert numbers(out) == numbers(finished_at_once)
    assert first == (out / 'best_0.keras').stat().st_mtime_ns


# ── no leak ──────────────────────────────────────────────────────────────────


def still(X):
    "Pictures of one length, shape (clips, n_coef, frames, 1), as windows that are the whole clip."
    return ClipWindows(Ragged.of(X[..., 0]), X.shape[2])


def test_statistics_know_nothing_of_the_scored_fold():
    X = np.random.default_rng(0).normal(size=(30, 20, 17, 1)).astype('float32')
    train = np.arange(20)

    def inside(X):
        data = TrainingData(still(X), np.zeros((30, 3)))
        task = FoldTask(data, TINY, train, train[:1], 0, 'nowhere')
        return build_model(task).get_layer('standardize').get_weights()

    other, taught = X.copy(), X.copy()
    other[20:] = 1e6
    taught[0] += 1
    for a, b in zip(inside(X), inside(other)):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(inside(X)[0], inside(taught)[0])


def test_labels_drawn_by_lot_give_chance(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(240, 20, 17, 1)).astype('float32')
    y = np.arange(240) % 3
    X[:, :5] += 4 * y[:, None, None, None]  # easy, when the labels are right
    train, held, lot = np.arange(120), np.arange(120, 240), y.copy()
    lot[:120] = rng.permutation(lot[:120])
    right = {}
    for name, labels in (('true', y), ('lot', lot)):
        (tmp_path / name).mkdir()
        data = TrainingData(still(X), np.eye(3, dtype='float32')[labels])
        recipe = replace(TINY, epochs=10)
        model = fit_fold(FoldTask(data, recipe, train, train, 0, tmp_path / name))
        right[name] = (predict_rows(model, X, held, batch_size=64).argmax(1) == y[held]).mean()
    assert right['true'] > 0.9 and abs(right['lot'] - 1 / 3) < 0.2


def test_labels_drawn_by_lot_give_chance_with_augmented_windows(tmp_path):
    "Ten labels, each two loud bands of five: clips of a label tend to get one wrong name all together, so with few labels chance would be a matter of luck."
    rng, y = np.random.default_rng(0), np.arange(400) % 10
    sounds = [
        rng.normal(-40, 5, (32, frames)).astype('float32') for frames in rng.integers(20, 60, 400)
    ]
    for sound, label in zip(sounds, y):
        for band in list(combinations(range(5), 2))[label]:
            sound[6 * band + 1 : 6 * band + 7] += 20  # easy, when the labels are right
    X, train, held, lot = (
        ClipWindows(Ragged.of(sounds), FIXED.frames),
        np.arange(200),
        np.arange(200, 400),
        y.copy(),
    )
    lot[:200] = rng.permutation(lot[:200])
    recipe = replace(FIXED, network='two_layer_cnn')
    right, recipe = {}, replace(recipe, batch_size=16, epochs=10, learning_rate=5e-3)
    for name, labels in (('true', y), ('lot', lot)):
        (tmp_path / name).mkdir()
        data = TrainingData(X, np.eye(10, dtype='float32')[labels])
        model = fit_fold(FoldTask(data, recipe, train, held, 0, tmp_path / name))
        right[name] = (predict_clips(model, X, held, recipe).argmax(1) == y[held]).mean()
    print(right)
    assert right['true'] > 0.9 and abs(right['lot'] - 1 / 10) < 0.1


def test_no_window_of_a_clip_lies_on_both_sides():
    "Every frame and every share of a label that training meets, mixed ones included, is of a clip it may learn from."
    fold = np.arange(60) % 5
    store = Ragged.of(
        [np.full((32, 20 + i), -20 - i / 10, 'float32') for i in range(60)]
    )  # its level tells which clip it is
    for k in range(5):
        train, _, scored = split_rows(fold, k, 'last')
        levels = {float(store.rows[store.start[i], 0]) for i in train}
        for recipe in (replace(FIXED, augment=Augment()), FIXED):
            data = TrainingData(ClipWindows(store, recipe.frames), np.eye(60, dtype='float32'))
            batches = training_batches(FoldTask(data, recipe, train, scored, k, 'nowhere'))
            for epoch in range(3):
                for X, y in (batches.batch(epoch, i) for i in range(len(batches))):
                    assert not y[:, scored].any() and np.allclose(y[:, train].sum(1), 1, atol=1e-5)
                    assert recipe is FIXED or set(np.unique(X)) <= levels


@at_once()
def test_watching_does_not_change_what_is_learned(tmp_path):
    X = np.random.default_rng(0).normal(size=(40, 20, 17, 1)).astype('float32')
    targets = np.eye(2, dtype='float32')[np.arange(40) % 2]
    losses = []
    data = TrainingData(still(X), targets)
    for name, validation in (('a', np.arange(20, 30)), ('b', np.arange(30, 40))):
        (tmp_path / name).mkdir()
        fit_fold(FoldTask(data, TINY, np.arange(20), validation, 0, tmp_path / name))
        losses.append(pd.read_csv(tmp_path / name / 'history.csv'))
    assert losses[0].loss.equals(losses[1].loss) and not losses[0].val_loss.equals(
        losses[1].val_loss
    )


def test_no_other_thread_changes_a_training(tmp_path):
    "Keras draws the seeds of layers from Python's global dice, and Dask's threads throw them, too."
    X = np.random.default_rng(0).normal(size=(24, 20, 17, 1)).astype('float32')
    data = TrainingData(still(X), np.eye(2, dtype='float32')[np.arange(24) % 2])
    over = threading.Event()

    def throw():
        while not over.is_set():
            random.random()
            np.random.rand()

    def learned(name):
        (tmp_path / name).mkdir()
        task = FoldTask(data, TINY, np.arange(16), np.arange(16, 24), 3, tmp_path / name)
        return np.concatenate([np.ravel(w) for w in fit_fold(task).get_weights()])

    with at_once():
        alone = learned('alone')
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)  # or the thread might not come to its turn while it builds
        thread = threading.Thread(target=throw)
        thread.start()
        try:
            disturbed = learned('disturbed')
        finally:
            over.set()
            thread.join()
            sys.setswitchinterval(interval)
    np.testing.assert_array_equal(disturbed, alone)


# ── what earlier versions wrote ──────────────────────────────────────────────

OLD = {new: old for old, new in OLD_NAMES.items()}
OLD_CHOICES = {'test_fold': 'scored', 'validation_fold': 'inner', 'last': 'none'}


def as_before(recipe):
    "The settings of a recipe as version 0.1.0 wrote them."
    settings = json.loads(json.dumps(recipe.settings))
    settings['epoch_from'] = OLD_CHOICES[settings['epoch_from']]
    augment = settings['augment']
    for old, new in (('unmixed', 'solo_share'), ('match', 'match_level')):
        augment[old] = augment.pop(new)
    augment |= {'noise_snr': None, 'masks': 2, 'fill': 'mean'}
    return {OLD.get(name, name): value for name, value in settings.items()} | {'patience': 5}


@pytest.mark.parametrize(
    'recipe',
    [RECIPES['post'], RECIPES['strong'], TINY, FIXED, replace(TINY, epoch_from='validation_fold')],
)
def test_settings_of_earlier_versions_are_those_of_today(recipe):
    before = as_before(recipe)
    assert not set(OLD_NAMES.values()) & set(before)
    assert Recipe.from_settings(before) == Recipe.from_settings(recipe.settings) == recipe
    assert current_record({'runs': [{'recipe': before}]}) == {'runs': [{'recipe': recipe.settings}]}


def test_settings_that_no_recipe_has_any_more_are_refused():
    refused('patience', Recipe.from_settings, as_before(TINY) | {'patience': 9})
    with pytest.raises(ValueError, match='masks=3'):
        Recipe.from_settings(as_before(FIXED) | {'augment': {'masks': 3}})


def test_results_on_record_are_of_the_recipes_of_today():
    results = Path(__file__).parent.parent / 'nbs/results'
    for name in ('esc10', 'fsd10'):
        found = json.loads((results / f'strong_{name}.json').read_text('utf-8'))['recipe']
        assert Recipe.from_settings(found) == RECIPES['strong']


def test_tagging_reads_the_same_old_names():
    assert tagging.OLD_NAMES.items() <= OLD_NAMES.items()


@at_once()
def test_a_run_of_an_earlier_version_is_resumed(home, clips, finished_at_once):
    "Its config.json has the old names; it is this very run, and gets today's names."
    out = home / 'earlier'
    shutil.copytree(finished_at_once, out)
    config = json.loads((out / 'config.json').read_text('utf-8'))
    old = config | {'recipe': as_before(TINY)}
    (out / 'config.json').write_text(json.dumps(old))
    (out / 'predictions/predictions_1.csv').unlink()
    refused('recipe epochs: 2 there, 3 here', train, clips, out, epochs=3)
    train(clips, out)
    assert numbers(out) == numbers(finished_at_once)
    assert json.loads((out / 'config.json').read_text('utf-8')) == config


@pytest.mark.slow
def test_real_recordings(real_data, tmp_path):
    clips = load_clips(real_data / 'FSDKaggle2018', allow_missing=True)
    out = train_folds(
        clips, 'post', 2, tmp_path / 'run', epochs=1, cache=tmp_path / 'cache', progress=False
    )
    assert np.load(out / 'predictions/oof.npy').shape == (301, 10)
    skipped = pd.read_csv(out / 'skipped.csv')
    assert len(skipped) == 9172 + 1600 and skipped.reason.str.contains('listed and not there').all()


def test_without_a_screen_a_line_a_minute_says_how_it_goes(monkeypatch, capsys):
    from tqdm import tqdm

    from soundtag.progress import FoldBar

    clock = [0.0]
    monkeypatch.setattr('soundtag.progress.time.perf_counter', lambda: clock[0])
    logs = {'accuracy': 0.5, 'val_accuracy': 0.25}
    for log in (True, False):
        with tqdm(total=9, disable=True) as bar:
            bar.log = log
            callback = FoldBar(bar, 3)
            callback.set_params({'epochs': 5, 'steps': 1})
            callback.on_train_begin()
            for epoch in range(5):
                clock[0] += 25
                callback.on_epoch_begin(epoch)
                callback.on_epoch_end(epoch, logs)
        lines = capsys.readouterr().out.splitlines()
        assert lines == ['fold 3, epoch 3/5: accuracy 50%, watched 25%'] * log
