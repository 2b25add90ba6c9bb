"Search by example: what is an answer, how the index grows, and the command's words."

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import soundtag
from soundtag.audio import wav_bytes
from soundtag.cli import main
from soundtag.corrections import correct_clips
from soundtag.dataset import mini
from soundtag.files import write_file
from soundtag.neighbours import SearchIndex
from soundtag.pretrained import WeightsError, download_weights
from soundtag.search import pick_windows, read_answers, search

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
    chosen = pick_windows(index, np.zeros(len(index)), len(index))
    places = index.places(chosen)
    for _, part in places.groupby('file'):
        starts = np.sort(part.start)
        ends = np.sort(part.end)
        assert (starts[1:] >= ends[:-1]).all()
    hidden = [(places.file[0], 0.0, np.inf)]
    left = index.places(pick_windows(index, np.zeros(len(index)), len(index), hidden))
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
    ],
)
def test_search_says_what_is_wrong(here, words, wants):
    code, out, err = command(*words)
    assert code == 2 and not out and wants in err and len(err.splitlines()) == 1


def test_an_example_of_silence_is_refused(here, tmp_path):
    write_file(tmp_path / 'still.wav', wav_bytes(np.zeros(16000) + 1e-5, sr=16000))
    code, _, err = command(tmp_path / 'still.wav', 'IN', 'nights')
    assert code == 2 and 'still.wav: is silence' in err
