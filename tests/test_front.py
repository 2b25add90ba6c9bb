"The front door: from Python, from the microphone, from scikit-learn, and what a newcomer sees first."

import os
import pickle
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.utils import estimator_checks

import soundtag
from soundtag.audio import wav_bytes
from soundtag.cli import main
from soundtag.pretrained import WeightsError, download_weights

ROOT = Path(__file__).resolve().parent.parent
NOISE = re.compile('oneDNN|cuda|CUDA|absl|I0000|rebuild TensorFlow|retracing|mpg123')


@pytest.fixture(scope='module')
def weights():
    try:
        return download_weights()
    except WeightsError:
        pytest.skip('YAMNet cannot be fetched here')


def python(code, **options):
    "A process of its own, as a user starts it: no level of logging is set."
    env = {k: v for k, v in os.environ.items() if not k.startswith('TF_')}
    command = [sys.executable, '-c', code]
    return subprocess.run(command, capture_output=True, text=True, env=env, **options)


# Quiet


FIRST = """
import os, sys

class First:
    def find_spec(self, name, *_):
        if name in ('keras', 'tensorflow'):
            unseen = os.path.samestat(os.fstat(2), os.stat(os.devnull))
            print(name, os.environ.get('TF_CPP_MIN_LOG_LEVEL'), unseen, flush=True)
            os._exit(0)

sys.meta_path.insert(0, First())
"""


@pytest.mark.parametrize('module', ['model', 'fitting', 'progress'])
def test_whichever_module_comes_first_imports_tensorflow_in_silence(module):
    "As far as TensorFlow's door, where its level is set and stderr leads nowhere."
    done = python(f'{FIRST}import soundtag.{module}')
    assert done.stdout == 'keras 3 True\n' and done.stderr == ''


def test_tensorflow_starts_in_silence_from_python_too_and_what_is_wrong_is_still_said():
    code = 'import soundtag.progress, soundtag.fitting, sys, tensorflow as tf; print(tf.constant(1).numpy());'
    done = python(f'{code} print("said", file=sys.stderr); 1 / 0')
    assert done.returncode == 1 and done.stdout == '1\n'
    assert done.stderr.startswith('said\nTraceback') and 'ZeroDivisionError' in done.stderr


def test_make_leaves_the_level_alone():
    assert 'TF_CPP' not in (ROOT / 'Makefile').read_text()


# Answers


def test_a_recording_is_enough(tmp_path):
    path = tmp_path / 'x.wav'
    path.write_bytes(wav_bytes(np.random.default_rng(0).normal(0, 0.1, 44100), sr=44100))
    assert soundtag.tag([path, path], top=1)[0] == soundtag.tag(path, top=1)
    assert soundtag.tag(path, threshold=1)[0][0] == 'unknown' != soundtag.tag(path, threshold=0)[0][0]
    events = soundtag.timeline(path)
    tagger = soundtag.Tagger.load()
    assert events == soundtag.timeline(tagger, path) and len(events)
    assert repr(events).startswith('     0.00 – ')
    assert '<table>' in events._repr_html_() and 'data:image/png' in events._repr_html_()
    assert repr(tagger) == '<Tagger of 20 labels, hears 4 s at 44100 Hz>'
    assert '<table>' in soundtag.tag(path)._repr_html_()


def test_a_live_timeline_says_what_is_on():
    tagger = soundtag.Tagger(lambda X: np.tile([0.9, 0.1], (len(X), 1)), ['hum', 'x'], 16000, 1.0)
    live = soundtag.Timeline(tagger)
    assert repr(live) == '<Timeline of stream: 0.0 s heard>'
    live.feed(np.random.default_rng(0).normal(0, 0.1, 48000), 16000)
    assert repr(live) == '<Timeline of stream: 3.0 s heard, on now: hum>'


# Microphone


class Card:
    "A sound card of Python, in place of the package sounddevice: a second of noise, a second of nothing."

    class PortAudioError(Exception):
        pass

    def query_devices(self, wanted=None, kind=None):
        device = {'index': 0, 'name': 'Fake', 'max_input_channels': 1, 'default_samplerate': 8000.0}
        if wanted not in (None, 0) and str(wanted) not in 'Fake':
            raise ValueError('none of that name')
        return device if kind else [device]

    def InputStream(self, *, callback, **options):
        class Stream:
            def __enter__(self):
                rng = np.random.default_rng(0)
                sound = np.concatenate([rng.normal(0, 0.2, 8000), np.zeros(16000)])
                blocks = np.split(sound.astype('float32')[:, None], 24)
                play = lambda: [callback(block, 1000, None, None) for block in blocks]
                self.thread = threading.Thread(target=play)
                self.thread.start()

            def __exit__(self, *error):
                self.thread.join()

        return Stream()


def listen(monkeypatch, capsys, card, *words):
    monkeypatch.setitem(sys.modules, 'sounddevice', card)
    code = main(['listen', '--model', 'bundled', *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_listen_hears_the_microphone(monkeypatch, capsys, tmp_path):
    out_file = tmp_path / 'heard.csv'
    code, out, err = listen(monkeypatch, capsys, Card(), '--seconds', 3, '--out', out_file)
    assert code == 0 and '0.00 – ' in out and 'listening to Fake' in err
    assert out_file.read_text().splitlines()[0] == 'file,onset,offset,label,probability'
    assert len(out_file.read_text().splitlines()) == 1 + len(out.splitlines())


@pytest.mark.parametrize(
    'words, wants',
    [
        (['--device', 'Studio'], "no microphone is called 'Studio'; there are Fake"),
        (['--out', 'heard.docx'], 'heard.docx: is no name for events'),
    ],
)
def test_listen_says_what_is_wrong(monkeypatch, capsys, words, wants):
    code, out, err = listen(monkeypatch, capsys, Card(), *words)
    assert code == 2 and not out and wants in err and len(err.splitlines()) == 1


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch, capsys):
    code, out, err = listen(monkeypatch, capsys, None)
    assert code == 2 and 'pip install "soundtag[listen]"' in err and len(err.splitlines()) == 1


# Embeddings


def test_embed_by_command(weights, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'night').mkdir()
    for name in 'ab':
        y = np.random.default_rng(ord(name)).normal(0, 0.1, 9000)
        (tmp_path / f'night/{name}.wav').write_bytes(wav_bytes(y, sr=16000))
    assert main(['embed', 'night', 'night.npz']) == 0
    with np.load('night.npz', allow_pickle=False) as arrays:
        assert arrays['embeddings'].shape == (2, 24978)
        found = soundtag.embed('night', progress=False)
        np.testing.assert_array_equal(arrays['embeddings'], found.X)
    (tmp_path / 'night/c.wav').write_text('no sound')
    capsys.readouterr()
    assert main(['embed', 'night', 'night.npz']) == 1
    assert 'c.wav' in capsys.readouterr().err
    assert main(['embed', 'night', 'night.docx']) == 2
    assert main(['embed', 'night/c.wav', 'c.npz']) == 2 and not Path('c.npz').exists()


# scikit-learn


class RowsOfSamples(soundtag.SoundClassifier):
    "Takes tables of numbers alone, a sound a row, as scikit-learn's checks pass them."

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.string = tags.input_tags.one_d_array = False
        return tags


CHECKS = (
    'check_estimators_overwrite_params check_estimators_fit_returns_self check_estimators_unfitted'
    ' check_readonly_memmap_input check_estimators_pickle check_f_contiguous_array_estimator'
    ' check_classifiers_one_label'
).split()  # not those of the number of columns, for sounds have lengths, and of sparse tables


@pytest.mark.parametrize('name', CHECKS)
def test_what_scikit_learn_checks(weights, name, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / 'embeddings'
    check = getattr(estimator_checks, name)
    options = {'copies': 0, 'sr': 16000, 'shrinkages': (0.2,), 'names_share': 0.0}
    check('RowsOfSamples', RowsOfSamples(**options, cache=cache))


def test_a_search_and_a_file(weights, tmp_path):
    t = np.arange(8000) / 16000
    rng = np.random.default_rng(0)
    X = [np.sin(2 * np.pi * f * t) for f in rng.uniform(200, 2000, 9)]
    X += list(rng.normal(0, 0.3, (9, 8000)))
    y = np.repeat(['tone', 'noise'], 9)
    ears = soundtag.SoundClassifier(copies=0, sr=16000, cache=tmp_path)
    search = GridSearchCV(ears, {'shrinkages': [(0.1,), (0.4,)]}, cv=3).fit(X, y)
    assert search.best_score_ == 1
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict_proba(X), search.predict_proba(X))


# What a newcomer sees first


def test_the_front_page_is_short():
    text = (ROOT / 'README.md').read_text('utf-8')
    shown = re.sub('<details>.*?</details>', '', text, flags=re.S)
    assert len(shown.split()) < 450
    assert (ROOT / re.search(r'!\[[^]]+\]\(([^)]+)\)', shown)[1]).exists()
    (table,) = re.findall(r'(?:^\|.*\|\n)+', shown, flags=re.M)
    rows = [line.strip('|').split('|') for line in table.splitlines()]
    assert len(rows) == 2 + 4 and {len(row) for row in rows} == {4}
    for block in re.findall(r'```.*?\n(.*?)```', text, flags=re.S):
        assert max(map(len, block.splitlines())) <= 66, block  # or a phone cuts it off


def test_every_chapter_is_named_with_its_number():
    text = (ROOT / 'README.md').read_text('utf-8')
    for path in (ROOT / 'nbs').glob('[0-9]*.ipynb'):
        assert f'[{path.stem.split("_")[0]} ' in text and f'](nbs/{path.name})' in text
    named = re.findall(r'\[([^]]+)\]\(nbs/(\d\w+)\.ipynb\)', text)
    names = {}
    for name, stem in named:
        if re.match(r'\d', name):
            assert names.setdefault(stem, name) == name
