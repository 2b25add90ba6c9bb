"The command as people and programs meet it: codes, one-line errors, output that reads back, every kind of bad input."

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from conftest import at_once, small_cnn
from warm import Forked

from soundtag.cli import build_parser, main
from soundtag.dataset import mini
from soundtag.recipe import NETWORKS

LABELS = ['Bass_drum', 'Hi-hat', 'Violin_or_fiddle']
COMMANDS = ['data', 'demo', 'train', 'report', 'tag', 'listen', 'embed', 'search', 'teach']
IN_A_PROCESS = [sys.executable, '-c', 'import sys; from soundtag.cli import main; sys.exit(main())']


def cli(*words):
    "Exit code, stdout and stderr of a command, called in this process."
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            code = main([str(w) for w in words])
        except SystemExit as e:
            code = e.code
    return code, out.getvalue(), err.getvalue()


def process(*words, command=IN_A_PROCESS):
    "The same in a process of its own, as a shell starts it."
    env = {k: v for k, v in os.environ.items() if k != 'TF_CPP_MIN_LOG_LEVEL'}
    return subprocess.run([*command, *map(str, words)], capture_output=True, text=True, env=env)


def messages(err):
    "What stderr said besides progress bars."
    return [line for line in err.splitlines() if line.startswith('soundtag')]


def one_message(err, *parts):
    "The single line on stderr, which names all of `parts`; no traceback."
    (line,) = messages(err)
    assert 'Traceback' not in err
    for part in parts:
        assert str(part) in line, line
    return line


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    "Features go to a folder of this test run; the synthetic set comes from wherever it is kept."
    clips = mini()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SOUNDTAG_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield clips


@pytest.fixture(scope='module')
def sounds(own_cache, tmp_path_factory):
    "A folder a label, eight clips of the synthetic set in each."
    root = tmp_path_factory.mktemp('sounds')
    table = own_cache.train.table
    for label in LABELS:
        (root / label).mkdir()
        for path in sorted(table.path[table.label == label])[:8]:
            shutil.copy(own_cache.root / path, root / label)
    return root


def train(data, out, *more):
    options = '--recipe', 'post', '--folds', 2, '--epochs', 1, '--out', out
    with at_once(), patch.dict(NETWORKS, post_cnn=small_cnn):
        return cli('train', data, *options, *more)


@pytest.fixture(scope='module')
def trained(sounds, tmp_path_factory):
    run = tmp_path_factory.mktemp('runs') / 'small'
    return run, train(sounds, run)


@pytest.fixture(scope='module')
def run(trained):
    return trained[0]


@pytest.fixture
def some(sounds, tmp_path):
    "A copy of the sounds to spoil."
    return shutil.copytree(sounds, tmp_path / 'sounds')


@pytest.fixture(scope='module')
def clip(sounds):
    return sorted(sounds.glob('Violin*/*.wav'))[0]


# Help


def test_help_comes_at_once_and_loads_nothing():
    slow = {'numpy', 'pandas', 'scipy', 'soundfile', 'librosa', 'matplotlib', 'keras', 'tensorflow'}
    code = f"import sys; from soundtag.cli import main\ntry: main(['--help'])\nfinally: print(sorted({slow} & set(sys.modules)))"
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    took = time.perf_counter() - begin
    assert done.stdout.endswith('[]\n') and not done.stderr
    assert took < 1, took


@pytest.mark.parametrize(
    'words', [[], *([c] for c in COMMANDS)], ids=lambda w: ' '.join(w) or 'soundtag'
)
def test_every_help_has_examples_and_defaults(words):
    code, out, err = cli(*words, '--help')
    assert code == 0 and 'examples:\n  soundtag ' in out and not err
    if words and words[0] in ('data', 'train', 'tag'):
        assert '(default: ' in out
    for example in out.split('examples:')[1].split('exit codes')[0].strip().splitlines():
        typed = (
            example.split('  ' * 2)[0].split(' > ')[0].split()[1:]
        )  # without the remark and the redirection
        if 'COMMAND' not in typed:
            assert build_parser().parse_args(typed).do, example


def test_version():
    assert cli('--version') == (0, f'soundtag {__import__("soundtag").__version__}\n', '')


@pytest.mark.parametrize(
    'words',
    [
        [],
        ['sing'],
        ['tag'],
        ['train', '--folds', '1'],
        ['train', '--epochs', 'x'],
        ['train', '--seed', '-1'],
        ['tag', 'a.wav', '--model', 'x', '--top', '0'],
        ['tag', 'a.wav', '--model', 'x', '--format', 'xml'],
        ['data', 'esc51'],
    ],
    ids=' '.join,
)
def test_a_misspelt_call_is_2(words):
    code, out, err = cli(*words)
    assert code == 2 and not out and messages(err)


# Train, report


def test_train_tells_what_it_reached(trained):
    run, (code, out, err) = trained
    assert code == 0 and not messages(err)
    for part in (
        'fold 0',
        'fold 1',
        'MAP@3',
        '±',
        'post',
        'chance',
        'linear',
        f"report: {run / 'report.html'}",
    ):
        assert part in out, out
    metrics = json.loads((run / 'metrics.json').read_text())
    assert f"{metrics['metrics']['accuracy']['mean']:.1%}" in out
    assert (run / 'report.html').stat().st_size > 10_000


def test_the_same_command_again_changes_nothing(trained, sounds):
    run, (_, out, _) = trained
    before = (run / 'best_0.keras').read_bytes()
    code, again, _ = train(sounds, run)
    assert code == 0 and (run / 'best_0.keras').read_bytes() == before
    assert again.splitlines()[-1] == out.splitlines()[-1]


def test_report_makes_the_same_page_again(run):
    metrics = (run / 'metrics.json').read_bytes()
    (run / 'report.html').unlink()
    code, out, _ = cli('report', run)
    assert code == 0 and (run / 'report.html').exists() and 'MAP@3' in out
    assert (run / 'metrics.json').read_bytes() == metrics


def test_results_on_the_synthetic_set_are_called_synthetic(own_cache, tmp_path):
    "A few clips of it, in its own layout."
    root = tmp_path / 'set'
    meta = root / 'FSDKaggle2018.meta'
    table = own_cache.train.table
    kept = pd.concat(table[table.label == label].head(8) for label in LABELS)
    (root / 'FSDKaggle2018.audio_train').mkdir(parents=True)
    for path in kept.path:
        shutil.copy(own_cache.root / path, root / path)
    shutil.copytree(own_cache.root / 'FSDKaggle2018.meta', meta)
    shutil.copy(own_cache.root / 'mini.json', root)
    code, out, err = train(root, tmp_path / 'run')
    assert code == 2 and '--allow-missing' in one_message(err, root)
    code, out, err = train(root, tmp_path / 'run', '--allow-missing')
    assert code == 1 and 'synthetic' in out  # finished, and some were left out
    one_message(err, 'clips skipped', tmp_path / 'run/skipped.csv')


@pytest.mark.parametrize('words', [['report'], ['tag', 'x.wav', '--model']], ids=['report', 'tag'])
def test_what_is_no_run_is_2(words, tmp_path):
    for path in (tmp_path / 'none', tmp_path):
        code, out, err = cli(*words, path)
        assert code == 2 and not out
        one_message(err, path, 'soundtag train')


# Tag


@pytest.mark.parametrize(
    'kind, rate, channels, seconds',
    [
        ('wav', 44100, 1, 1),
        ('wav', 8000, 1, 1),
        ('wav', 192_000, 1, 1),
        ('wav', 44100, 8, 1),
        ('wav', 44100, 1, 0.02),
        ('flac', 48000, 2, 1),
        ('ogg', 22050, 2, 1),
        ('mp3', 44100, 2, 1),
        ('mp3', 16000, 1, 7),
    ],
)
def test_tag_takes_what_is_a_sound(run, tmp_path, kind, rate, channels, seconds):
    n = int(rate * seconds)
    y = 0.3 * np.sin(2 * np.pi * 440 * np.arange(n) / rate)[:, None] * np.linspace(1, 0.5, channels)
    sf.write(tmp_path / f'a.{kind}', y, rate)
    code, out, err = cli('tag', tmp_path / f'a.{kind}', '--model', run)
    assert code == 0 and not messages(err)
    assert all(label in out for label in LABELS)


def test_json_and_csv_read_back_by_pandas(run, clip, tmp_path):
    odd = shutil.copy(clip, tmp_path / 'a, "b" ü.wav')
    (tmp_path / 'bad.wav').write_text('no sound')
    words = ('tag', clip, odd, tmp_path / 'bad.wav', clip, '--model', run, '--top', 2)
    code, out, err = cli(*words, '--format', 'json')
    table = pd.read_json(io.StringIO(out))
    assert code == 1 and list(table) == ['file', 'rank', 'label', 'probability', 'error']
    assert table.file.tolist() == [
        str(f) for f in (clip, clip, odd, odd, tmp_path / 'bad.wav', clip, clip)
    ]
    assert table.error.notna().tolist() == [False] * 4 + [True] + [False] * 2
    assert one_message(err, 'bad.wav') == 'soundtag: ' + table.error[4]
    code, out, err = cli(*words, '--format', 'csv')
    same = pd.read_csv(io.StringIO(out))
    assert code == 1 and one_message(err, 'bad.wav')
    pd.testing.assert_frame_equal(
        same,
        table[table.error.isna()].drop(columns='error').reset_index(drop=True),
        check_dtype=False,
    )
    assert (same.groupby('file', sort=False)['rank'].apply(list) == [[1, 2, 1, 2], [1, 2]]).all()
    code, out, err = cli(*words)
    assert [line.split(': ')[0] for line in out.splitlines()] == [str(f) for f in (clip, odd, clip)]


def test_tags_are_those_of_the_tagger(run, clip):
    from soundtag.tagging import Tagger

    code, out, _ = cli('tag', clip, '--model', run, '--format', 'json')
    assert [(r['label'], r['probability']) for r in json.loads(out)] == [
        (label, round(p, 6)) for label, p in Tagger.load(run).tag(clip)
    ]


def test_folders_and_patterns_stand_for_their_files(run, sounds, clip, monkeypatch):
    def named(*audio):
        code, out, err = cli('tag', *audio, '--model', run, '--top', 1, '--format', 'csv')
        return code, [row['file'] for row in csv.DictReader(io.StringIO(out))]

    everything = [str(f) for f in sorted(sounds.rglob('*.wav'))]
    assert named(sounds) == (0, everything)
    assert named(f'{sounds}/*/*.wav') == (0, everything)
    assert named(clip, clip) == (0, [str(clip)] * 2)
    monkeypatch.chdir(clip.parent)
    assert named('*.wav') == (0, [f.name for f in sorted(clip.parent.iterdir())])
    assert named('*.mp3') == (1, [])


def test_file_names_that_are_no_text(clip, tmp_path):
    try:
        path = shutil.copy(clip, os.fsdecode(os.fsencode(tmp_path) + b'/\xff.wav'))
    except (OSError, UnicodeError):
        pytest.skip('this file system takes no such name')
    done = process('tag', path, '--format', 'json', '--model', 'bundled')
    assert done.returncode == 0 and done.stderr == '' and json.loads(done.stdout)[0]['file'] == path


PEAKS = '''
import os, sys
from soundtag.cli import main
run, *paths = sys.argv[1:]
for path in paths:
    assert main(['tag', path, '--model', run]) == 0
    if os.path.exists('/proc/self/status'):
        print(next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')))
'''


@pytest.fixture(scope='module')
def tagged(run, tmp_path_factory):
    "Ten seconds and four minutes are tagged in a process of its own, which says after each how much memory it took."
    folder, rng = tmp_path_factory.mktemp('long'), np.random.default_rng(0)
    paths = folder / 'short.wav', folder / 'long.wav'
    for path, seconds in zip(paths, (10, 240)):
        with sf.SoundFile(path, 'w', 48000, 2) as f:
            for _ in range(seconds):
                f.write(0.1 * rng.standard_normal((48000, 2)))
    return paths, process(run, *paths, command=[sys.executable, '-c', PEAKS])


def test_stderr_is_quiet_when_all_is_well(tagged):
    (short, _), done = tagged
    assert (done.returncode, done.stderr) == (0, '') and done.stdout.startswith(f'{short}: ')


def test_four_minutes_in_bounded_memory(tagged):
    "Most of what the process takes is TensorFlow itself, so that the sound's own share is looked at too; all samples of one channel are 42 MB."
    if not Path('/proc/self/status').exists():
        pytest.skip('reads the peak from /proc')
    lines = tagged[1].stdout.splitlines()
    short, long = (int(kb) / 1000 for kb in lines if kb.isdecimal())
    assert long < 1000 and long - short < 40, (short, long)


# Bad input: sounds


def empty(path):
    path.write_bytes(b'')


def text(path):
    path.write_text('This is a text, not a sound.\n' * 100)


def no_samples(path):
    sf.write(path, np.zeros(0), 44100)


def silence(path):
    sf.write(path, np.zeros(44100), 44100)


def a_folder(path):
    path.mkdir()


def truncated(path):
    sf.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 44100), 44100)
    path.write_bytes(path.read_bytes()[:5000])


def nan(path):
    y = np.full(44100, 0.1)
    y[100:200] = np.nan
    sf.write(path, y, 44100, subtype='FLOAT')


BAD = {
    empty: 'empty',
    truncated: 'cut short',
    text: 'not',
    no_samples: 'no samples',
    nan: 'NaN',
    silence: 'silent',
}


@pytest.mark.parametrize(
    'spoil', [*(b for b in BAD if b is not silence), a_folder], ids=lambda f: f.__name__
)
def test_a_bad_file_is_named_and_the_others_are_tagged(run, clip, tmp_path, spoil):
    spoil(tmp_path / 'x.wav')
    code, out, err = cli('tag', tmp_path / 'x.wav', clip, '--model', run)
    assert code == 1 and out.startswith(f'{clip}: ')
    one_message(err, tmp_path / 'x.wav', BAD.get(spoil, 'folder'))


def test_silence_is_called_silence(run, tmp_path):
    silence(tmp_path / 'x.wav')
    code, out, err = cli('tag', tmp_path / 'x.wav', '--model', run)
    assert (code, out) == (0, f"{tmp_path / 'x.wav'}: silence 100.0%\n"), err


def test_a_file_that_must_not_be_read(run, clip, tmp_path, monkeypatch):
    path = shutil.copy(clip, tmp_path / 'x.wav')
    if os.geteuid():
        os.chmod(path, 0)
    else:  # root may read everything
        real = open

        def guarded(file, *args, **kwargs):
            if str(file) == str(path):
                raise PermissionError(13, 'Permission denied', str(file))
            return real(file, *args, **kwargs)

        monkeypatch.setattr('builtins.open', guarded)
    code, out, err = cli('tag', path, clip, '--model', run)
    assert code == 1 and out.startswith(f'{clip}: ')
    one_message(err, path, 'Permission denied', 'permissions')


def test_bad_clips_among_many_are_skipped_and_listed(some, tmp_path):
    "And only they: eight channels or 192 kHz are no fault."
    for spoil in BAD:
        spoil(some / LABELS[0] / f'{spoil.__name__}.wav')
    rng = np.random.default_rng(0)
    sf.write(some / LABELS[0] / 'eight.wav', rng.uniform(-0.1, 0.1, (44100, 8)), 44100)
    sf.write(some / LABELS[0] / 'fast.wav', rng.uniform(-0.1, 0.1, 192_000), 192_000)
    code, out, err = train(some, tmp_path / 'run')
    skipped = pd.read_csv(tmp_path / 'run/skipped.csv', index_col='fname')
    assert code == 1 and 'report: ' in out
    assert sorted(skipped.index) == sorted(f'{LABELS[0]}/{spoil.__name__}.wav' for spoil in BAD)
    for spoil, reason in BAD.items():
        assert reason in skipped.reason[f'{LABELS[0]}/{spoil.__name__}.wav']
    one_message(err, len(BAD), tmp_path / 'run/skipped.csv')
    assert len(pd.read_csv(tmp_path / 'run/folds.csv')) == 24 + 2


def test_nothing_but_bad_clips_is_2(tmp_path):
    for label in LABELS:
        (tmp_path / 'sounds' / label).mkdir(parents=True)
        for i in range(3):
            text(tmp_path / 'sounds' / label / f'{i}.wav')
    code, out, err = train(tmp_path / 'sounds', tmp_path / 'run')
    assert code == 2
    one_message(err)


# Bad input: data sets


def as_csv(some, rows, encoding='utf-8', header='fname,label'):
    path = some / 'clips.csv'
    path.write_bytes('\n'.join([header, *rows, '']).encode(encoding))
    return path


def listed(some):
    return [f'{f.relative_to(some)},{f.parent.name}' for f in sorted(some.rglob('*.wav'))]


def test_a_csv_trains(some, tmp_path):
    assert train(as_csv(some, listed(some)), tmp_path / 'run')[0] == 0


@pytest.mark.parametrize(
    'spoil, parts',
    [
        (lambda some, rows: as_csv(some, rows, header='name,sort'), ['name', 'sort']),
        (lambda some, rows: as_csv(some, [*rows, rows[0]]), ['once', 'Bass_drum']),
        (
            lambda some, rows: as_csv(some, [r + '_für' for r in rows], encoding='latin-1'),
            ['UTF-8'],
        ),
        (lambda some, rows: as_csv(some, rows[:-7]), [LABELS[2]]),
        (
            lambda some, rows: as_csv(some, [*rows, 'gone.wav,Hi-hat']),
            ['1 of the 25', 'gone.wav', '--allow-missing'],
        ),
        (lambda some, rows: as_csv(some, []), []),
        (lambda some, rows: some / 'nowhere', ['nowhere', 'no such']),
    ],
    ids=[
        'without the columns',
        'duplicate file names',
        'not UTF-8',
        'a label with one clip',
        'a missing file',
        'nothing listed',
        'no folder',
    ],
)
def test_a_data_set_that_cannot_be_used_is_2(some, tmp_path, spoil, parts):
    data = spoil(some, listed(some))
    code, out, err = train(data, tmp_path / 'run')
    assert code == 2 and not out
    one_message(err, *parts)


def test_unknown_recipe_names_the_known(sounds, tmp_path):
    code, out, err = train(sounds, tmp_path / 'run', '--recipe', 'loud')
    assert code == 2 and not (tmp_path / 'run').exists()
    one_message(err, 'loud', 'post')


# Bad places


def test_an_output_folder_of_another_run(run, sounds, tmp_path):
    before = {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}
    code, out, err = cli(
        'train', sounds, '--recipe', 'post', '--folds', 2, '--epochs', 2, '--out', run
    )
    assert code == 2
    one_message(err, run, '--out')
    assert before == {p: p.read_bytes() for p in run.rglob('*') if p.is_file()}
    (tmp_path / 'photos').mkdir()
    (tmp_path / 'photos/cat.jpg').touch()
    (tmp_path / 'file').touch()
    for out_folder in (tmp_path / 'photos', tmp_path / 'file'):
        code, out, err = train(sounds, out_folder)
        assert code == 2
        one_message(err, out_folder)


def test_a_full_disk(sounds, tmp_path):
    "A disk of 64 kB; with more room the same command ends well."
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', str(disk)]
    if not shutil.which('mount') or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip('a small disk can be mounted by root only')
    try:
        code, out, err = train(sounds, disk / 'run')
        assert code == 2
        one_message(err, 'the same command again')
        subprocess.run(['mount', '-o', 'remount,size=100m', str(disk)], check=True)
        assert train(sounds, disk / 'run')[0] == 0
    finally:
        subprocess.run(['umount', str(disk)], check=True)


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no /dev/full on this system')
def test_stdout_that_takes_nothing(clip):
    with open('/dev/full', 'w') as full:
        done = subprocess.run(
            [*IN_A_PROCESS, 'tag', clip, '--model', 'bundled'],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    one_message(done.stderr, 'the same command again')


def test_a_reader_who_leaves(sounds):
    "As `soundtag tag … | head -1` does."
    going = subprocess.Popen(
        [*IN_A_PROCESS, 'tag', sounds, '--model', 'bundled'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    going.stdout.close()
    assert going.wait() == 141 and not messages(going.stderr.read())


def in_the_foreground(words):
    "The command as a shell starts it: a job in its background is told to ignore an interrupt."
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(words))


def test_an_interrupt_is_one_line(sounds, tmp_path):
    out, said = tmp_path / 'run', tmp_path / 'stderr.txt'
    words = ['train', str(sounds), '--folds', '2', '--epochs', '200', '--out', str(out)]
    going = Forked(in_the_foreground, words, stderr=said)
    while not (out / 'config.json').exists():
        assert going.poll() is None, said.read_text()
        time.sleep(0.1)
    time.sleep(0.5)
    going.send_signal(signal.SIGINT)
    assert going.wait(60) == 130
    err = said.read_text()
    assert 'Traceback' not in err
    assert messages(err)[-1] == 'soundtag: interrupted; run the same command again to resume'


def test_an_interrupt_that_a_library_turned_into_an_error_is_one(monkeypatch, capsys):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in the foreground

    def inside(*args, **options):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            sys.excepthook(*sys.exc_info())  # as PyErr_Print does
            raise RuntimeError('callback failed') from None

    monkeypatch.setattr('soundtag.commands.data_set', inside)
    assert main(['train']) == 130
    assert 'interrupted' in one_message(capsys.readouterr().err)


# Models


def test_a_model_with_code_in_it_is_refused(run, clip, tmp_path):
    copy = shutil.copytree(run, tmp_path / 'run')
    with (
        zipfile.ZipFile(run / 'best_0.keras') as old,
        zipfile.ZipFile(copy / 'best_0.keras', 'w') as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name == 'config.json':
                content = content.replace(b'"class_name": "GlobalAveragePooling2D"', b'"class_name": "Lambda"')
            new.writestr(name, content)
    code, out, err = cli('tag', clip, '--model', copy)
    assert code == 2 and not out
    one_message(err, copy / 'best_0.keras', 'Lambda')


def test_a_damaged_model_is_one_line(run, clip, tmp_path):
    copy = shutil.copytree(run, tmp_path / 'run')
    whole = (copy / 'best_0.keras').read_bytes()
    for size in (0, 1000, len(whole) - 1000):
        (copy / 'best_0.keras').write_bytes(whole[:size])
        code, out, err = cli('tag', clip, '--model', copy)
        assert code == 2 and not out
        one_message(err, copy / 'best_0.keras')
