"What comes out of the command, and what it says before it begins: forms for other programs, thresholds, places, words."

import csv
import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from soundtag import console
from soundtag.answers import TAG_COLUMNS, tag_rows, write_parquet
from soundtag.audio import AudioError
from soundtag.cli import main
from soundtag.dataset import load_clips
from soundtag.embed import Embeddings
from soundtag.recipe import RECIPES
from soundtag.tagging import SESSIONS, YAMNET_FILES, Calibration, Tagger
from soundtag.timeline import FLOOR, Timeline, Tracker, listen, timeline

SR = 16000
IN_A_PROCESS = """
import sys
from soundtag.cli import main
code = main(sys.argv[1:])
print('LOADED', *sorted({'tensorflow', 'keras'} & set(sys.modules)))
sys.exit(code)
"""


def high_or_low(X):
    "Whether most power is above 1 kHz."
    p = np.abs(np.fft.rfft(X)) ** 2
    high = p[:, 1000 * X.shape[1] // SR :].sum(1) / (p.sum(1) + 1e-9)
    return np.c_[high, 1 - high]


TAGGER = Tagger(high_or_low, ['high', 'low'], SR, 1.0)


def cli(*words):
    "Exit code, stdout and stderr of a command, called in this process; `tag` asks the bundled model."
    if words[0] == 'tag' and '--model' not in words:
        words = *words, '--model=bundled'
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            code = main([str(w) for w in words])
        except SystemExit as e:
            code = e.code
    return code, out.getvalue(), err.getvalue()


def process(*words, folder):
    "The same in a process of its own, which says at the end what it has loaded."
    env = {k: v for k, v in os.environ.items() if k != 'TF_CPP_MIN_LOG_LEVEL'}
    done = subprocess.run(
        [sys.executable, '-c', IN_A_PROCESS, *map(str, words)],
        capture_output=True,
        text=True,
        env=env,
        cwd=folder,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def tagger(monkeypatch):
    monkeypatch.setattr(Tagger, 'load', staticmethod(lambda path, **options: TAGGER))


@pytest.fixture
def nights(tmp_path):
    "Two recordings of the same name: a low tone, a pause, a high one and both."
    t = np.arange(3 * SR) / SR
    low, high = (0.1 * np.sin(2 * np.pi * f * t) for f in (200, 4000))
    pause = np.zeros(3 * SR)
    for name, parts in (('a', [low, pause, high]), ('b', [high, pause, low, pause])):
        (tmp_path / 'nights' / name).mkdir(parents=True)
        sf.write(tmp_path / 'nights' / name / 'one, 1.wav', np.concatenate(parts), SR)
    return tmp_path / 'nights'


def events_of(folder):
    return {
        str(path): [(e.onset, e.offset, e.label) for e in timeline(TAGGER, path)]
        for path in sorted(folder.rglob('*.wav'))
    }


# Forms


def test_a_table_for_each_recording(tagger, nights, tmp_path):
    "In Raven's and in Audacity's form, and what is written can be learned from."
    wanted = events_of(nights)
    for form, ending in (('audacity', '.txt'), ('raven', '.Table.1.selections.txt')):
        out = tmp_path / form
        assert cli('tag', nights, '--timeline', '--format', form, '--out', out) == (0, '', '')
        assert {p.relative_to(out).as_posix() for p in out.rglob('*') if p.is_file()} == {
            f'a/one, 1{ending}',
            f'b/one, 1{ending}',
        }
        for path, events in wanted.items():
            place = Path(path).parent / f'one, 1{ending}'
            place.write_bytes((out / Path(path).parent.name / f'one, 1{ending}').read_bytes())
        table = load_clips(nights).table
        found = [(row.path, row.label, round(row.seconds, 2)) for row in table.itertuples()]
        assert found == [
            (Path(path).relative_to(nights).as_posix(), label, round(b - a, 2))
            for path, events in wanted.items()
            for a, b, label in events
        ]
        code, _, err = cli('tag', nights, '--timeline', '--format', form, '--out', out)
        assert code == 2 and 'corrected by hand' in err
        for path in wanted:
            (Path(path).parent / f'one, 1{ending}').unlink()


def test_one_table_for_all(tagger, nights, tmp_path):
    wanted = [(f, *e) for f, events in events_of(nights).items() for e in events]
    words = 'tag', nights, '--timeline', '--format'
    _, text, _ = cli(*words, 'kaleidoscope')
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [os.path.join(r['INDIR'], r['FOLDER'], r['IN FILE']) for r in rows] == [w[0] for w in wanted]
    ends = [float(r['OFFSET']) + float(r['DURATION']) for r in rows]
    assert np.allclose(ends, [w[2] for w in wanted])
    assert [r['TOP1MATCH'] for r in rows] == [w[3] for w in wanted]
    for form in ('text', 'csv', 'json', 'kaleidoscope'):
        assert cli(*words, form, '--out', tmp_path / f'x.{form}') == (0, '', '')
        assert (tmp_path / f'x.{form}').read_text('utf-8') == cli(*words, form)[1]


def test_parquet(tagger, nights, tmp_path):
    pytest.importorskip('pyarrow')
    for more, columns in (((), 4), (('--timeline',), 5)):
        out = tmp_path / f'{columns}.parquet'
        assert cli('tag', nights, *more, '--format', 'parquet', '--out', out) == (0, '', '')
        table = pd.read_parquet(out)
        same = pd.read_csv(io.StringIO(cli('tag', nights, *more, '--format', 'csv')[1]))
        assert table.shape[1] == columns and table.values.tolist() == same.values.tolist()


def test_parquet_holds_names_of_any_bytes(tmp_path):
    pytest.importorskip('pyarrow')
    name = os.fsdecode(b'b\xe4r.wav')
    write_parquet(tag_rows(name, [('Bark', 0.5)]), TAG_COLUMNS, tmp_path / 'tags.parquet')
    assert pd.read_parquet(tmp_path / 'tags.parquet').file.tolist() == ['b\\udce4r.wav']
    skipped = pd.DataFrame(columns=['fname', 'reason'])
    Embeddings([name], np.zeros((1, 3)), skipped, {}).save(tmp_path / 'rows.parquet')
    assert pd.read_parquet(tmp_path / 'rows.parquet').name.tolist() == ['b\\udce4r.wav']


def test_parquet_says_what_it_takes(monkeypatch, tmp_path):
    monkeypatch.setattr('soundtag.cli.find_spec', lambda name: None)
    code, _, err = cli('tag', 'a.wav', '--format', 'parquet', '--out', tmp_path / 'a.parquet')
    assert code == 2 and 'soundtag[parquet]' in err


def test_silence_has_no_distance(nights, tmp_path):
    sf.write(tmp_path / 'silence.wav', np.zeros(3 * SR), SR)
    words = '--distance', '--format', 'json', '--model', 'bundled'
    rows = json.loads(cli('tag', tmp_path / 'silence.wav', *words)[1])
    rows += json.loads(cli('tag', nights / 'a/one, 1.wav', '--timeline', *words)[1])
    silent = [row for row in rows if row['label'] == 'silence']
    assert len(silent) > 1 and len(rows) > len(silent)
    assert all(row['distance'] is row['low_m'] is None for row in silent)
    assert all(row['distance'] for row in rows if row not in silent)


# Events


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4, 50]))
def test_nothing_is_unknown_while_a_label_lasts(seed, block):
    "And `settled` keeps its word, so that rows can come in the order of onsets."
    rng = np.random.default_rng(seed)
    cells = 80
    kind = np.repeat(rng.integers(0, 5, cells), rng.integers(1, 9, cells))[:cells]
    scores = np.zeros((cells, 4))
    for k in range(4):
        scores[kind == k, k] = 0.9
    bands = np.where(rng.random((10 * cells, 3)) < 0.5, -20.0, FLOOR)
    tracker = Tracker(['dog', 'cat'])
    events = []
    for a in range(0, cells, block):
        until = tracker.settled
        ended = tracker.feed(scores[a : a + block], bands[10 * a : 10 * (a + block)])
        assert all(e.onset >= max(0, until) - 1e-9 for e in ended)
        events += ended
    until = tracker.settled
    last = tracker.close(0.2 * cells)
    assert all(e.onset >= max(0, until) - 1e-9 for e in last)
    events += last
    labels = [e for e in events if e.label in ('dog', 'cat')]
    for unknown in (e for e in events if e.label == 'unknown'):
        assert unknown.offset > unknown.onset
        for e in labels:
            assert min(e.offset, unknown.offset) - max(e.onset, unknown.onset) < 1e-9


def test_what_a_tagger_rejects_is_unknown_in_a_timeline():
    def doubtful(X):
        p = high_or_low(X)
        return p * np.where(p[:, :1] > 0.5, 0.3, 1.0)

    t = np.arange(4 * SR) / SR
    y = np.concatenate([0.1 * np.sin(2 * np.pi * f * t) for f in (200, 4000)])
    tagger = Tagger(doubtful, ['high', 'low'], SR, 1.0, rejects=True)
    assert [e.label for e in timeline(tagger, y, SR)] == ['low', 'unknown']


def test_live_events_come_as_they_end(monkeypatch):
    "Those of a file wait until nothing earlier can come."
    rng = np.random.default_rng(0)
    noise = 0.05 * rng.normal(size=20 * SR)
    t = np.arange(SR) / SR
    noise[8 * SR : 9 * SR] += np.sin(2 * np.pi * 4000 * t)

    def both(X):
        p = high_or_low(X)
        return np.c_[np.where(p[:, 0] > 0.95, 0.9, 0.0), np.full(len(X), 0.9)]

    tagger = Tagger(both, ['peep', 'rain'], SR, 1.0, independent=True)
    live = Timeline(tagger)
    ended = [e.label for e in listen(live, (noise[a : a + SR] for a in range(0, len(noise), SR)), SR)]
    assert ended == ['peep', 'rain']
    assert [e.label for e in timeline(tagger, noise, SR)] == ['rain', 'peep']
    monkeypatch.setattr(Tagger, 'load', staticmethod(lambda path, **options: tagger))
    raw = (noise * 20000).clip(-32768, 32767).astype('<i2')
    for words, wanted in ((['--raw', SR], ['peep', 'rain']), ([], ['rain', 'peep'])):
        data = io.BytesIO()
        sf.write(data, raw, SR, format='wav')
        stdin = raw.tobytes() if words else data.getvalue()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, 'stdin', type('', (), {'buffer': io.BufferedReader(io.BytesIO(stdin))}))
            out = cli('tag', '-', '--timeline', *words)[1]
        assert [line.split()[-2] for line in out.splitlines()] == wanted


# Thresholds


def test_a_threshold_takes_the_place_of_what_was_calibrated(monkeypatch, nights):
    calibrated = Tagger(high_or_low, ['high', 'low'], SR, 1.0, calibration=Calibration(unknown=0.97))
    monkeypatch.setattr(Tagger, 'load', staticmethod(lambda path, **options: calibrated))
    file = nights / 'a/one, 1.wav'

    def first(*more):
        return json.loads(cli('tag', file, '--format', 'json', *more)[1])[0]['label']

    assert first() == 'unknown'
    assert first('--threshold', 0) in ('high', 'low') and first('--threshold', 1) == 'unknown'
    labels = [{e['label'] for e in json.loads(cli('tag', file, '--timeline', '--format', 'json', *more)[1])}
              for more in ((), ('--threshold', 0.2), ('--threshold', 1))]  # fmt: skip
    assert labels[1] == {'high', 'low', 'silence'} and 'low' not in labels[2] and 'unknown' in labels[2]
    for word in ('1.1', '-0.1', 'nan', 'much'):
        code, _, err = cli('tag', file, '--threshold', word)
        assert code == 2 and '--threshold' in err and word in err


# Words and places


def test_names_are_those_of_the_chapters():
    assert set(console.RECIPE_NAMES) == set(RECIPES)
    assert set(console.EXPORTS) == set(SESSIONS) and set(console.WEIGHTS) == set(YAMNET_FILES)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with a file, a run of no model, and a file in the place of a folder."
    root = tmp_path_factory.mktemp('place')
    sf.write(root / 'a.wav', 0.1 * np.random.default_rng(0).normal(size=SR), SR)
    (root / 'text.txt').write_text('none')
    (root / 'full').mkdir()
    (root / 'full/a.txt').write_text('mine')
    return root


WRONG = {
    'train --recipe loud': "--recipe: no recipe is called 'loud'",
    'train --epochs 3 --recipe pretrained': '--epochs 3',
    'train --recipe strong --unknown 0.1': '--unknown is for --recipe pretrained',
    'train --means bark': '--means bark: give LABEL=NAME',
    'train --out text.txt': '--out text.txt: is a file',
    'train --out text.txt/run': '--out text.txt/run: text.txt is a file',
    'train nowhere': 'nowhere: no such file or folder',
    'train table.csv --task distance --out text.txt': '--out text.txt: is a file',
    'report runs/none': 'runs/none: is no run',
    'report full': 'full: is no run',
    'export runs/none a.onnx': 'runs/none: is no run',
    'export full a.mp3': 'full: is no run',
    'tag a.wav --model runs/none': 'runs/none: is no run',
    'tag a.wav --model text.txt': '--model text.txt: is no model',
    'tag a.wav --model none.keras': '--model none.keras: there is no such file',
    'tag a.wav --distance-model none.keras': '--distance-model none.keras: there is no such file',
    'tag a.wav --out full': '--out full: is a folder',
    'tag a.wav --out text.txt/a.csv': '--out text.txt/a.csv: text.txt is a file',
    'tag a.wav --timeline --format raven --out text.txt': '--out text.txt: is a file',
    'tag a.wav --timeline --format audacity --out full': 'full/a.txt is there already',
    'tag a.wav --timeline --picture text.txt/a.png': '--picture text.txt/a.png',
    'tag a.wav --timeline --picture a.gif': '--picture a.gif',
    'tag a.wav --format raven': 'add it',
    'tag a.wav a.wav --timeline --format raven': 'by --out',
    'tag a.wav --timeline --distance --format raven': '--distance: raven has no place',
    'data mini text.txt': 'DEST text.txt: is a file',
}  # fmt: skip


@pytest.mark.parametrize('line', WRONG)
def test_a_wrong_word_is_one_line_that_names_it(line, place, monkeypatch):
    monkeypatch.chdir(place)
    code, out, err = cli(*line.split())
    assert (code, out) == (2, '') and err.count('\n') == 1
    assert WRONG[line] in err and ('; ' in err or ': give' in err)


def test_an_ending_is_refused_before_a_run_is_read(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr('soundtag.commands.check_run', lambda run: None)
    for words, part in (
        (['run', 'a.mp3'], 'OUT a.mp3: ends in no format'),
        (['run', 'a.keras', '--half'], '--half is for .onnx'),
        (['run', 'text.txt/a.keras'], 'OUT text.txt/a.keras'),
    ):
        code, out, err = cli('export', *words)
        assert (code, out) == (2, '') and part in err


def test_no_tensorflow_to_say_so(place):
    "All in one process, as starting one takes longest."
    lines = [line for line in WRONG if line != 'train nowhere'] + ['train nowhere']
    program = f"""
import sys, time
from soundtag.cli import main
main({lines[0].split()!r})
begin = time.process_time()
for line in {lines!r}:
    assert main(line.split()) == 2, line
spent = time.process_time() - begin
print(*sorted({{'tensorflow', 'keras', 'librosa', 'sklearn'}} & set(sys.modules)), spent < len({lines!r}))
"""
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=place)
    assert done.stdout == 'True\n', done.stderr


def test_files_that_are_not_there_load_no_model(place, monkeypatch):
    def fail():
        raise AssertionError('nothing is to be fetched')

    monkeypatch.chdir(place)
    monkeypatch.setattr('soundtag.cli.default_model', fail)
    for more in ([], ['--timeline'], ['--distance']):
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main(['tag', 'none.wav', 'gone/*.wav', *more])
        out, err = out.getvalue(), err.getvalue()
        assert (code, out) == (1, '') and err.count('\n') == 2 and 'no such file' in err
    rows = json.loads(cli('tag', 'none.wav', '--format', 'json')[1])
    assert rows[0]['label'] is None and 'none.wav: there is no such file' in rows[0]['error']


def test_a_name_that_begins_with_a_dash(place, monkeypatch, tagger):
    monkeypatch.chdir(place)
    (place / '-dash.wav').write_bytes((place / 'a.wav').read_bytes())
    for words in (['-dash.wav'], ['a.wav', '-dash.wav'], ['a.wav', '--model', '-dash.wav']):
        code, _, err = cli('tag', *words)
        assert code == 2 and err.endswith('; give the file -dash.wav as ./-dash.wav\n')
    for words in (['./-dash.wav'], ['--model=bundled', '--', '-dash.wav']):
        assert main(['tag', *words]) == 0
    assert 'give the file' not in cli('tag', '--loud')[2]


def test_decoders_are_not_heard(tmp_path):
    "mpg123 writes to file descriptor 2 what it thinks of an MP3 whose length is wrong."
    y = np.random.default_rng(0).normal(0, 0.1, 5 * SR)
    sf.write(tmp_path / 'a.mp3', y, SR)
    data = (tmp_path / 'a.mp3').read_bytes()
    (tmp_path / 'b.mp3').write_bytes(data + data[len(data) // 2 :])
    program = "import soundfile; soundfile.read('b.mp3')"
    loud = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, cwd=tmp_path)
    assert 'Xing' in loud.stderr
    code, out, err = process('tag', 'b.mp3', 'none.mp3', '--model', 'bundled', folder=tmp_path)
    assert code == 1 and out.startswith('b.mp3: ')
    assert err == 'soundtag: none.mp3: there is no such file; check the path\n'


def test_an_error_before_the_end_leaves_what_was_heard(tagger, nights, tmp_path):
    data = (nights / 'a/one, 1.wav').read_bytes()
    y, _ = sf.read(nights / 'a/one, 1.wav', dtype='float32')
    y = np.tile(y, 3)
    y[-10:] = np.nan
    sf.write(tmp_path / 'bad.wav', y, SR, subtype='FLOAT')
    out = tmp_path / 'tables'
    words = 'tag', tmp_path / 'bad.wav', '--timeline', '--format', 'audacity'
    code, text, err = cli(*words, '--out', out)
    assert code == 1 and not text and 'NaN' in err and data
    assert (out / 'bad.txt').read_text() == cli(*words)[1] != ''
    with pytest.raises(AudioError):
        timeline(TAGGER, tmp_path / 'bad.wav')
