"Chapter 03a: copies under other names, recoded and trimmed, on one side of each fold."

import io

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

import soundtag.duplicates
import soundtag.training
from soundtag.audio import wav_bytes
from soundtag.dataset import load_clips, make_folds, mini
from soundtag.duplicates import (
    agree,
    describe_duplicates,
    find_duplicates,
    fingerprint_sound,
    join_groups,
    same_sound,
    squared_distances,
)
from soundtag.files import write_file
from soundtag.recipe import RECIPES
from soundtag.store import prepare_data, store_duplicates


def as_mp3(y, sr, level=0.7):
    file = io.BytesIO()
    options = {'format': 'MP3', 'subtype': 'MPEG_LAYER_III', 'compression_level': level}
    with sf.SoundFile(file, 'w', sr, 1, **options) as f:
        f.write(y)
    return file.getvalue()


@pytest.fixture(scope='module')
def recordings():
    "Ten sounds of the synthetic set, of two labels: (label, samples, rate)."
    clips = mini()
    found = []
    for label in clips.labels[:2]:
        part = clips.train.subset((clips.train.table.label == label).to_numpy())
        found += [(label, *part.load(i)) for i in range(5)]
    return found


def write_copies(root, recordings, change):
    "Each recording under three names, the second and third changed."
    for i, (label, y, sr) in enumerate(recordings):
        write_file(root / label / f'{i}.wav', wav_bytes(y, sr=sr))
        for k in (1, 2):
            name, data = change(y, sr, k)
            write_file(root / label / f'take{7 * i + k}{name}', data)
    return load_clips(root)


CHANGES = {
    'bytes': lambda y, sr, k: ('.wav', wav_bytes(y, sr=sr)),
    'mp3': lambda y, sr, k: ('.mp3', as_mp3(y, sr)),
    'trimmed': lambda y, sr, k: ('.wav', wav_bytes(y[round(0.05 * sr) :], sr=sr)),
    'mp3 and trimmed': lambda y, sr, k: ('.mp3', as_mp3(y[round(0.05 * sr) :], sr, 0.3 * k)),
    'end trimmed, quieter': lambda y, sr, k: ('.wav', wav_bytes(0.3 * y[: -sr // 20], sr=sr)),
}


@pytest.mark.parametrize('change', CHANGES)
def test_three_names_of_a_recording_are_in_one_fold(tmp_path, recordings, change, monkeypatch):
    "As `train_folds` makes them, which is what both the command and Python call."
    clips = write_copies(tmp_path / 'sounds', recordings, CHANGES[change])
    monkeypatch.setattr(soundtag.training, 'run_folds', lambda *args: None)
    monkeypatch.setattr(soundtag.training, 'combine_folds', lambda *args: None)
    with pytest.warns(UserWarning, match='20 clips repeat others .*kept in one fold'):
        out = soundtag.training.train_folds(
            clips, 'post', out=tmp_path / 'run', cache=tmp_path / 'cache', progress=False
        )
    fold = pd.read_csv(out / 'folds.csv', index_col='fname').fold
    assert len(fold) == 30 and fold.nunique() == 5
    for i, (label, *_) in enumerate(recordings):
        names = [n for n in fold.index if n.startswith(f'{label}/{i}.')]
        names += [n for k in (1, 2) for n in fold.index if f'/take{7 * i + k}.' in n]
        assert len(names) == 3 and fold[names].nunique() == 1, (change, names)
    copies = pd.read_csv(out / 'duplicates.csv', index_col='fname')
    assert len(copies) == 20
    assert set(copies.kind) <= ({'file'} if change == 'bytes' else {'file', 'sound'})


def test_without_copies_folds_and_groups_stay(tmp_path, recordings):
    for i, (label, y, sr) in enumerate(recordings):
        write_file(tmp_path / label / f'{i}.wav', wav_bytes(y, sr=sr))
    clips = load_clips(tmp_path)
    found = find_duplicates(clips)
    assert not len(found) and join_groups(clips, found) is clips
    assert describe_duplicates(found, clips, make_folds(clips)) == []


def write_list(root, sounds, columns):
    for name, (y, sr) in sounds.items():
        write_file(root / name, wav_bytes(y, sr=sr))
    table = pd.DataFrame(columns, index=pd.Index(list(sounds), name='fname'))
    table.to_csv(root / 'list.csv')
    return load_clips(root / 'list.csv')


@pytest.fixture
def noises():
    rng = np.random.default_rng(0)
    return [(rng.normal(0, 0.1, 8000).astype('float32'), 8000) for _ in range(6)]


def test_folds_of_the_data_set_win_and_a_line_says_what_they_split(tmp_path, noises):
    a, b, c, d, *_ = noises
    sounds = {'1.wav': a, '2.wav': b, '3.wav': a, '4.wav': c, '5.wav': d, '6.wav': c}
    columns = {'label': ['x', 'y'] * 3, 'fold': [1, 1, 2, 2, 3, 3]}
    clips = write_list(tmp_path, sounds, columns)
    found = find_duplicates(clips)
    assert found.of.to_dict() == {'3.wav': '1.wav', '6.wav': '4.wav'}
    fold = make_folds(join_groups(clips, found))
    assert fold.tolist() == columns['fold']
    (line,) = describe_duplicates(found, clips, fold)
    assert '2 of them lie in another fold' in line and 'too good' in line


def test_one_sound_under_two_labels_is_a_probable_mistake(tmp_path, noises):
    a, b, c, d, e, _ = noises
    sounds = {'1.wav': a, '2.wav': b, '3.wav': a, '4.wav': c, '5.wav': d, '6.wav': e}
    labels = ['dog', 'dog', 'cat', 'cat', 'dog', 'cat']
    clips = write_list(tmp_path, sounds, {'label': labels})
    found = find_duplicates(clips)
    lines = describe_duplicates(found, clips, make_folds(join_groups(clips, found), 2))
    assert len(lines) == 2 and 'probably by mistake (3.wav is cat, 1.wav is dog)' in lines[1]


def test_copies_in_training_and_test_are_told(tmp_path, noises):
    a, b, c, d, e, _ = noises
    sounds = {'1.wav': a, '2.wav': b, '3.wav': c, '4.wav': d, '5.wav': a, '6.wav': e}
    columns = {'label': ['x', 'x', 'y', 'y', 'x', 'y'], 'split': ['train'] * 4 + ['test'] * 2}
    clips = write_list(tmp_path, sounds, columns)
    found = find_duplicates(clips)
    (line,) = describe_duplicates(found, clips, make_folds(join_groups(clips, found), 2))
    assert '1 pair of training and test clip' in line


def test_groups_that_share_a_copy_become_one(tmp_path, noises):
    a, b, c, d, e, f = noises
    sounds = {'1.wav': a, '2.wav': b, '3.wav': a, '4.wav': c, '5.wav': d, '6.wav': e}
    columns = {'label': ['x'] * 4 + ['y'] * 2, 'group': ['p', 'p', 'q', 'q', 'r', 's']}
    clips = write_list(tmp_path, sounds, columns)
    group = join_groups(clips, find_duplicates(clips)).table.group
    assert group.iloc[:4].nunique() == 1 and group.nunique() == 3


def test_another_container_is_the_same_sound(tmp_path, noises):
    y, sr = noises[0]
    for name in ('a/1.wav', 'a/2.flac', 'b/3.wav'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        sf.write(tmp_path / name, y if name[0] == 'a' else noises[1][0], sr)
    found = find_duplicates(load_clips(tmp_path))
    assert found.of.to_dict() == {'a/2.flac': 'a/1.wav'} and found.kind.tolist() == ['sound']


def test_a_thump_or_silence_is_no_evidence():
    t = np.arange(16000) / 16000
    thumps = [(np.exp(-20 * t) * np.sin(2 * np.pi * f * t)).astype('float32') for f in (60, 60.5)]
    assert agree(*thumps, 16000)[0] > 0.99 and not same_sound(*thumps, 16000)
    silence = np.zeros(16000, 'float32')
    assert not same_sound(silence, thumps[0], 16000)
    assert not same_sound(silence, silence[:-100], 16000)
    assert same_sound(silence, silence, 16000)


@pytest.mark.parametrize('n', [0, 1, 2, 50, 799, 800, 2400])
@pytest.mark.parametrize('sr', [8000, 16000, 44100, 22050.0, 8012.5])
def test_sounds_of_any_length_have_a_fingerprint(n, sr):
    y = np.random.default_rng(0).normal(size=n).astype('float32')
    assert fingerprint_sound(y, sr).shape == (9, 32)
    assert agree(y, y[1:], sr)[0] <= 1


def test_work_is_bounded_where_all_sounds_are_alike():
    fingerprints = np.full((3000, 9, 32), 100, 'uint8')
    pairs = soundtag.duplicates.find_candidates(fingerprints, np.full(3000, 5.0))
    assert 0 < len(pairs) <= 8 * 3000


def test_what_was_compared_once_is_not_read_again(tmp_path, recordings, monkeypatch):
    clips = write_copies(tmp_path / 'sounds', recordings[:4], CHANGES['mp3 and trimmed'])
    features = RECIPES['post'].features
    options = {'cache': tmp_path / 'cache', 'progress': False}
    first = store_duplicates(prepare_data(clips, features, **options))
    assert len(first) == 8
    pd.testing.assert_frame_equal(first, find_duplicates(clips))

    def refuse(*args):
        raise AssertionError('was compared before')

    with monkeypatch.context() as patch:
        patch.setattr(soundtag.duplicates, 'same_clip', refuse)
        store = prepare_data(clips, features, **options)
        pd.testing.assert_frame_equal(first, store_duplicates(store))
    for damaged in (b'[1, 2', b'[]', b'\xff', b'5', b'[' * 100_000):
        (store.folder / 'copies.json').write_bytes(damaged)
        pd.testing.assert_frame_equal(first, store_duplicates(store))


def test_of_the_real_clips_none_is_taken_for_another(real_data):
    clips = load_clips(real_data / 'FSDKaggle2018', allow_missing=True)
    assert len(clips) > 250 and not len(find_duplicates(clips))


def test_real_copies_are_found(real_data):
    clips = load_clips(real_data / 'FSDKaggle2018', allow_missing=True)
    found = 0
    for i in range(0, len(clips), 12):
        y, sr = clips.load(i)
        copy, _ = sf.read(io.BytesIO(as_mp3(y[round(0.05 * sr) :], sr)), dtype='float32')
        a, b = (fingerprint_sound(x, sr)[None] / (255 * 2**0.5) for x in (y, copy))
        near = min(squared_distances(a, b)[0, 0], squared_distances(b, a)[0, 0])
        found += near < soundtag.duplicates.RADIUS**2 and same_sound(y, copy, sr)
    assert found >= 0.9 * len(range(0, len(clips), 12))
