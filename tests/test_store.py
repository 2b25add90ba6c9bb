"The feature store: killed, shared, changed, damaged, full."

import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from warm import context

import soundtag.store
from soundtag.audio import load_audio, resample, wav_bytes
from soundtag.dataset import Clips
from soundtag.mfcc import MFCC, LogMel
from soundtag.pretrained import embed, open_network, prepare_sound, random_weights
from soundtag.store import StoreError, prepare_data, stat_signature

SR = 8000
FEATURES = MFCC(sr=SR, n_fft=256, hop_length=64, n_mels=20, n_mfcc=8)


def write_wav(path, seed, seconds=0.25):
    path.write_bytes(
        wav_bytes(
            np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * SR)).astype('float32'),
            sr=SR,
        )
    )


def make_clips(folder, n, lengths=(0.1, 0.25, 0.4)):
    folder.mkdir(exist_ok=True)
    names = [f'{i:04}.wav' for i in range(n)]
    for i, name in enumerate(names):
        write_wav(folder / name, i, lengths[i % len(lengths)])
    table = pd.DataFrame(
        {'path': names, 'label': 'noise', 'split': 'train', 'seconds': 1.0},
        index=pd.Index(names, name='fname'),
    )
    return Clips(table, ['noise'], folder, 'few')


def prepare(clips, cache, **options):
    return prepare_data(clips, FEATURES, cache=cache, **dict(progress=False, n_jobs=2) | options)


def content(cache):
    "The bytes of a store."
    return {
        p.name: p.read_bytes()
        for p in Path(cache).rglob('*')
        if p.suffix in ('.dat', '.jsonl', '.json')
    }


def count_computed(monkeypatch):
    "A list that grows by a path for each file whose features are computed."
    seen, compute = [], soundtag.store.compute_clip

    def counting(path, known, **settings):
        result = compute(path, known, **settings)
        if isinstance(result, tuple) and result[2] is not None:
            seen.append(Path(path).name)
        return result

    monkeypatch.setattr(soundtag.store, 'compute_clip', counting)
    return seen


@pytest.fixture
def clips(tmp_path):
    return make_clips(tmp_path / 'clips', 12)


def run_in_child(clips, cache, ready):
    soundtag.store.COMMIT_EVERY = 0
    FEATURES(np.zeros(SR, 'float32'))  # loads the compiled loops, so that kills fall into the work
    ready.set()
    prepare(clips, cache)


def test_killed_twenty_times_it_ends_in_the_same_bytes(tmp_path):
    clips = make_clips(tmp_path / 'clips', 160)
    start = time.monotonic()
    prepare(clips, tmp_path / 'whole')
    took, rng, kills, half_done = time.monotonic() - start, random.Random(0), 0, 0
    while kills < 20:
        ready = context.Event()
        child = context.Process(target=run_in_child, args=(clips, tmp_path / 'broken', ready))
        child.start()
        ready.wait()
        time.sleep(rng.uniform(0, took / 2))
        child.kill()
        child.join()
        kills += child.exitcode == -9
        index = next((tmp_path / 'broken').rglob('index.jsonl'), None)
        done = len(index.read_bytes().splitlines()) if index else 0
        half_done += 0 < done < len(clips)
        if done == len(
            clips
        ):  # too quick: this one is whole; check it, and kill on from the beginning
            prepare(clips, tmp_path / 'broken')
            assert content(tmp_path / 'broken') == content(tmp_path / 'whole')
            shutil.rmtree(tmp_path / 'broken')
    prepare(clips, tmp_path / 'broken')
    assert half_done, 'no kill fell into the work'
    assert content(tmp_path / 'broken') == content(tmp_path / 'whole')


def test_two_processes_at_once(tmp_path, clips):
    events = [context.Event() for _ in range(2)]
    children = [
        context.Process(target=run_in_child, args=(clips, tmp_path / 'both', e)) for e in events
    ]
    for c in children:
        c.start()
    for c in children:
        c.join()
    assert [c.exitcode for c in children] == [0, 0]
    prepare(clips, tmp_path / 'one')
    assert content(tmp_path / 'both') == content(tmp_path / 'one')


def test_whole_clips_are_ragged(tmp_path, clips):
    store = prepare(clips, tmp_path)
    assert len(store) == 12 and len(store.skipped) == 0
    for i, path in enumerate(clips.paths):
        y, _ = load_audio(path)
        np.testing.assert_array_equal(store.get(i), FEATURES(y))
        part = store.crop(i, 3, 5)
        np.testing.assert_array_equal(part, FEATURES(y)[:, 3:8])
        assert np.shares_memory(part, store.rows) and part.T.flags.c_contiguous
    with pytest.raises(ValueError, match='3 lengths'):
        store.array()
    with pytest.raises(IndexError, match='0000.wav'):
        store.crop(0, 10, 90)


def test_cut_to_seconds_it_is_one_array_without_a_copy(tmp_path, clips):
    store = prepare(clips, tmp_path, seconds=0.25)
    X = store.array()
    assert X.shape == (12, 8, FEATURES.frames(2000), 1) and X.dtype == 'float32'
    assert np.shares_memory(X, store.rows)
    np.testing.assert_array_equal(X[3, ..., 0], store.get(3))
    again = prepare(clips, tmp_path / 'again', seconds=0.25).array()
    other = prepare(clips, tmp_path, seconds=0.25, seed=1).array()
    np.testing.assert_array_equal(X, again)
    assert not np.array_equal(X, other)


def test_a_changed_file_is_computed_alone(tmp_path, clips, monkeypatch):
    prepare(clips, tmp_path / 'store')
    computed = count_computed(monkeypatch)
    prepare(clips, tmp_path / 'store')
    assert computed == []
    path = clips.paths[5]
    size, times = path.stat().st_size, (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    write_wav(path, seed=99, seconds=0.4)
    os.utime(path, ns=times)  # same size, same time of modification
    assert path.stat().st_size == size
    store = prepare(clips, tmp_path / 'store')
    assert computed == ['0005.wav']
    np.testing.assert_array_equal(store.get(5), FEATURES(load_audio(path)[0]))
    fresh = prepare(clips, tmp_path / 'fresh')
    for i in range(12):
        np.testing.assert_array_equal(store.get(i), fresh.get(i))


def test_a_touched_file_is_read_but_not_computed(tmp_path, clips, monkeypatch):
    prepare(clips, tmp_path / 'store')
    before = content(tmp_path / 'store')['features.dat']
    computed = count_computed(monkeypatch)
    os.utime(clips.paths[2])
    prepare(clips, tmp_path / 'store')
    assert computed == []
    assert content(tmp_path / 'store')['features.dat'] == before
    os.utime(clips.paths[2], ns=(0, 0))
    shutil.copy(clips.paths[2], clips.paths[2].with_suffix('.tmp'))
    os.replace(
        clips.paths[2].with_suffix('.tmp'), clips.paths[2]
    )  # another file with the same content
    prepare(clips, tmp_path / 'store')
    assert computed == []


def test_another_setting_is_another_store(tmp_path, clips):
    folders = set()
    for options in (dict(), dict(seconds=0.2), dict(seconds=0.2, seed=3)):
        folders.add(prepare(clips, tmp_path, **options).folder)
    for f in (
        LogMel(sr=SR, n_mels=20),
        LogMel(sr=SR, n_mels=20, hop_length=256),
        LogMel(sr=2 * SR, n_mels=20),
    ):
        store = prepare_data(clips, f, cache=tmp_path, progress=False)
        folders.add(store.folder)
        assert store.get(0).shape == (20, f.frames(800 if f.sr == SR else 1600))
        assert json.loads((store.folder / 'settings.json').read_text())['features'] == f.settings
    assert len(folders) == 6


@pytest.mark.parametrize('damage', [b'', b'["00', b'{"no": "list"}\n', b'5\n', b'\xff\xfe\n'])
def test_a_damaged_index_is_mended(tmp_path, clips, damage):
    folder = prepare(clips, tmp_path / 'store').folder
    whole = content(tmp_path / 'store')
    index = folder / 'index.jsonl'
    index.write_bytes(b''.join(index.read_bytes().splitlines(keepends=True)[:7]) + damage)
    prepare(clips, tmp_path / 'store')
    assert content(tmp_path / 'store') == whole


def test_lost_data_is_computed_again(tmp_path, clips):
    folder = prepare(clips, tmp_path / 'store').folder
    whole = content(tmp_path / 'store')
    os.truncate(folder / 'features.dat', len(whole['features.dat']) // 2 + 3)
    prepare(clips, tmp_path / 'store')
    assert content(tmp_path / 'store') == whole


def test_bad_clips_are_skipped_with_a_reason(tmp_path, clips):
    clips.paths[1].write_bytes(b'')
    clips.paths[4].write_text('not a sound')
    clips.paths[7].unlink()
    for _ in range(2):  # the second time, the good ones come from the store
        store = prepare(clips, tmp_path / 'store')
        assert store.skipped.fname.tolist() == ['0001.wav', '0004.wav', '0007.wav']
        assert all('wav' in reason for reason in store.skipped.reason)
        assert len(store) == 9 and store.clips.table.index.tolist() == [
            n for n in clips.table.index if n not in set(store.skipped.fname)
        ]
    write_wav(clips.paths[1], 1)
    assert len(prepare(clips, tmp_path / 'store')) == 10


def test_nothing_readable_at_all(tmp_path, clips):
    for p in clips.paths:
        p.write_bytes(b'')
    store = prepare(clips, tmp_path / 'store')
    assert len(store) == 0 and len(store.skipped) == 12
    with pytest.raises(ValueError, match='0 clips'):
        store.array()


def test_same_sound_under_two_names_is_stored_once(tmp_path, clips):
    shutil.copy(clips.paths[0], clips.paths[9])
    store = prepare(clips, tmp_path, seconds=0.25)
    assert store.start[0] == store.start[9] and len(store.rows) == 11 * store.frames[0]
    np.testing.assert_array_equal(store.array()[9], store.array()[0])


def test_processes_give_the_same_as_threads(tmp_path, clips):
    prepare(clips, tmp_path / 'threads')
    with parallel_config(backend='loky'):
        prepare(clips, tmp_path / 'processes')
    assert content(tmp_path / 'threads') == content(tmp_path / 'processes')


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path, clips):
    script = textwrap.dedent('''
        import pickle, resource, sys
        from soundtag.mfcc import StoreError, prepare_data
        clips, features, cache = pickle.load(sys.stdin.buffer)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))     # no file may grow beyond: what a full disk looks like
        try: prepare_data(clips, features, cache=cache, n_jobs=1, progress=False)
        except StoreError as e: print(e)
    ''')
    import pickle

    done = subprocess.run(
        [sys.executable, '-c', script],
        input=pickle.dumps((clips, FEATURES, tmp_path / 'store')),
        capture_output=True,
    )
    result = done.stdout.decode()
    assert (
        done.returncode == 0
        and result.count('\n') == 1
        and 'cannot be written' in result
        and 'kept' in result
    ), done.stderr.decode()
    lines = next((tmp_path / 'store').rglob('index.jsonl')).read_text().splitlines()
    assert 0 < len(lines) < len(clips)
    prepare(clips, tmp_path / 'store')
    prepare(clips, tmp_path / 'whole')
    assert content(tmp_path / 'store') == content(tmp_path / 'whole')


def deadly(path, known, **settings):
    if path.endswith('0009.wav'):
        os.kill(os.getpid(), 9)
    return COMPUTE(path, known, **settings)


COMPUTE = soundtag.store.compute_clip


def test_a_killed_worker_is_one_clear_error(tmp_path, clips, monkeypatch):
    monkeypatch.setattr(soundtag.store, 'compute_clip', deadly)
    with (
        parallel_config(backend='loky'),
        pytest.raises(StoreError, match='worker process was killed.*n_jobs=1'),
    ):
        prepare(clips, tmp_path / 'store')
    monkeypatch.undo()
    assert len(prepare(clips, tmp_path / 'store')) == 12


def test_a_cache_that_cannot_be_made(tmp_path, clips):
    (tmp_path / 'file').write_text('')
    with pytest.raises(StoreError, match='cannot be written'):
        prepare(clips, tmp_path / 'file')


def test_signature_tells_one_state_of_a_file(tmp_path):
    path = tmp_path / 'a'
    path.write_text('one')
    first = stat_signature(path)
    assert stat_signature(path) == first
    time.sleep(0.02)
    path.write_text('two')
    assert stat_signature(path) != first


def recomputed(clips, cache, monkeypatch):
    "A store opened again: what it holds, which clips were computed, and what was said."
    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        computed = count_computed(patch)
        store = prepare(clips, cache, n_jobs=1)
    return [np.array(store.get(i)) for i in range(len(store))], computed, [
        str(w.message) for w in caught
    ]


def test_a_thousand_flipped_bits_are_all_noticed(tmp_path, clips):
    folder = prepare(clips, tmp_path / 'store').folder
    names = [s[0] for s in clips.sections]
    size = soundtag.store.bytes_per_row(FEATURES)
    files = {p: p.read_bytes() for p in (folder / 'features.dat', folder / 'index.jsonl')}
    rng = random.Random(0)
    noticed = 0
    for _ in range(1000):
        path = rng.choice(list(files))
        spoilt = bytearray(files[path])
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        path.write_bytes(spoilt)
        index, damaged = soundtag.store.checked_index(folder, size, names)
        assert len(index.by_path) < len(clips)
        noticed += len(damaged) + index.damaged > 0
        path.write_bytes(files[path])
    index, damaged = soundtag.store.checked_index(folder, size, names)
    assert not damaged and not index.damaged and len(index.by_path) == len(clips)
    assert noticed > 990  # a line without its end looks like a killed writer's, and counts no more


def flip(path, where):
    spoilt = bytearray(path.read_bytes())
    spoilt[where] ^= 16
    path.write_bytes(spoilt)


def swap_clips(path):
    rows = bytearray(path.read_bytes())
    rows[:320], rows[640:960] = rows[640:960], rows[:320]
    path.write_bytes(rows)


def swap_places(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0][3:5], lines[1][3:5] = lines[1][3:5], lines[0][3:5]
    path.write_text(''.join(json.dumps(line) + '\n' for line in lines))


DAMAGE = {
    'a bit of one clip': ('features.dat', lambda p: flip(p, 100)),
    'zeros': ('features.dat', lambda p: p.write_bytes(bytes(p.stat().st_size))),
    'ones': ('features.dat', lambda p: p.write_bytes(b'\xff' * p.stat().st_size)),
    'two clips in each other\'s place': ('features.dat', swap_clips),
    'half of it': ('features.dat', lambda p: os.truncate(p, p.stat().st_size // 2)),
    'none of it': ('features.dat', lambda p: os.truncate(p, 0)),
    'no file': ('features.dat', Path.unlink),
    'places of two clips': ('index.jsonl', swap_places),
    'a bit of a line': ('index.jsonl', lambda p: flip(p, 100)),
    'zeros for lines': ('index.jsonl', lambda p: p.write_bytes(bytes(99) + b'\n')),
    'too deep': ('index.jsonl', lambda p: p.write_bytes(b'[' * 100_000 + b'\n')),
}


@pytest.mark.parametrize('what', DAMAGE)
def test_what_is_damaged_is_computed_again_with_a_line(tmp_path, clips, monkeypatch, what):
    file, spoil = DAMAGE[what]
    folder = prepare(clips, tmp_path / 'store').folder
    right, computed, said = recomputed(clips, tmp_path / 'store', monkeypatch)
    assert not computed and not said
    spoil(folder / file)
    rows, computed, said = recomputed(clips, tmp_path / 'store', monkeypatch)
    assert computed
    for a, b in zip(rows, right, strict=True):
        np.testing.assert_array_equal(a, b)
    if what not in ('no file', 'none of it'):
        assert len(said) == 1 and str(folder) in said[0] and 'computed again' in said[0]
    if what.startswith('a bit'):
        assert len(computed) == 1  # the others were sound
    rows, computed, said = recomputed(clips, tmp_path / 'store', monkeypatch)
    assert not computed and not said  # it is mended, and nothing is said twice
    for a, b in zip(rows, right, strict=True):
        np.testing.assert_array_equal(a, b)


def test_damage_of_a_clip_whose_file_was_touched(tmp_path, clips, monkeypatch):
    folder = prepare(clips, tmp_path / 'store').folder
    right, _, _ = recomputed(clips, tmp_path / 'store', monkeypatch)
    flip(folder / 'features.dat', 8)
    os.utime(clips.paths[0])  # it is read again, and known
    rows, computed, _ = recomputed(clips, tmp_path / 'store', monkeypatch)
    assert computed == ['0000.wav']
    np.testing.assert_array_equal(rows[0], right[0])


def test_half_a_row_that_a_kill_left_behind(tmp_path, clips, monkeypatch):
    folder = prepare(clips, tmp_path / 'store').folder
    right, _, _ = recomputed(clips, tmp_path / 'store', monkeypatch)
    with open(folder / 'features.dat', 'ab') as file:
        file.write(b'odd')
    rows, computed, said = recomputed(clips, tmp_path / 'store', monkeypatch)
    assert not computed and not said
    for a, b in zip(rows, right, strict=True):
        np.testing.assert_array_equal(a, b)


def test_settings_that_were_spoilt_are_written_again(tmp_path, clips):
    folder = prepare(clips, tmp_path / 'store').folder
    right = (folder / 'settings.json').read_text()
    (folder / 'settings.json').write_text('{"layout": 0}')
    prepare(clips, tmp_path / 'store')
    assert (folder / 'settings.json').read_text() == right


def test_another_version_is_another_store_and_says_so_once(tmp_path, clips, monkeypatch):
    first = prepare(clips, tmp_path / 'store').folder
    monkeypatch.setattr(soundtag.store, 'FEATURES_VERSION', 99)
    _, computed, said = recomputed(clips, tmp_path / 'store', monkeypatch)
    assert len(computed) == 12
    assert len(said) == 1 and str(first) in said[0] and 'features 1 there, 99 here' in said[0]
    _, computed, said = recomputed(clips, tmp_path / 'store', monkeypatch)
    assert not computed and not said
    real = soundtag.store.version
    newer = {'soxr': '77.1.2', 'numpy': real('numpy') + '.post1'}
    monkeypatch.setattr(soundtag.store, 'version', lambda name: newer.get(name) or real(name))
    _, computed, said = recomputed(clips, tmp_path / 'store', monkeypatch)
    assert len(computed) == 12 and 'soxr' in said[0] and 'numpy' not in said[0]
    newer['soxr'] = '77.1.3'  # a repair
    _, computed, said = recomputed(clips, tmp_path / 'store', monkeypatch)
    assert not computed and not said


def test_a_store_from_before_checksums_is_computed_anew(tmp_path, clips, monkeypatch):
    old = tmp_path / 'store/few-0123456789ab'
    old.mkdir(parents=True)
    settings = {'features': FEATURES.settings, 'layout': 1, 'seconds': None, 'seed': 0}
    (old / 'settings.json').write_text(json.dumps(settings))
    other = tmp_path / 'store/few-ba9876543210'
    other.mkdir()
    (other / 'settings.json').write_text(json.dumps(settings | {'seed': 1}))
    _, computed, said = recomputed(clips, tmp_path / 'store', monkeypatch)
    assert len(computed) == 12
    assert len(said) == 1 and str(old) in said[0] and 'is of an earlier version' in said[0]


ON_PAPER = {
    'MFCC': [-9.5996, 43.5672, 3.6936, -4.7436],
    'LogMel': [-10.7039, 9.0036, -4.5214, -10.4783],
    'Embedding': [0.5262, 0.8116, 0.1829, -0.8892],
}  # Mean, standard deviation, and two of the numbers


def test_features_of_one_sound_on_paper():
    "Where these move, count soundtag.store.FEATURES_VERSION up, and write the new ones here."
    assert soundtag.store.FEATURES_VERSION == 1
    y = np.random.default_rng(0).normal(0, 0.1, 44100) * np.linspace(0, 1, 44100)
    y = resample(y.astype('float32'), orig_sr=22050, target_sr=16000)
    network = open_network(random_weights(0), threads=1)
    found = {
        'MFCC': MFCC(sr=16000, n_mfcc=13)(y),
        'LogMel': LogMel(sr=16000, n_mels=64)(y),
        'Embedding': embed(network, prepare_sound(y), 48),
    }
    for name, x in found.items():
        x = x.astype(float)
        numbers = [x.mean(), x.std(), x.flat[100], x.flat[-30]]
        np.testing.assert_allclose(numbers, ON_PAPER[name], rtol=1e-4, atol=1e-3, err_msg=name)


def test_a_skipped_clip_is_announced_when_it_is_found(tmp_path, clips, monkeypatch, capsys):
    clips.paths[1].write_bytes(b'')
    nasty = clips.paths[1].rename(clips.paths[1].with_name('a\x1b[31m\n.wav'))
    clips.table.loc['0001.wav', 'path'] = nasty.name
    said_by = {}
    compute = soundtag.store.compute_clip

    def noting(path, known, **settings):
        said_by[Path(path).name] = capsys.readouterr().err
        return compute(path, known, **settings)

    monkeypatch.setattr(soundtag.store, 'compute_clip', noting)
    monkeypatch.setattr(soundtag.store, 'ANNOUNCED', 1)
    clips.paths[10].unlink()
    prepare(clips, tmp_path / 'store', n_jobs=1, progress=True)
    said = ''.join(said_by.values()) + capsys.readouterr().err
    lines = [line for line in said.replace('\r', '\n').split('\n') if 'skipped' in line]
    assert lines[0].startswith('skipped: ') and 'a\\x1b[31m\\n.wav: is empty' in lines[0]
    assert lines[1:] == ['more clips are skipped; all are listed in the end']
    assert 'skipped' in said_by['0008.wav']  # before the last clips were read
    prepare(clips, tmp_path / 'store', n_jobs=1)
    assert 'skipped' not in capsys.readouterr().err
