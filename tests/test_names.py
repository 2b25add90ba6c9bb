"Names from anywhere: control characters, empty, too long, looping; pipes in the place of files; sounds of less than a sample."

import json
import os
import shutil
import socket

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from soundtag.answers import audacity_line, event_line, tag_line, tag_rows
from soundtag.cli import main
from soundtag.console import error_message, printable
from soundtag.formats import AudioError
from soundtag.timeline import Event

NASTY = 'a\x1b[31mred\nb\x07\x7f\x9b2J\u202egnp\u2028'


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp('good') / 'good.wav'
    sf.write(path, 0.1 * np.random.default_rng(0).normal(size=44100), 44100)
    return path


def controls(text):
    "What a terminal might act upon, but for the ends of lines and tabs."
    odd = {*range(32), *range(127, 160), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
    return [c for c in text if ord(c) in odd - {9, 10}]


def test_what_is_printed_holds_no_control_characters():
    assert printable('día 木 😀 é') == 'día 木 😀 é'
    assert printable('a\x1b[0m\n') == 'a\\x1b[0m\\n' and not controls(printable(NASTY))
    rows = tag_rows(NASTY, [(NASTY, 0.5), ('b\tc\r', 0.2)])
    event = Event(0, 1, NASTY, 0.5)
    for line in (
        tag_line(rows),
        event_line(event, {'file': NASTY}, show_file=True),
        audacity_line(event),
        audacity_line(Event(0, 1, '\tx\ty\n', 0.5)),
        error_message(AudioError(f'{NASTY}: is empty')) + '\n',
        error_message(FileNotFoundError(2, 'No such file', NASTY)) + '\n',
    ):
        assert line.count('\n') == 1 and line.endswith('\n') and not controls(line), line
    assert audacity_line(event).count('\t') == 2


@pytest.mark.parametrize('form', ['text', 'json', 'csv'])
def test_a_file_of_a_nasty_name(good, tmp_path, capsys, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    name = NASTY + '.wav'
    shutil.copy(good, name)
    (tmp_path / (NASTY + 'bad.wav')).write_bytes(b'')
    assert main(['tag', '--model', 'bundled', name, NASTY + 'bad.wav', '--format', form]) == 1
    said = capsys.readouterr()
    assert not controls(said.err) and said.err.count('\n') == 1
    if form == 'text':
        assert not controls(said.out) and said.out.count('\n') == 1
    elif form == 'json':
        assert json.loads(said.out)[0]['file'] == name
    else:  # for programs: as it is
        (tmp_path / 'x.csv').write_text(said.out, newline='')
        assert (pd.read_csv('x.csv').file == name).all()


def special(folder):
    "Names that are no sound files."
    loop = folder / 'loop.wav'
    loop.symlink_to('loop.wav')
    (folder / 'dead.wav').symlink_to('/nowhere')
    os.mkfifo(folder / 'pipe.wav')
    sock = socket.socket(socket.AF_UNIX)
    cwd = os.getcwd()
    os.chdir(folder)
    sock.bind('sock.wav')
    os.chdir(cwd)
    (folder / 'dir.wav').mkdir()
    return {
        'empty name': '',
        'too long': 'a' * 5000 + '.wav',
        'too deep': 'a/' * 3000,
        'a zero': 'a\0b.wav',
        'loop': str(loop),
        'dead link': str(folder / 'dead.wav'),
        'pipe': str(folder / 'pipe.wav'),
        'socket': str(folder / 'sock.wav'),
        'folder without sounds': str(folder / 'dir.wav'),
        'device': '/dev/null',
        'endless device': '/dev/zero',
        'pattern': '[.wav',
        'no match': str(folder / '*.nothing'),
        'home of nobody': '~nobody-at-all/x.wav',
    }


@pytest.mark.parametrize('timeline', [False, True], ids=['tags', 'timeline'])
def test_one_bad_name_ends_no_batch(good, tmp_path, capsys, timeline, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for what, name in special(tmp_path).items():
        words = ['tag', '--model', 'bundled', name, str(good), *(['--timeline'] if timeline else [])]
        assert main(words) == 1, what
        said = capsys.readouterr()
        assert str(good.name) in said.out, what
        assert said.err.count('\n') == 1 and len(said.err) < 600, (what, said.err)
        assert said.err.startswith('soundtag: ') and not controls(said.err), what


@pytest.mark.parametrize('timeline', [False, True], ids=['tags', 'timeline'])
@pytest.mark.parametrize('samples, rate', [(0, 44100), (1, 44100), (3, 192000), (1, 8000)])
def test_less_than_a_sample(tmp_path, capsys, samples, rate, timeline):
    path = tmp_path / 'brief.wav'
    sf.write(path, np.full(samples, 0.5), rate)
    code = main(['tag', '--model', 'bundled', str(path), *(['--timeline'] if timeline else [])])
    said = capsys.readouterr()
    assert code in (0, 1) and said.err.count('\n') <= 1
    assert code == 0 or said.err.startswith(f'soundtag: {path}')
