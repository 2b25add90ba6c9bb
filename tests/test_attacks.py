"Chapter 21d: a slice of the campaign, and a watcher that notices what it is there for."

import json
import random
import sys

import pytest

import soundtag.studies.attacks as attacks
import soundtag.studies.damage as damage
from soundtag.studies.attacks import Worker, attack, judge
from soundtag.studies.damage import Case, mutate
from soundtag.studies.liars import lying_server
from soundtag.tagging import TAGGING_MODEL

linux = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    return tmp_path_factory.mktemp('campaign')


@pytest.fixture(scope='module')
def worker(home):
    w = Worker(home)
    yield w
    w.stop()


def all_well(door, numbers, home, worker, place=None):
    "How many were answered; none may be bad."
    answered = 0
    for number in numbers:
        result = attack(door, number, home, worker, place)
        assert not result['faults'], (number, result)
        answered += result['code'] == 0
    return answered


@linux
def test_broken_recordings(home, worker):
    assert 5 < all_well('recordings', range(100), home, worker) < 95


@linux
def test_broken_models(home, worker, monkeypatch):
    "Of the kind that takes no TensorFlow to read; a trial is a process of its own."
    monkeypatch.setattr(damage, 'models', lambda home: {'.onnx': TAGGING_MODEL.read_bytes()})
    all_well('models', range(12), home, worker)


@linux
def test_lying_servers(home, worker):
    with lying_server() as server:
        assert all_well('answers', range(40), home, worker, server.home) < 30


@linux
@pytest.mark.parametrize(
    'code, fault',
    [
        ('raise KeyError("x")', 'tracebacks'),
        ('import os; os.abort()', 'codes'),
        ('bytearray(b"x") * (14 * 10**8)', 'memory'),
        ('import time; time.sleep(10)', 'hangs'),
        ('open("x", "w").close()', 'outside'),
        ('raise SystemExit(3)', 'codes'),
    ],
)
def test_the_watcher_notices(tmp_path, monkeypatch, code, fault):
    "A command that does what none may do."
    stand_in = tmp_path / 'modules'
    stand_in.mkdir()
    (stand_in / 'sitecustomize.py').write_text(
        'import soundtag.cli\n'
        f'def main(words):\n    exec({code!r})\n    return 0\n'
        'soundtag.cli.main = main\n'
    )
    monkeypatch.syspath_prepend(stand_in)
    monkeypatch.setattr(attacks, 'WALL_SECONDS', 20 if fault != 'hangs' else 4)
    monkeypatch.setitem(attacks.DOORS, 'none', lambda rng, folder, home: Case(['tag']))
    worker = Worker(tmp_path)
    try:
        assert fault in attack('none', 0, tmp_path, worker)['faults']
        monkeypatch.setattr(attacks, 'WALL_SECONDS', 60)
        assert worker.process is None or worker.process.poll() is None
    finally:
        worker.stop()


def test_a_case_can_be_made_again():
    def make(number):
        return [mutate(bytes(1000), random.Random(f'recordings {number}')) for _ in range(2)]

    assert len(set(make(3))) == 1 and make(3) != make(4)


def test_a_line_must_say_why():
    well = {'code': 2, 'said': 'soundtag: x.wav: no sound\n', 'seconds': 0, 'memory': 0}
    assert judge(Case([], (0, 2)), well, set()) == []
    assert judge(Case([], (0, 2)), well | {'said': ''}, set()) == ['codes']
    assert judge(Case([], (0, 1)), well, set()) == ['codes']


def test_the_results_are_whole(root):
    result = json.loads((root / 'nbs/results/attacks.json').read_text())
    for door, count in attacks.FULL.items():
        assert result[door]['cases'] == count and result[door]['bad'] == []
        assert all(result[door][fault] == 0 for fault in attacks.FAULTS)
