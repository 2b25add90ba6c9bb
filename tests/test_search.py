"Search by example, its answers, and one more label: what is found, what is kept, and the commands' words."

import io
import json
import math
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import soundtag
from soundtag.answerpage import earlier_rows
from soundtag.approximate import open_faiss_index
from soundtag.audio import wav_bytes
from soundtag.cli import main
from soundtag.corrections import correct_clips
from soundtag.dataset import load_clips, mini
from soundtag.files import write_file
from soundtag.neighbours import SearchIndex
from soundtag.pretrained import Embedding, WeightsError, download_weights
from soundtag.recipe import RECIPES, Recipe
from soundtag.results import load_run, run_clips
from soundtag.search import find_windows, pick_windows, read_answers, search
from soundtag.tables import DataError
from soundtag.training import train_folds

LABELS = 'Applause', 'Cello', 'Hi-hat'


@pytest.fixture(scope='module')
def weights():
    try:
        return download_weights()
    except WeightsError:
        pytest.skip('YAMNet cannot be fetched here')


@pytest.fixture(scope='module')
def sounds(tmp_path_factory, weights):
    "A folder with four clips each of three labels, and a store of its own."
    folder = tmp_path_factory.mktemp('search')
    clips = mini()
    for label in LABELS:
        for i in np.flatnonzero(clips.table.label == label)[:4]:
            y, _ = clips.load(i, sr=16000)
            write_file(folder / f'nights/{label}/{i}.wav', wav_bytes(y, sr=16000))
    return folder


@pytest.fixture
def here(sounds, weights, monkeypatch):
    monkeypatch.chdir(sounds)
    monkeypatch.setenv('SOUNDTAG_CACHE', str(sounds / 'cache'))
    yamnet = sounds / 'cache/yamnet'
    if not yamnet.exists():
        yamnet.parent.mkdir(exist_ok=True)
        yamnet.symlink_to(weights.parent)
    return sounds


def command(*words):
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(['search', *map(str, words)])
    return code, out.getvalue(), err.getvalue()


# What is an answer


def test_examples_find_their_kind(here):
    first, second, *others = sorted(Path('nights').glob('Cello/*'))
    found = search([first, second], 'nights', top=12, progress=False)
    assert not set(found.file) & {str(p.absolute()) for p in (first, second)}
    assert {Path(f).name for f in found.file[: len(others)]} == {p.name for p in others}
    assert (np.diff(found.similarity) <= 0).all() and (found.end > found.start).all()
    away = search([first, second], 'nights', unlike=others, top=40, progress=False)
    assert not set(away.file) & {str(p.absolute()) for p in others}
    samples, _ = soundtag.load_audio(first, sr=16000)
    same = soundtag.search(samples, 'nights', sr=16000, top=1, progress=False)
    assert same.file[0] == str(first.absolute())  # an array is no file that could be left out


def test_windows_that_overlap_are_one_answer(here):
    index = SearchIndex.open('nights', progress=False)
    windows = [np.arange(len(index))]
    chosen = pick_windows(index, windows, len(index))
    places = index.places(chosen)
    for _, part in places.groupby('file'):
        starts = np.sort(part.start)
        ends = np.sort(part.end)
        assert (starts[1:] >= ends[:-1]).all()
    hidden = [(places.file[0], 0.0, np.inf)]
    left = index.places(pick_windows(index, windows, len(index), hidden))
    assert set(left.file) == set(places.file) - {places.file[0]}


def test_an_index_grows_and_forgets(here, tmp_path):
    y = np.random.default_rng(0).normal(0, 0.1, 16000 * 5).astype('float32')
    write_file(tmp_path / 'n/a.wav', wav_bytes(y, sr=16000))
    options = {'cache': tmp_path / 'cache', 'progress': False}
    one = SearchIndex.open(tmp_path / 'n', **options)
    write_file(tmp_path / 'n/b.wav', wav_bytes(y[::-1], sr=16000))
    (tmp_path / 'n/c.wav').write_text('no sound')
    two = SearchIndex.open(tmp_path / 'n', **options)
    assert (len(one), len(two)) == (3, 6) and list(two.skipped.fname) == [str(tmp_path / 'n/c.wav')]
    (tmp_path / 'n/c.wav').unlink()
    (tmp_path / 'n/a.wav').unlink()
    left = SearchIndex.open(tmp_path / 'n', **options)
    np.testing.assert_array_equal(left.vectors, two.vectors[3:])


# Approximately


def test_an_approximate_search_says_what_an_exact_one_says(here, tmp_path, monkeypatch):
    for label in LABELS:
        shutil.copytree(f'nights/{label}', tmp_path / f'n/{label}')
    examples = sorted(Path('nights').glob('Cello/*'))[:2]
    exact = search(examples, tmp_path / 'n', top=5, progress=False)
    index = SearchIndex.open(tmp_path / 'n', progress=False)
    assert not index.path.with_suffix('.faiss').exists()  # few windows
    for wanted in (True, None):  # asked for, and of itself where windows are many
        some = search(examples, index, top=5, approximate=wanted)
        assert some.iloc[:, :3].equals(exact.iloc[:, :3]), wanted
        np.testing.assert_allclose(some.similarity, exact.similarity, rtol=1e-5)
        monkeypatch.setattr('soundtag.approximate.MANY', len(index) - 1)
        if wanted:
            index.path.with_suffix('.faiss').unlink()
    assert index.path.with_suffix('.faiss').exists()
    write_file(tmp_path / 'n/more.wav', Path(examples[0]).read_bytes())
    more = SearchIndex.open(tmp_path / 'n', progress=False)
    assert not index.path.with_suffix('.faiss').exists()  # of what is no more
    assert str(tmp_path / 'n/more.wav') in set(search(examples, more).file)
    assert more.path.with_suffix('.faiss').exists()
    assert not [p for p in more.path.parent.iterdir() if '.part' in p.name]
    rows = exact.iloc[:1].assign(answer='yes').rename(columns={'file': 'fname'})
    rows.to_csv(tmp_path / 'answers.csv', index=False)
    options = {'answers': tmp_path / 'answers.csv', 'progress': False}
    best = [
        search(examples, more, doubtful=False, approximate=a, **options) for a in (False, True)
    ]
    assert best[0].iloc[:, :3].equals(best[1].iloc[:, :3])
    more.path.with_suffix('.faiss').unlink()
    search(examples, more, **options)  # doubt is looked for among all
    assert not more.path.with_suffix('.faiss').exists()
    with pytest.raises(ValueError, match='doubt is found exactly'):
        search(examples, more, approximate=True, **options)


def made_archive(folder, windows=20_000, file_windows=20):
    "Vectors around 300 centres, as windows of files that nobody recorded."
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 16))[np.arange(windows) % 300] + rng.normal(size=(windows, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(folder / 'vectors.npy', vectors.astype('float16'))
    sections = windows // file_windows
    paths = [f'/nights/{i}.wav' for i in range(sections)]
    table = pd.DataFrame({'path': paths, 'seconds': 3.0 * file_windows, 'start': 0.0, 'end': np.nan})
    store = SimpleNamespace(
        frames=np.full(sections, file_windows),
        features=SimpleNamespace(step=3.0, seconds=3.0),  # none overlaps another
        clips=SimpleNamespace(table=table),
    )
    path = folder / 'vectors.npy'
    return SearchIndex(store, None, np.load(path, mmap_mode='r'), path)


def test_an_eighth_of_the_lists_finds_nearly_all_in_order(tmp_path):
    index = made_archive(tmp_path)
    rng = np.random.default_rng(1)
    shared = []
    for _ in range(20):
        weights = index.vectors[rng.integers(len(index))].astype('float32')
        exact, right = find_windows(index, weights, approximate=False)
        some, scores = find_windows(index, weights, approximate=True)
        assert (np.diff(scores) <= 0).all() and (scores <= right + 1e-6).all()
        shared.append(len(set(exact) & set(some)) / 10)
    assert 0.9 < np.mean(shared)
    lists = open_faiss_index(index)
    assert lists.nlist > 100 and lists.nprobe == math.ceil(lists.nlist / 8)


def test_where_most_is_hidden_all_are_compared(tmp_path):
    index = made_archive(tmp_path)
    weights = index.vectors[0].astype('float32')
    best, _ = find_windows(index, weights, top=600, approximate=False)
    hidden = list(index.places(best[:590]).itertuples(index=False, name=None))
    options = {'top': 100, 'hidden': hidden}
    exact, right = find_windows(index, weights, approximate=False, **options)
    some, scores = find_windows(index, weights, approximate=True, **options)
    assert len(some) == 100 and (np.diff(scores) <= 0).all() and not set(some) & set(best[:590])
    tiny = made_archive(tmp_path, windows=40)
    (tmp_path / 'vectors.faiss').unlink()
    few = find_windows(tiny, weights, top=50, approximate=True)
    np.testing.assert_array_equal(few[0], find_windows(tiny, weights, top=50, approximate=False)[0])


def test_a_damaged_approximate_index_is_built_again(tmp_path):
    index = made_archive(tmp_path, windows=2000)
    weights = index.vectors[5].astype('float32')
    before, _ = find_windows(index, weights, approximate=True)
    assert len(before) == 10
    content = (tmp_path / 'vectors.faiss').read_bytes()
    for damaged in (b'', content[: len(content) // 2], b'IwSq' + bytes(200)):
        (tmp_path / 'vectors.faiss').write_bytes(damaged)
        again, _ = find_windows(index, weights, approximate=True)
        np.testing.assert_array_equal(again, before)
        assert (tmp_path / 'vectors.faiss').read_bytes() == content


def test_nothing_found_is_said(here):
    words = sorted(Path('nights').glob('Cello/*'))
    code, out, err = command(*words, 'IN', *words)
    assert (code, out) == (0, '') and 'nothing found' in err


def test_silence_alone_is_called_so(here, tmp_path):
    write_file(tmp_path / 'still.wav', wav_bytes(np.zeros(16000), sr=16000))
    code, _, err = command('nights/Cello', 'IN', tmp_path)
    assert code == 2 and 'holds nothing but silence' in err


def test_an_approximate_search_says_what_to_install(here, monkeypatch):
    examples = sorted(Path('nights').glob('Cello/*'))[:2]
    code, exact, err = command(*examples, 'IN', 'nights', '--exact')
    assert code == 0 and 'windows searched\n' in err
    code, some, err = command(*examples, 'IN', 'nights', '--approximate')
    assert (code, some) == (0, exact) and 'windows searched approximately' in err
    assert 'an approximate index is made first' in err
    assert 'made first' not in command(*examples, 'IN', 'nights', '--approximate')[2]
    monkeypatch.setitem(sys.modules, 'faiss', None)
    monkeypatch.setattr('soundtag.approximate.MANY', 1)
    assert command(*examples, 'IN', 'nights')[1] == exact  # not there, so every window
    monkeypatch.setattr('soundtag.neighbours.store_archive', None)  # not even begun
    code, out, err = command(*examples, 'IN', 'nights', '--approximate')
    assert code == 2 and not out and 'pip install "soundtag[approximate]"' in err
    code, out, err = command('IN', 'nights', '--approximate', '--answers', examples[0])
    assert code == 2 and '--approximate: doubt is found exactly' in err


def test_nothing_is_approximate_before_it_is_asked_for():
    code = 'import sys, soundtag.finding, soundtag.search; sys.exit("faiss" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


def silent_archive(folder):
    "Silence, 12 ms of a constant, and a second of noise."
    rng = np.random.default_rng(0)
    sounds = {'still': np.zeros(16000), 'constant': np.full(200, 0.01), 'noise': rng.normal(0, 0.1, 16000)}
    for name, y in sounds.items():
        write_file(folder / f'{name}.wav', wav_bytes(y, sr=16000))
    return folder


def test_silence_is_counted_and_a_constant_is_a_fault(here, tmp_path):
    index = SearchIndex.open(silent_archive(tmp_path / 'n'), progress=False)
    assert [Path(p).name for p in index.silent.path] == ['still.wav']
    assert [Path(p).name for p in index.skipped.path] == ['constant.wav'] and len(index) == 1
    code, _, err = command(next(Path('nights/Cello').iterdir()), 'IN', tmp_path / 'n')
    assert code == 1 and 'not searched, for it is silence: 1 section' in err
    said = [line for line in err.splitlines() if line.startswith('soundtag: ')]
    assert 'constant.wav: is silent, every sample is 0.01' in said[-1]
    assert not any('still.wav' in line for line in said)


@pytest.fixture
def twins(here, tmp_path):
    "Two recordings of one name, one above the other."
    for place in ('1.wav', 'may/1.wav', 'may/may/1.wav', 'may/2.wav'):
        y = np.random.default_rng(len(place)).normal(0, 0.1, 16000 * 5)
        write_file(tmp_path / f'n/{place}', wav_bytes(y, sr=16000))
    return tmp_path / 'n'


def heard_at(archive, row, tmp_path, head='fname,start,answer'):
    "Where the window is that a row of answers means."
    index = SearchIndex.open(archive, progress=False)
    write_file(tmp_path / 'answers.csv', f'{head}\n{row}\n')
    ((window, answer),) = read_answers(tmp_path / 'answers.csv', index).items()
    return tuple(index.places([window]).iloc[0][['file', 'start']])


@pytest.mark.parametrize('name', ['1.wav', 'may/1.wav', 'may/may/1.wav'])
def test_answers_of_the_page_find_their_recordings(twins, tmp_path, monkeypatch, name):
    monkeypatch.chdir(twins / 'may')  # where 1.wav is another one
    assert heard_at(twins, f'{name},2,yes', tmp_path) == (str(twins / name), 2.0)


def test_a_name_of_several_recordings_is_refused(twins, tmp_path):
    archive = [twins / 'may', twins / '1.wav']
    with pytest.raises(DataError, match='1.wav is the name of 3 recordings; write its path'):
        heard_at(archive, '1.wav,2,yes', tmp_path)
    assert heard_at(archive, '2.wav,2,yes', tmp_path)[0] == str(twins / 'may/2.wav')
    assert heard_at(archive, f'{twins}/1.wav,2,yes', tmp_path)[0] == str(twins / '1.wav')


def test_an_answer_beyond_the_end_is_refused(twins, tmp_path):
    assert heard_at(twins, '1.wav,4.9,yes', tmp_path)[1] == 2
    with pytest.raises(DataError, match='1.wav at 9999 s is not in this archive'):
        heard_at(twins, '1.wav,9999,yes', tmp_path)


def test_answers_in_the_columns_of_a_search(twins, tmp_path):
    row = f'{twins}/1.wav,2,5,0.3,yes'
    head = 'file,start,end,similarity,answer'
    assert heard_at(twins, row, tmp_path, head) == (str(twins / '1.wav'), 2.0)
    assert earlier_rows(tmp_path / 'answers.csv') == [[f'{twins}/1.wav', '2', '5', 'yes', '']]


# The command


def test_search_by_command(here, tmp_path):
    examples = sorted(Path('nights').glob('Cello/*'))[:2]
    code, out, err = command(*examples, 'IN', 'nights', '--top', 3)
    assert code == 0 and len(out.splitlines()) == 3 and 'windows searched' in err
    assert 'nights/Cello' in out.splitlines()[0] and ' s' in out
    table = tmp_path / 'found.csv'
    words = *examples, '--out', table, '--unlike', 'nights/../nights', 'IN', 'nights'
    code, out, err = command(*words)
    assert code == 0 and table.read_text() == 'file,start,end,similarity\n'  # all are examples


def test_a_cluster_computes_the_archive(here, tmp_path, monkeypatch):
    from dask.distributed import LocalCluster

    words = here / 'nights/Cello', 'IN', here / 'nights', '--top', 5
    _, alone, _ = command(*words)
    (tmp_path / 'yamnet').symlink_to(here / 'cache/yamnet')
    monkeypatch.setenv('SOUNDTAG_CACHE', str(tmp_path))
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as workers:
        code, found, err = command(*words, '--cluster', workers.scheduler_address)
    assert (code, found) == (0, alone) and 'workers: 1, with' in err
    assert list(tmp_path.glob('**/features.dat'))


def test_answers_from_the_page_lead_the_next_search(here, tmp_path, chromium):
    examples = sorted(Path('nights').glob('Cello/*'))[:1]
    page = tmp_path / 'page.html'
    asked = [*examples, 'IN', 'nights', '--page', page, '--label', 'Cello']
    code, out, _ = command(*asked, '--top', 6)
    assert code == 0 and f'page: {page}' in out
    tab = chromium().new_page()
    tab.goto(page.as_uri())
    names = tab.evaluate('[...document.querySelectorAll(".cards li")].map(li => li.dataset.fname)')
    assert len(names) == 6 and all(name.startswith(LABELS) for name in names)
    for i, name in enumerate(names[:5]):
        tab.check(f'#window-{i} input[value={"yes" if name.startswith("Cello") else "no"}]')
    tab.fill('#window-4 input[type=text]', 'a "cat", or so')
    with tab.expect_download() as download:
        tab.click('#save')
    answers = tmp_path / 'answers.csv'
    answers.write_bytes(Path(download.value.path()).read_bytes())
    rows = pd.read_csv(answers, keep_default_na=False)
    assert list(rows) == ['fname', 'start', 'end', 'answer', 'correction'] and len(rows) == 5
    assert rows.correction.tolist()[-1] == 'a "cat", or so'
    assert set(rows.correction[:4]) <= {'Cello', ''}
    code, out, _ = command(*asked, '--answers', answers)  # the page again, with what is kept
    assert code == 0 and '%  nights/' in out.splitlines()[0]
    assert 'of which the search is least sure' in page.read_text()
    code, out, _ = command(*asked[:-3], tmp_path / 'best.html', '--answers', answers, '--order', 'best')
    assert code == 0 and 'the most probable first' in (tmp_path / 'best.html').read_text()
    tab.goto(page.as_uri())
    with tab.expect_download() as download:
        tab.click('#save')
    assert Path(download.value.path()).read_bytes() == answers.read_bytes()
    index = SearchIndex.open('nights', progress=False)
    heard = read_answers(answers, index)
    assert len(heard) == 5 and sum(heard.values()) == (rows.answer == 'yes').sum()
    best = search(examples, index, answers=answers, doubtful=False, top=99)
    places = set(index.places(list(heard)).itertuples(index=False, name=None))
    assert not places & set(best.itertuples(index=False, name=None))
    clips = soundtag.load_clips('nights')  # the same table corrects a data set
    rows[:4].to_csv(answers, index=False)
    assert 'Cello' in correct_clips(clips, answers).labels


@pytest.mark.parametrize(
    'text, wants',
    [
        ('fname,start\na.wav,3\n', 'none called answer'),
        ('fname,start,answer\nCello-5.wav,0,perhaps\n', 'perhaps is no answer'),
        ('fname,start,answer\nother.wav,0,yes\n', 'other.wav at 0 s is not in this archive'),
        ('fname,start,answer\n,,no\n', 'is not in this archive'),
    ],
)
def test_answers_that_say_nothing_are_refused(here, tmp_path, text, wants):
    (tmp_path / 'answers.csv').write_text(text)
    code, _, err = command('IN', 'nights', '--answers', tmp_path / 'answers.csv')
    assert code == 2 and wants in err


@pytest.mark.parametrize(
    'words, wants',
    [
        ([], 'write the word IN before the archive'),
        (['nights', 'nights'], 'write the word IN before the archive'),
        (['nights', 'IN', 'nights', '--unlike', 'IN', 'nights'], 'write the word IN once'),
        (['nights', 'IN'], 'no archive'),
        (['IN', 'nights'], 'no example'),
        (['no.wav', 'IN', 'nights'], 'no.wav: there is no such file'),
        (['nights', 'IN', 'nights', '--out', 'nights'], '--out nights: is a folder'),
        (['nights', 'IN', 'nights', '--order', 'doubt'], '--order doubt: needs --answers'),
    ],
)
def test_search_says_what_is_wrong(here, words, wants):
    code, out, err = command(*words)
    assert code == 2 and not out and wants in err and len(err.splitlines()) == 1


def test_no_answers_leave_nothing_to_doubt(here):
    with pytest.raises(ValueError, match='doubtful=True: needs answers'):
        search('nights', 'nights', doubtful=True, progress=False)


def test_an_example_of_silence_is_refused(here, tmp_path):
    write_file(tmp_path / 'still.wav', wav_bytes(np.zeros(16000) + 1e-5, sr=16000))
    code, _, err = command(tmp_path / 'still.wav', 'IN', 'nights')
    assert code == 2 and 'still.wav: is silence' in err


# One more label


@pytest.fixture(scope='module')
def run(sounds, weights):
    "A run of two labels of the folder above; the third is to be taught."
    for label in LABELS[:2]:
        for path in sorted((sounds / 'nights' / label).iterdir()):
            write_file(sounds / f'known/{label}/{path.name}', path.read_bytes())
    features = Embedding(hop=0.48, shortest=5.0)
    recipe = replace(RECIPES['pretrained'], features=features)
    options = {'cache': sounds / 'cache/features', 'progress': False}
    return train_folds(load_clips(sounds / 'known'), recipe, 2, sounds / 'runs/two', **options)


def test_teach_by_command(here, run, capsys):
    before = {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}
    assert main(['teach', 'runs/two', 'Hi hat', 'nights/Hi-hat']) == 0
    out = capsys.readouterr().out
    assert before == {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}
    new = load_run('runs/two-Hi_hat')
    clips = run_clips(new)
    assert new.labels == ['Applause', 'Cello', 'Hi hat'] and len(new.folds) == 12
    recalled = (new.oof.argmax(1) == 2)[(clips.table.label[new.folds.index] == 'Hi hat')].sum()
    assert f'Hi hat: {recalled} of 4 clips named so' in out and 'runs/two-Hi_hat/report.html' in out
    old = load_run(run)
    share = (old.oof.argmax(1) == [old.labels.index(Path(n).parts[-2]) for n in old.folds.index]).mean()
    assert f'{share:.1%} right before' in out
    tags = soundtag.tag(next(Path('nights/Hi-hat').iterdir()), model='runs/two-Hi_hat')
    assert tags[0][0] == 'Hi hat'
    new_fold = {Path(name).name: fold for name, fold in new.folds.items()}
    assert all(new_fold[Path(name).name] == fold for name, fold in old.folds.items())


@pytest.mark.parametrize(
    'words, wants',
    [
        (['Cello', 'nights/Hi-hat'], 'has the label Cello already'),
        (['cello', 'nights/Hi-hat'], 'has the label Cello already'),
        ([' Cello  ', 'nights/Hi-hat'], 'has the label Cello already'),
        (['Cello, bowed', 'nights/Hi-hat'], 'Cello, bowed: reads as several labels'),
        (['nan', 'nights/Hi-hat'], 'clips without a name or a label'),
        (['owl', 'owl.wav'], 'owl.wav: there is no such file'),
        (['owl', 'ONE'], '1 clip given, and 2 are the least'),
        ([' ', 'nights/Hi-hat'], 'LABEL: is empty'),
        (['unknown', 'nights/Hi-hat'], 'LABEL: unknown is a name for what is none of the labels'),
        (['Silence', 'nights/Hi-hat'], 'LABEL: Silence is a name for'),
        (['_background_noise_', 'nights/Hi-hat'], 'LABEL: _background_noise_ is a name for'),
        (['owl', 'nights/Hi-hat', '--out', 'runs/two'], 'runs/two: holds another run'),
    ],
)
def test_teach_says_what_is_wrong(here, run, capsys, words, wants):
    one = str(next(Path('nights/Hi-hat').iterdir()))
    lists = set(Path('runs').glob('*.csv'))
    assert main(['teach', 'runs/two', *(one if w == 'ONE' else w for w in words)]) == 2
    out, err = capsys.readouterr()
    assert not out and wants in err and len(err.splitlines()) == 1
    assert set(Path('runs').glob('*.csv')) == lists


def test_teach_says_which_clips_it_left_out(here, run, capsys, tmp_path):
    clips = sorted(Path('nights/Hi-hat').iterdir())
    write_file(tmp_path / 'broken.wav', b'no sound')
    words = ['runs/two', ' two  words ', *map(str, clips), str(tmp_path / 'broken.wav')]
    assert main(['teach', *words, '--out', str(tmp_path / 'new')]) == 1
    out, err = capsys.readouterr()
    assert 'of 4 clips named so' in out and load_run(tmp_path / 'new').labels[2] == 'two words'
    skipped = tmp_path / 'new/skipped.csv'
    assert f'clips skipped: 1; {skipped} says why' in err and 'broken.wav' in skipped.read_text()


def test_a_list_of_somebody_else_is_not_written_over(here, run, capsys):
    write_file('runs/mine.csv', 'fname,label')
    words = ['teach', 'runs/two', 'owl', 'nights/Hi-hat', '--out', 'runs/mine']
    assert main(words) == 2 and Path('runs/mine.csv').read_text() == 'fname,label'
    assert 'runs/mine.csv: is there already' in capsys.readouterr().err


def test_only_runs_by_pretrained_are_taught(here, run, capsys, tmp_path):
    shutil.copytree(run, tmp_path / 'other')
    config = json.loads((run / 'config.json').read_text())
    config['recipe'] = Recipe('post').settings
    (tmp_path / 'other/config.json').write_text(json.dumps(config))
    assert main(['teach', str(tmp_path / 'other'), 'owl', 'nights/Hi-hat']) == 2
    assert 'recipe post, and only runs by pretrained' in capsys.readouterr().err
