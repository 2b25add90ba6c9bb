"Data sets: every layout, every fault, folds under random data, and the real recordings."

import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.model_selection import StratifiedKFold

from soundtag import dataset, miniset
from soundtag.audio import wav_bytes
from soundtag.dataset import Clips, DataError, load_clips, make_folds, mini
from soundtag.miniset import mini_plan, write_mini
from soundtag.studies.study import record_counts
from soundtag.tables import make_table

TRAIN = 'fname,label,manually_verified,freesound_id,license\n' + ''.join(
    f'{k:02}.wav,{"Oboe" if k % 3 else "Flute"},{k % 2},{k},Attribution\n' for k in range(12)
)
IGNORED = ''.join(f'x{k}.wav,None,Ignored,{90 + k},Attribution\n' for k in range(5))
TEST = (
    'fname,label,usage,freesound_id,license\n'
    + IGNORED
    + '20.wav,Oboe,Public,20,Attribution\n21.wav,Flute,Private,21,Attribution\n'
)


def put(folder, names):
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(
            wav_bytes(0.1 * np.sin(0.05 * (k + 1) * np.arange(400)), sr=8000)
        )


def put_fsd(
    root,
    *,
    zenodo_train=True,
    zenodo_test=True,
    meta=True,
    test_name='test_post_competition_scoring_clips.csv',
    train_name='train_post_competition.csv',
):
    put(
        root / ('FSDKaggle2018.audio_train' if zenodo_train else 'audio_train'),
        [f'{k:02}.wav' for k in range(12)],
    )
    put(root / ('FSDKaggle2018.audio_test' if zenodo_test else 'audio_test'), ['20.wav', '21.wav'])
    folder = root / 'FSDKaggle2018.meta' if meta else root
    folder.mkdir(exist_ok=True)
    (folder / train_name).write_text(TRAIN)
    (folder / test_name).write_text(TEST)
    return root


@pytest.mark.parametrize('train, test, meta', list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize(
    'test_name', ['test_post_competition_scoring_clips.csv', 'test_post_competition.csv']
)
@pytest.mark.parametrize('train_name', ['train_post_competition.csv', 'train.csv'])
def test_fsdkaggle2018_in_any_mixture(tmp_path, train, test, meta, test_name, train_name):
    clips = load_clips(
        put_fsd(
            tmp_path,
            zenodo_train=train,
            zenodo_test=test,
            meta=meta,
            test_name=test_name,
            train_name=train_name,
        )
    )
    assert clips.name == 'FSDKaggle2018' and clips.labels == ['Flute', 'Oboe']
    assert len(clips.train) == 12 and list(clips.test.table.index) == [
        '20.wav',
        '21.wav',
    ]  # Ignored ones left out
    assert clips.train.table.verified.sum() == 6 and clips.table.license.eq('Attribution').all()
    assert (
        clips.table.group['03.wav'] == '3'
        and clips.table.seconds.eq(0.05).all()
        and clips.table.fold.isna().all()
    )


def test_the_layout_does_not_change_the_fingerprint(tmp_path):
    a = load_clips(put_fsd(tmp_path / 'a'))
    b = load_clips(
        put_fsd(
            tmp_path / 'b',
            zenodo_train=False,
            zenodo_test=False,
            meta=False,
            test_name='test_post_competition.csv',
            train_name='train.csv',
        )
    )
    assert a.fingerprint == b.fingerprint
    meta = tmp_path / 'b/train.csv'
    meta.write_text(meta.read_text().replace('00.wav,Flute', '00.wav,Oboe'))
    assert load_clips(tmp_path / 'b').fingerprint != a.fingerprint


def test_training_part_alone_of_the_competition(tmp_path):
    put(tmp_path / 'audio_train', [f'{k:02}.wav' for k in range(12)])
    (tmp_path / 'train.csv').write_text(
        '\n'.join(','.join(line.split(',')[:3]) for line in TRAIN.splitlines())
    )
    clips = load_clips(tmp_path)
    assert (
        len(clips.train) == 12
        and not len(clips.test)
        and list(clips.table.group) == list(clips.table.index)
    )


def test_missing_clips_are_counted_apart(tmp_path):
    put_fsd(tmp_path)
    for k in (1, 2, 3, 4):
        (tmp_path / f'FSDKaggle2018.audio_train/{k:02}.wav').unlink()
    (tmp_path / 'FSDKaggle2018.audio_test/20.wav').unlink()
    with pytest.raises(DataError) as e:
        load_clips(tmp_path)
    for words in (
        '4 of the 12 listed training clips',
        '1 of the 2 listed test clips',
        '01.wav',
        'and 2 more',
        '--allow-missing',
    ):
        assert words in str(e.value)
    assert len(load_clips(tmp_path, allow_missing=True)) == 9
    for p in tmp_path.rglob('*.wav'):
        p.unlink()
    with pytest.raises(DataError, match='get the sound files'):
        load_clips(tmp_path, allow_missing=True)


def test_labels_are_those_present(tmp_path):
    put(tmp_path, ['a.wav'])
    (tmp_path / 'list.csv').write_text('file,label\na.wav,dog\nb.wav,cat\n')
    assert load_clips(tmp_path / 'list.csv', allow_missing=True).labels == ['dog']


def test_folders_with_files_of_one_name_and_strange_names(tmp_path):
    put(tmp_path, ['Hund & Katze/1.wav', 'Möwe/1.wav', 'Möwe/ä ö.wav', '.hidden/1.wav'])
    (tmp_path / 'Möwe/notes.txt').write_text('x')
    clips = load_clips(tmp_path)
    assert clips.labels == ['Hund & Katze', 'Möwe'] and sorted(clips.table.index) == [
        'Hund & Katze/1.wav',
        'Möwe/1.wav',
        'Möwe/ä ö.wav',
    ]
    assert clips.name == tmp_path.name and clips.table.seconds.notna().all()


@pytest.mark.parametrize(
    'columns',
    ['fname,label', 'File,Category', ' filename , class ', 'path,tag', 'FILE,LABEL,colour'],
)
def test_lists_by_whatever_names(tmp_path, columns):
    put(tmp_path, ['a.wav', 'sub/b.wav'])
    extra = ',red' if 'colour' in columns else ''
    (tmp_path / 'list.csv').write_text(
        f'{columns}\na.wav,dog{extra}\nsub/b.wav,cat{extra}\n', encoding='utf-8-sig'
    )
    for path in (tmp_path, tmp_path / 'list.csv'):
        clips = load_clips(path)
        assert clips.table.label.to_dict() == {'a.wav': 'dog', 'sub/b.wav': 'cat'}


def test_a_list_with_everything(tmp_path):
    put(tmp_path, ['a.wav', 'b.wav', 'c.wav'])
    (tmp_path / 'list.csv').write_text(
        'file,label,fold,group,split,verified,license\na.wav,dog,3,rex,train,yes,CC0\nb.wav,dog,,rex,train,no,CC0\nc.wav,dog,,,test,1,\n'
    )
    t = load_clips(tmp_path / 'list.csv').table
    assert (
        t.fold.to_list() == [3, pd.NA, pd.NA]
        and t.group.to_list() == ['rex', 'rex', 'c.wav']
        and t.split.to_list() == ['train', 'train', 'test']
    )
    assert t.verified.to_list() == [True, False, True] and t.license.to_list() == ['CC0', 'CC0', '']


FAULTS = {
    'no label column': (b'fname,colour\na.wav,red\n', 'fname, colour'),
    'no file column': (b'name,label\na.wav,dog\n', 'names the file'),
    'not UTF-8': (
        'fname,label\na.wav,Geräusch\n'.encode('latin-1'),
        r'byte 21 is not UTF-8; save the file as UTF-8',
    ),
    'nothing': (b'', 'header'),
    'header alone': (b'fname,label\n', 'no clips'),
    'too many cells': (b'fname,label\na.wav,dog,cat\n', 'comma-separated'),
    'name twice': (b'fname,label\na.wav,dog\n./a.wav,cat\n', r'more than once, with several labels: a.wav'),
    'no label': (b'fname,label\na.wav,\n', 'row 1'),
    'no name': (b'fname,label\n,dog\n', 'row 1'),
    'outside': (b'fname,label\n../a.wav,dog\n', 'outside'),
    'outside by a detour': (b'fname,label\nsub/../../a.wav,dog\n', 'outside'),
    'fold': (b'fname,label,fold\na.wav,dog,first\n', 'whole numbers'),
    'split': (b'fname,label,split\na.wav,dog,recess\n', 'recess'),
    'a comma in a column of a label': (
        b'fname,"Beep, bleep",Dog\na.wav,1,0\n',
        'names a column of a label Beep, bleep, with a comma',
    ),
    'none of the labels': (
        b'fname,Cat,Dog\nb.wav,1,0\na.wav,0,0\n',
        'have 0 in every column of a label \\(row 2\\)',
    ),
    'a blank cell in a column of a label': (
        b'fname,Bark,Meow,Rain\na.wav,1,0,1\nb.wav,0,1,\n',
        'the column Rain of a label has blank cells \\(row 2\\); write 0 or 1 there',
    ),
    'a number in a column of a label': (
        b'fname,Bark,Meow,Rain\na.wav,1,0,1\nb.wav,0,1,2\nc.wav,0,1,0\n',
        'the column Rain says 2 in row 2, and 0 or 1 in most; write 0 or 1 there, or take',
    ),
    'a blank cell in numbered columns': (
        b'fname,label_1,label_2\na.wav,1,0\nb.wav,0,1\nc.wav,1,\n',
        'the column label_2 of a label has blank cells \\(row 3\\)',
    ),
    'a word in numbered columns': (
        b'fname,tag1,tag2,tag3\na.wav,1,0,0\nb.wav,0,yes,0\n',
        'the column tag2 says yes in row 2, and 0 or 1 in most; write 0 or 1 there, or names',
    ),
    **{
        f'a label called {name}': (
            f'fname,Bark,{name},Meow\na.wav,1,0,1\nb.wav,0,1,0\n'.encode(),
            f'the column {name} holds 0 and 1, as Bark, Meow do; rename it, to "{name} sound" if it '
            f'is a label, else {cure}',
        )
        for name, cure in (('Source', 'to group'), ('Length', 'take it out'), ('Event', 'to label'))
    },
    'not there': (b'fname,label\nb.wav,dog\n', '1 of the 1 listed training clips'),
}


@pytest.mark.parametrize('name', FAULTS)
def test_a_faulty_list_is_refused_in_one_line(tmp_path, name):
    text, says = FAULTS[name]
    put(tmp_path, ['a.wav'])
    if name == 'too many cells':
        text += b'b.wav,dog,cat,cow\n'
    (tmp_path / 'list.csv').write_bytes(text)
    with pytest.raises(DataError, match=says) as e:
        load_clips(tmp_path / 'list.csv')
    assert 'list.csv' in str(e.value) and '\n' not in str(e.value) and '; ' in str(e.value)
    if 'column of a label' in says:  # it is a list still, and no folder of sounds
        with pytest.raises(DataError, match=says):
            load_clips(tmp_path)


@pytest.mark.parametrize('name', ['class_{}', 'label{}', 'Tag {}'])
def test_numbered_columns_of_flags_are_a_label_each(tmp_path, name):
    names = [f'{k}.wav' for k in range(3)]
    put(tmp_path, names)
    flags = pd.DataFrame(np.eye(3, dtype=int), columns=[name.format(k) for k in range(3)])
    flags.iloc[0, 1] = 1
    flags.assign(fname=names).to_csv(tmp_path / 'list.csv', index=False)
    first, second, third = flags
    labels = [f'{first},{second}', second, third]
    assert load_clips(tmp_path / 'list.csv').table.label.tolist() == labels


@pytest.mark.parametrize(
    'columns, labels',
    [
        (('Bark,Meow', '1,', ',1', '1,1'), ['Bark', 'Meow', 'Bark,Meow']),  # a 1, or nothing
        (('label_1,label_2', '1,', ',1', '1,'), ['label_1', 'label_2', 'label_1']),
        (('label_1,label_2', 'Bark,', 'Meow,Bark', 'Bark,1'), ['Bark', 'Bark,Meow', '1,Bark']),
        (('label_1,label_2', '0,1', '2,1', '2,0'), ['0,1', '1,2', '0,2']),  # three names
        (('Bark,Meow,fold,split', '1,0,0,train', '0,1,1,train', '1,1,0,train'), None),
        (('Bark,Meow,verified,speaker_id', '1,0,0,1', '0,1,1,0', '1,1,0,1'), None),
        (('Bark,Meow,seconds,hz,take', '1,0,1.0,0,A', '0,1,0.7,8,', '1,1,1,9,1'), None),
        (('Bark,Meow,species,source', '1,0,owl,1', '0,1,cat,0', '1,1,owl,1'), ['owl', 'cat', 'owl']),
        (('Bark,event', '1,0', '0,1', '1,0'), ['0', '1', '0']),
    ],
)
def test_columns_beside_those_of_labels(tmp_path, columns, labels):
    put(tmp_path, ['a.wav', 'b.wav', 'c.wav'])
    names = ('fname', 'a.wav', 'b.wav', 'c.wav')
    lines = [f'{name},{cells}\n' for name, cells in zip(names, columns)]
    (tmp_path / 'list.csv').write_text(''.join(lines))
    found = load_clips(tmp_path / 'list.csv').table.label.tolist()
    assert found == (labels or ['Bark', 'Meow', 'Bark,Meow'])


@pytest.mark.parametrize(
    'make', [lambda p: p / 'nowhere', lambda p: p], ids=['no such folder', 'empty folder']
)
def test_no_data_set(tmp_path, make):
    with pytest.raises(DataError, match='soundtag data|wanted is'):
        load_clips(make(tmp_path))


def test_a_sound_file_is_no_list(tmp_path):
    put(tmp_path, ['a.wav'])
    with pytest.raises(DataError, match='a.wav'):
        load_clips(tmp_path / 'a.wav')


def test_a_bad_clip_has_no_length_and_stops_nothing(tmp_path):
    put(tmp_path, ['dog/1.wav', 'dog/2.wav'])
    (tmp_path / 'dog/3.wav').write_text('not a sound')
    (tmp_path / 'dog/4.wav').write_bytes(b'')
    clips = load_clips(tmp_path)
    assert (
        clips.table.seconds.isna().to_list() == [False, False, True, True]
        and len(clips.fingerprint) == 16
    )


def test_nine_thousand_headers_do_not_take_minutes(tmp_path):
    put(tmp_path, ['audio/0.wav'])
    for k in range(1, 9473):
        os.link(tmp_path / 'audio/0.wav', tmp_path / f'audio/{k}.wav')
    pd.DataFrame({'fname': [f'audio/{k}.wav' for k in range(9473)], 'label': 'dog'}).to_csv(
        tmp_path / 'list.csv', index=False
    )
    began = time.perf_counter()
    assert load_clips(tmp_path / 'list.csv').table.seconds.notna().all()
    assert time.perf_counter() - began < 60


def toy(labels, groups=None, folds=None):
    raw = pd.DataFrame(
        {'fname': [f'{k:03}.wav' for k in range(len(labels))], 'label': list(labels)}
    )
    if groups is not None:
        raw['group'] = [str(g) for g in groups]
    if folds is not None:
        raw['fold'] = folds
    table = make_table(raw, source='toy')
    return Clips(table, sorted(table.label.unique()), Path(), 'toy')


@given(
    st.lists(st.tuples(st.sampled_from('abc'), st.integers(0, 25)), min_size=10, max_size=80),
    st.integers(2, 5),
    st.integers(0, 3),
    st.randoms(),
)
@settings(max_examples=60, deadline=None)
def test_folds_of_any_data(rows, k, seed, random):
    labels, groups = zip(*rows)
    clips = toy(labels, groups)
    order = list(clips.table.index)
    random.shuffle(order)
    for kind in ('grouped', 'stratified'):
        try:
            made = make_folds(clips, k, kind=kind, seed=seed)
        except DataError as e:
            assert re.search('missing from training|dealt', str(e))
            continue
        assert list(made.index) == list(clips.table.index) and set(made) <= set(
            range(k)
        )  # each clip held out once
        assert (made.groupby(clips.table.label).nunique() >= 2).all()  # each label always taught
        if kind == 'grouped':
            assert (made.groupby(clips.table.group).nunique() == 1).all()  # no recording torn apart
        again = make_folds(clips.subset(order), k, kind=kind, seed=seed)
        pd.testing.assert_series_equal(again.sort_index(), made.sort_index())


def test_what_auto_chooses():
    official = toy('abab' * 5, folds=[1, 1, 2, 2] * 5)
    assert set(make_folds(official, 3)) == {1, 2}
    grouped = toy('ab' * 15, groups=[k // 2 for k in range(30)])
    pd.testing.assert_series_equal(make_folds(grouped), make_folds(grouped, kind='grouped'))
    single = toy('ab' * 15)
    pd.testing.assert_series_equal(make_folds(single), make_folds(single, kind='stratified'))
    assert make_folds(single, 2, kind='unshuffled').to_list() == [0] * 15 + [1] * 15


@pytest.mark.parametrize(
    'labels, groups, kind',
    [('a' * 10 + 'b', None, 'auto'), ('a' * 10 + 'bbb', [*range(10), 7, 7, 7], 'grouped')],
)
def test_a_label_that_could_not_be_learned_is_named(labels, groups, kind):
    with pytest.raises(DataError, match='the label b .* add clips'):
        make_folds(toy(labels, groups), kind=kind)


@pytest.mark.parametrize('folds', [1, 0, 50])
def test_impossible_numbers_of_folds(folds):
    with pytest.raises(DataError, match='another number'):
        make_folds(toy('ab' * 10), folds)


@pytest.fixture
def few(monkeypatch):
    "The synthetic set cut down to eight clips."
    plan = mini_plan(0)
    plan = pd.concat(
        [plan[plan.split == 'train'][:6], plan[plan.split == 'test'][:2]], ignore_index=True
    )
    monkeypatch.setattr(dataset, 'mini_plan', lambda seed: plan)
    return plan


def contents(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob('*'))
        if p.is_file()
    }


def test_mini_is_the_same_bytes_in_every_process(tmp_path, few):
    state = np.random.get_state()[1].copy()
    a = mini(tmp_path / 'a')
    np.testing.assert_array_equal(
        np.random.get_state()[1], state
    )  # the global generator is left alone
    names = list(few.fname)
    code = (
        f'import numpy, sys; numpy.random.seed(7)\nfrom pathlib import Path\nfrom soundtag.miniset import mini_plan, write_mini\n'
        f'p = mini_plan(0); b = Path(sys.argv[1]); b.mkdir(); write_mini(b, p[p.fname.isin({names})], seed=0)'
    )
    subprocess.run([sys.executable, '-c', code, tmp_path / 'b'], check=True)
    ours = contents(a.root)
    note = json.loads(ours.pop('mini.json'))
    assert ours == contents(tmp_path / 'b')
    assert 'synthetic' in note['what'] and a.name == 'mini'


def test_mini_is_made_once(tmp_path, few, monkeypatch):
    monkeypatch.setenv('SOUNDTAG_CACHE', str(tmp_path / 'cache'))
    clips = mini()
    times = {p: p.stat().st_mtime_ns for p in clips.paths}
    assert mini().fingerprint == clips.fingerprint and times == {
        p: p.stat().st_mtime_ns for p in clips.paths
    }
    assert clips.root.parent == tmp_path / 'cache' and mini(seed=1).root != clips.root
    clips.paths[0].unlink()
    assert mini().fingerprint == clips.fingerprint and clips.paths[0].exists()  # made again
    with pytest.raises(DataError, match='another seed'):
        mini(clips.root, seed=1)


def test_mini_spares_what_is_there(tmp_path, few):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.txt').write_text('x')
    (tmp_path / 'file').write_text('x')
    (tmp_path / 'empty').mkdir()
    for name in ('mine', 'file'):
        with pytest.raises(DataError, match='something else'):
            mini(tmp_path / name)
    assert (tmp_path / 'mine/thesis.txt').read_text() == 'x'
    assert len(mini(tmp_path / 'empty')) == len(mini(tmp_path / 'new/deep')) == 8


def test_mini_appears_whole_or_not_at_all(tmp_path, few, monkeypatch):
    made = iter(range(4))
    real = miniset.mini_clip

    def dies(*args, **kw):
        next(made)
        return real(*args, **kw)

    monkeypatch.setattr(miniset, 'mini_clip', dies)
    with pytest.raises((StopIteration, RuntimeError)):
        mini(tmp_path / 'set')
    assert not list(tmp_path.iterdir())


def test_two_make_mini_at_once(tmp_path, few):
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(mini(tmp_path / 'set').fingerprint))
        for _ in range(3)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(got) == 3 and len(set(got)) == 1 and [p.name for p in tmp_path.iterdir()] == ['set']


def test_another_seed_is_another_set(tmp_path):
    a, b = mini_plan(0), mini_plan(1)
    assert not set(a.fname) & set(b.fname)
    for seed, plan in ((0, a), (1, b)):
        (tmp_path / str(seed)).mkdir()
        write_mini(tmp_path / str(seed), plan[plan.sounds == 'Hi-hat'][:1], seed=seed)
    assert not set(contents(tmp_path / '0').values()) & {
        v for k, v in contents(tmp_path / '1').items() if k.endswith('.wav')
    }


# The real recordings


def test_fsdkaggle2018_is_incomplete_and_says_so(real_data):
    with pytest.raises(DataError) as e:
        load_clips(real_data / 'FSDKaggle2018')
    assert '9,172 of the 9,473 listed training clips' in str(
        e.value
    ) and '1,600 of the 1,600 listed test clips' in str(e.value)
    assert '00044347.wav' in str(e.value) and '--allow-missing' in str(e.value)


def test_fsd10(real_data):
    clips = load_clips(real_data / 'FSDKaggle2018', allow_missing=True)
    assert (
        len(clips) == 301 and len(clips.labels) == 10 and clips.table.seconds.between(1, 26.4).all()
    )
    names = sorted(clips.table.index)
    made = make_folds(clips)
    for fold, (_, held) in enumerate(
        StratifiedKFold(5, shuffle=True, random_state=0).split(names, clips.table.label[names])
    ):
        assert (made[np.array(names)[held]] == fold).all()


def test_esc10_has_its_official_folds(real_data):
    clips = load_clips(real_data / 'ESC-10')
    raw = pd.read_csv(real_data / 'ESC-10/meta/esc50.csv', index_col='filename')
    made = make_folds(clips)
    assert clips.name == 'ESC-10' and len(clips) == 400 and set(clips.table.license) == {'CC-BY'}
    assert (made == raw.fold[made.index]).all() and (
        made.groupby(clips.table.group).nunique() == 1
    ).all()


@pytest.mark.parametrize(
    'folder, name', [('FSDKaggle2018', 'fsdkaggle2018_counts'), ('ESC-10', 'esc10_counts')]
)
def test_the_recorded_counts_are_those_of_the_data(real_data, root, tmp_path, folder, name):
    told = record_counts(real_data / folder, tmp_path / 'counts.json')
    stored = json.loads((root / f'nbs/results/{name}.json').read_text())
    for part in ('what', 'data', 'counts', 'licenses', 'seconds'):
        assert stored[part] == told[part]
