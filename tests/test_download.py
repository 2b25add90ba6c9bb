"Downloads against a server on this machine that behaves like Zenodo and GitHub, on good days and bad ones."

import errno
import hashlib
import io
import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from soundtag import archives
from soundtag import download as module
from soundtag.audio import wav_bytes
from soundtag.dataset import DataError, load_clips
from soundtag.archives import unpack
from soundtag.download import Source, download
from soundtag.studies.liars import (
    ANSWERS,
    ENTRY,
    ESC,
    GOOD,
    LISTS,
    list_of_files,
    lying_server,
    zipped,
)


def wav(k, n=4000):
    return wav_bytes(0.1 * np.random.default_rng(k).standard_normal(n), sr=8000)


TRAIN, TEST = range(30), range(30, 34)
FSD = {
    'audio_train': {f'FSDKaggle2018.audio_train/{k}.wav': wav(k) for k in TRAIN},
    'audio_test': {f'FSDKaggle2018.audio_test/{k}.wav': wav(k) for k in TEST},
    'meta': {
        'FSDKaggle2018.meta/train_post_competition.csv': 'fname,label,manually_verified,freesound_id,license\n'
        + ''.join(f'{k}.wav,{"Oboe" if k % 2 else "Flute"},1,{k},x\n' for k in TRAIN),
        'FSDKaggle2018.meta/test_post_competition_scoring_clips.csv': 'fname,label,usage,freesound_id,license\n'
        + ''.join(f'{k}.wav,Oboe,Public,{k},x\n' for k in TEST),
    },
    'doc': {
        'FSDKaggle2018.doc/README.md': 'what this is',
        'FSDKaggle2018.doc/LICENSE-DATASET': 'CC BY',
    },
}
class Server(ThreadingHTTPServer):
    "Files at /files/NAME with ranges, sizes and checksums at /api/records/1, one chunked archive at /master.zip."

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.home = f'http://127.0.0.1:{self.server_port}'
        self.files = {
            f'/files/FSDKaggle2018.{name}.zip': zipped(content) for name, content in FSD.items()
        }
        self.files['/master.zip'] = zipped(ESC)
        self.announce = {}  # path → what the list says instead of the truth
        self.breaks = []  # for each answer with a body from /files: bytes after which the line breaks, or None
        self.statuses = []  # for each answer: an error to send instead, or None
        self.ranges = 'good'  # good, ignored, or wrong
        self.pace = 0  # s between 16 kB
        self.asked, self.sent = [], 0
        self.zenodo = Source(f'{self.home}/api/records/1', 'the page', len(TRAIN) + len(TEST), 0)
        self.github = Source(f'{self.home}/master.zip', 'the page', 10, 1)
        threading.Thread(
            target=self.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True
        ).start()

    def handle_error(self, request, address):
        pass

    def listing(self):
        return [
            {
                'key': path.split('/')[-1],
                'size': len(body),
                'checksum': 'md5:' + hashlib.md5(body).hexdigest(),
                'links': {'self': self.home + path},
            }
            | self.announce.get(path, {})
            for path, body in self.files.items()
            if path.startswith('/files/')
        ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def do_GET(self):
        s = self.server
        s.asked.append((self.path, self.headers.get('Range')))
        status = s.statuses.pop(0) if s.statuses else None
        if status:
            return self.send_error(status)
        if self.path == '/api/records/1':
            return self.whole(json.dumps({'files': s.listing()}).encode())
        if self.path not in s.files:
            return self.send_error(404)
        if self.path == '/master.zip':
            return self.chunked(s.files[self.path])
        body, start = s.files[self.path], 0
        if s.ranges != 'ignored' and 'Range' in self.headers:
            start = int(re.fullmatch(r'bytes=(\d+)-', self.headers['Range'])[1])
        if start >= len(body):
            return self.send_error(416)
        if s.ranges == 'wrong' and start:
            start -= 1
        self.whole(body, start)

    def whole(self, body, start=0):
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(body) - 1}/{len(body)}')
        self.send_header('Content-Length', str(len(body) - start))
        self.end_headers()
        stop = (
            self.server.breaks.pop(0)
            if self.server.breaks and self.path.startswith('/files/')
            else None
        )
        self.send(body[start:][:stop])
        if stop is not None:
            self.close_connection = True

    def chunked(self, body):
        self.send_response(200)
        self.send_header('Transfer-Encoding', 'chunked')
        self.end_headers()
        stop = self.server.breaks.pop(0) if self.server.breaks else None
        for i in range(0, len(body[:stop]), 8192):
            piece = body[:stop][i : i + 8192]
            self.send(f'{len(piece):x}\r\n'.encode() + piece + b'\r\n')
        if stop is None:
            self.send(b'0\r\n\r\n')
        else:
            self.close_connection = True

    def send(self, data):
        for i in range(0, len(data), 16384):
            self.wfile.write(data[i : i + 16384])
            self.server.sent += len(data[i : i + 16384])
            if self.server.pace:
                time.sleep(self.server.pace)


@pytest.fixture
def server():
    s = Server()
    yield s
    s.shutdown()
    s.server_close()


def get(server, dest, name='fsdkaggle2018', source=None):
    return download(name, dest, source=source or server.zenodo, wait=0.002)


def whole(dest, parts=FSD):
    "Are exactly the published files there?"
    want = {
        name: c.encode() if isinstance(c, str) else c
        for content in parts.values()
        for name, c in content.items()
    }
    assert {
        p.relative_to(dest).as_posix(): p.read_bytes() for p in dest.rglob('*') if p.is_file()
    } == want
    return True


def test_both_archives(server, tmp_path):
    assert get(server, tmp_path / 'new/fsd') == tmp_path / 'new/fsd' and whole(tmp_path / 'new/fsd')
    assert len(load_clips(tmp_path / 'new/fsd').train) == 30
    get(server, tmp_path / 'esc', 'esc50', server.github)
    clips = load_clips(tmp_path / 'esc')
    assert (
        len(clips) == 10
        and set(clips.table.fold) == {1, 2, 3, 4, 5}
        and (tmp_path / 'esc/README.md').exists()
    )


def test_a_complete_folder_is_left_alone(server, tmp_path, capsys):
    get(server, tmp_path / 'fsd')
    server.asked.clear()
    get(server, tmp_path / 'fsd')
    assert (
        'already there' in capsys.readouterr().out and not server.asked and whole(tmp_path / 'fsd')
    )


def test_into_the_cache_by_default(server, tmp_path, monkeypatch):
    monkeypatch.setenv('SOUNDTAG_CACHE', str(tmp_path))
    assert get(server, None) == tmp_path / 'fsdkaggle2018'


def test_a_line_that_breaks_again_and_again(server, tmp_path):
    server.breaks = [None, 100, None, 50_000, 0, 40_000, 0, 0, 60_000]
    get(server, tmp_path / 'fsd')
    total = sum(len(b) for p, b in server.files.items() if p.startswith('/files/'))
    assert (
        whole(tmp_path / 'fsd')
        and server.sent < 1.6 * total + 5000
        and sum(bool(r) for _, r in server.asked) >= 3
    )


@pytest.mark.parametrize('ranges', ['ignored', 'wrong'])
def test_a_server_that_cannot_go_on_begins_again(server, tmp_path, ranges):
    server.ranges, server.breaks = ranges, [None, None, None, 50_000]
    get(server, tmp_path / 'fsd')
    assert whole(tmp_path / 'fsd')


def test_a_download_goes_on_days_later(server, tmp_path):
    server.breaks = [None, None, None] + [60_000] + [0] * 20
    with pytest.raises(
        DataError, match='no connection .* call again to go on, or get it by hand from the page'
    ):
        get(server, tmp_path / 'fsd')
    kept = (tmp_path / 'fsd/FSDKaggle2018.audio_train.zip.part').stat().st_size
    assert 32_768 <= kept <= 60_000
    server.breaks, server.asked[:] = [], []
    get(server, tmp_path / 'fsd')
    assert whole(tmp_path / 'fsd') and server.asked == [
        ('/api/records/1', None),
        ('/files/FSDKaggle2018.audio_train.zip', f'bytes={kept}-'),
    ]


def test_an_archive_that_changed_meanwhile(server, tmp_path):
    (tmp_path / 'fsd').mkdir()
    (tmp_path / 'fsd/FSDKaggle2018.audio_train.zip.part').write_bytes(
        b'from an older version' * 100
    )
    with pytest.raises(DataError, match='arrived damaged .* call again'):
        get(server, tmp_path / 'fsd')
    get(server, tmp_path / 'fsd')
    assert whole(tmp_path / 'fsd')


@pytest.mark.parametrize('status', [400, 401, 403, 404, 410])
def test_hopeless_errors_end_at_once(server, tmp_path, status):
    server.statuses = [None, status]
    with pytest.raises(DataError, match=f'the server says {status}'):
        get(server, tmp_path / 'fsd')
    assert len(server.asked) == 2


@pytest.mark.parametrize('status', [429, 500, 502, 503, 504])
def test_passing_errors_pass(server, tmp_path, status):
    server.statuses = [status, None, status, status]
    get(server, tmp_path / 'fsd')
    assert whole(tmp_path / 'fsd')


def test_errors_that_stay(server, tmp_path):
    server.statuses = [503] * 50
    with pytest.raises(DataError, match='no connection .503') as e:
        get(server, tmp_path / 'fsd')
    assert len(server.asked) == 5 and '\n' not in str(e.value)


def test_a_wrong_checksum_is_one_error_and_no_file(server, tmp_path):
    server.announce['/files/FSDKaggle2018.meta.zip'] = {'checksum': 'md5:' + '0' * 32}
    with pytest.raises(DataError, match='arrived damaged') as e:
        get(server, tmp_path / 'fsd')
    assert not list((tmp_path / 'fsd').glob('*meta*')) and str(e.value).count('damaged') == 1
    server.announce.clear()
    get(server, tmp_path / 'fsd')
    assert whole(tmp_path / 'fsd')


@pytest.mark.parametrize(
    'answer',
    [
        b'<html>under maintenance</html>',
        b'{}',
        b'[]',
        b'{"files": []}',
        b'{"files": [{"key": "a.zip"}]}',
    ],
)
def test_a_list_that_is_none(server, tmp_path, answer):
    server.files['/api/records/2'] = answer
    with pytest.raises(DataError, match='something else|no archives'):
        get(server, tmp_path / 'fsd', source=Source(f'{server.home}/api/records/2', '', 1, 0))


def test_a_name_in_the_list_cannot_leave_the_folder(server, tmp_path):
    server.announce['/files/FSDKaggle2018.doc.zip'] = {'key': '../../doc.zip'}
    get(server, tmp_path / 'a/b/fsd')
    assert whole(tmp_path / 'a/b/fsd') and [p.name for p in tmp_path.rglob('*.zip')] == []


def test_no_network(tmp_path):
    with pytest.raises(
        DataError, match='no connection .* by hand from the page and unpack it into'
    ) as e:
        download(
            'esc50',
            tmp_path / 'esc',
            source=Source('http://127.0.0.1:9/x.zip', 'the page', 1, 1),
            wait=0.001,
        )
    assert '\n' not in str(e.value)


def test_github_breaks_and_begins_again(server, tmp_path):
    server.breaks = [30_000, 20_000]
    get(server, tmp_path / 'esc', 'esc50', server.github)
    assert len(load_clips(tmp_path / 'esc')) == 10 and [r for _, r in server.asked] == [None] * 3


def test_github_sends_something_else(server, tmp_path):
    good, server.files['/master.zip'] = server.files['/master.zip'], b'<html>Whoa there!</html>'
    with pytest.raises(DataError, match='damaged'):
        get(server, tmp_path / 'esc', 'esc50', server.github)
    bad = bytearray(good)
    bad[len(good) // 2] ^= 255
    server.files['/master.zip'] = bytes(bad)
    with pytest.raises(DataError, match='damaged'):
        get(server, tmp_path / 'esc', 'esc50', server.github)
    server.files['/master.zip'] = good
    get(server, tmp_path / 'esc', 'esc50', server.github)
    assert len(load_clips(tmp_path / 'esc')) == 10


def test_esc50_must_be_complete_and_readable(server, tmp_path):
    for broken in (
        {k: v for k, v in ESC.items() if k != 'ESC-50-master/audio/3.wav'},
        {**ESC, 'ESC-50-master/audio/3.wav': b'no sound'},
    ):
        server.files['/master.zip'] = zipped(broken)
        with pytest.raises(DataError, match='missing or damaged'):
            get(server, tmp_path / 'esc', 'esc50', server.github)
    server.files['/master.zip'] = zipped(ESC)
    get(server, tmp_path / 'esc', 'esc50', server.github)
    assert load_clips(tmp_path / 'esc').table.seconds.notna().all()


def test_a_full_disk_while_downloading(server, tmp_path, monkeypatch):
    real = module.tqdm.update

    def full(bar, n=1):
        if bar.n > 40_000:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return real(bar, n)

    monkeypatch.setattr(module.tqdm, 'update', full)
    with pytest.raises(DataError, match='disk is full; make room and call again'):
        get(server, tmp_path / 'fsd')
    monkeypatch.undo()
    assert (tmp_path / 'fsd/FSDKaggle2018.audio_train.zip.part').stat().st_size > 30_000
    get(server, tmp_path / 'fsd')
    assert whole(tmp_path / 'fsd')


def test_a_full_disk_while_unpacking(server, tmp_path, monkeypatch):
    real, count = archives.extract, iter(range(10))

    def full(*args):
        if next(count, None) is None:
            raise OSError(errno.ENOSPC, 'No space left on device')
        real(*args)

    monkeypatch.setattr(archives, 'extract', full)
    with pytest.raises(DataError, match='disk is full'):
        get(server, tmp_path / 'fsd')
    monkeypatch.undo()
    server.asked.clear()
    get(server, tmp_path / 'fsd')
    assert (
        whole(tmp_path / 'fsd') and len({p for p, _ in server.asked}) < 4
    )  # what was there was not fetched again


def test_too_large_for_the_disk_is_said_at_once(server, tmp_path):
    server.announce['/files/FSDKaggle2018.audio_train.zip'] = {'size': 10**16}
    with pytest.raises(DataError, match='10000000.0 GB more'):
        get(server, tmp_path / 'fsd')
    assert not any('audio_train' in p for p, _ in server.asked)


def test_unpacking_takes_the_space_once(tmp_path):
    files = {f'{k}.bin': np.random.default_rng(k).bytes(50_000) for k in range(40)}
    (tmp_path / 'a.zip').write_bytes(zipped(files, method=zipfile.ZIP_STORED))
    most, real = 0, archives.extract

    def watched(z, info, path):
        nonlocal most
        real(z, info, path)
        most = max(most, sum(p.stat().st_size for p in tmp_path.rglob('*') if p.is_file()))

    archives.extract = watched
    try:
        unpack(tmp_path / 'a.zip', tmp_path)
    finally:
        archives.extract = real
    assert (
        most < 2_000_000 + 2 * 50_000 + 20_000
        and {p.name: p.read_bytes() for p in tmp_path.iterdir()} == files
    )


LINK = stat.S_IFLNK | 0o777
HOSTILE = {
    'up': zipped({'ok.txt': b'', '../evil.txt': b'x'}),
    'deep up': zipped({'a/../../evil.txt': b'x'}),
    'rooted': zipped({'/etc/soundtag-evil.txt': b'x'}),
    'backslash': zipped({'..\\evil.txt': b'x'}),
    'drive': zipped({'C:/evil.txt': b'x'}),
    'link': zipped({'link': b'/etc'}, LINK),
    'device': zipped({'dev': b''}, stat.S_IFCHR | 0o666),
    'bomb': zipped({'zeros': bytes(50_000_000)}, method=zipfile.ZIP_BZIP2),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_a_hostile_archive_writes_nothing(server, tmp_path, name):
    server.files = {'/files/FSDKaggle2018.doc.zip': HOSTILE[name]}
    with pytest.raises(DataError, match='not the published archive') as e:
        get(server, tmp_path / 'in/fsd')
    assert '\n' not in str(e.value)
    assert {p.name for p in tmp_path.rglob('*') if p.is_file()} <= {
        'FSDKaggle2018.doc.zip',
        '.soundtag_download.lock',
    }


def test_a_member_that_lies_about_its_size(server, tmp_path):
    body = bytearray(zipped({'a.txt': bytes(100_000)}))
    at = body.rindex(b'PK\x01\x02')
    body[at + 24 : at + 28] = (10).to_bytes(4, 'little')  # the table of contents says 10 bytes
    server.files = {'/files/FSDKaggle2018.doc.zip': bytes(body)}
    with pytest.raises(DataError, match='damaged'):
        get(server, tmp_path / 'fsd')
    assert not (tmp_path / 'fsd/a.txt').exists()


def test_one_download_at_a_time(server, tmp_path):
    server.pace = 0.02
    first = threading.Thread(target=get, args=(server, tmp_path / 'fsd'))
    first.start()
    while not list(tmp_path.glob('fsd/*.part')):
        time.sleep(0.005)
    with pytest.raises(DataError, match='another download'):
        get(server, tmp_path / 'fsd')
    server.pace = 0
    first.join()
    assert whole(tmp_path / 'fsd')


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork to start twenty downloads quickly')
def test_killed_twenty_times(server, tmp_path):
    server.pace = 0.002
    code = '''
import os, random, signal, sys, time
from pathlib import Path
from soundtag.download import Source, download
home, dest, clips = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
random.seed(0)
sys.stderr = open(os.devnull, 'w')
kills = 0
for attempt in range(60):
    child = os.fork()
    if not child:
        download('fsdkaggle2018', dest, source=Source(home + '/api/records/1', '', clips, 0), wait=.01)
        os._exit(0)
    began, wanted = time.time(), random.uniform(.01, .15) if kills < 20 else 60
    while (gone := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.time() - began < wanted: time.sleep(.002)
    if gone != (0, 0):
        assert gone[1] == 0, gone
        if kills >= 20: break
        import shutil; shutil.rmtree(dest)            # it was done before it could be killed: once more from the start
        continue
    os.kill(child, signal.SIGKILL); os.waitpid(child, 0); kills += 1
print(kills)
'''
    out = subprocess.run(
        [sys.executable, '-c', code, server.home, tmp_path / 'fsd', str(len(TRAIN) + len(TEST))],
        capture_output=True,
        text=True,
    )
    assert out.stdout.split()[-1:] == ['20'], out.stderr
    assert whole(tmp_path / 'fsd')


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork to start many downloads quickly')
def test_killed_before_every_step(server, tmp_path):
    "Whichever file is the last that is renamed or removed: no other files pass for the published ones afterwards, and the next call ends with those."
    few = {name: f'FSDKaggle2018.{name}/{k}.wav' for name, k in (('audio_train', 0), ('audio_test', 30))}
    parts = FSD | {name: {path: FSD[name][path]} for name, path in few.items()}
    parts['meta'] = {path: '\n'.join(text.splitlines()[:2]) for path, text in FSD['meta'].items()}
    server.files = {f'/files/FSDKaggle2018.{name}.zip': zipped(p) for name, p in parts.items()}
    code = '''
import os, signal, sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from soundtag.dataset import DataError
from soundtag.download import Source, download
published = Source(sys.argv[1], '', 2, 0, files=('**/*.wav',))
other = replace(published, digest='0' * 64)

def end_of_download(source, place, steps=iter(())):
    if child := os.fork():
        return os.waitpid(child, 0)[1]

    def watch(event, args):
        step = event in ('os.remove', 'os.rename') and str(place) in str(args[0])
        if step and not str(args[0]).endswith('.lock') and not next(steps, 1):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    sys.stdout = sys.stderr = open(os.devnull, 'w')
    try:
        download('esc50', place, source=source, wait=0.01)
    except DataError as e:
        os._exit(1 if 'not those that were published' in str(e) else 2)
    os._exit(0)

download('esc50', Path(sys.argv[2], 'first'), source=published)  # it imports what each would
for k in count():
    place = Path(sys.argv[2], str(k))
    killed = end_of_download(published, place, iter(range(k, -1, -1)))  # k steps are taken
    print(k, killed, end_of_download(other, place) >> 8, end_of_download(published, place))
    if killed != signal.SIGKILL:
        break
'''
    url = f'{server.home}/api/records/1'
    done = subprocess.run([sys.executable, '-c', code, url, tmp_path], capture_output=True, text=True)
    *kills, last = [line.split() for line in done.stdout.splitlines()]
    assert len(kills) > 20 and last[1:] == ['0', '0', '0'], done.stderr
    for k, *ends in kills:
        assert ends == ['9', '1', '0'] and whole(tmp_path / k, parts), (k, ends)


# A server that lies


@pytest.fixture
def liar():
    with lying_server() as s:
        yield s


@pytest.mark.parametrize('name', ANSWERS)
def test_answers_that_are_no_archive(liar, tmp_path, name):
    answer, expected = ANSWERS[name]
    liar.RequestHandlerClass.answers = {'/x.zip': answer}
    source = Source(f'{liar.home}/x.zip', 'the page', 10, 1, most=1_000_000)
    began = time.monotonic()
    with pytest.raises(DataError, match=expected) as e:
        download('esc50', tmp_path / 'esc', source=source, wait=0.001)
    assert '\n' not in str(e.value) and time.monotonic() - began < 5
    kept = sum(p.stat().st_size for p in tmp_path.rglob('*') if p.is_file())
    assert kept <= 1_000_000
    assert not list(tmp_path.rglob('*.lock'))


@pytest.mark.parametrize('name', LISTS)
def test_lists_that_are_none(liar, tmp_path, name):
    body = list_of_files(LISTS[name], liar.home)
    liar.RequestHandlerClass.answers = {
        '/list': lambda h: h.reply(body),
        '/file': lambda h: h.reply(GOOD),
    }
    with pytest.raises(DataError) as e:
        get(None, tmp_path / 'x', source=Source(f'{liar.home}/list', 'the page', 10, 1))
    assert '\n' not in str(e.value) and len(str(e.value)) < 500
    assert not list((tmp_path / 'x').iterdir())


def test_a_list_without_end(liar, tmp_path):
    liar.RequestHandlerClass.answers = {'/list': lambda h: h.forever(b'a' * 65536)}
    with pytest.raises(DataError, match='more than a list'):
        get(None, tmp_path / 'x', source=Source(f'{liar.home}/list', 'the page', 10, 1))


def test_a_line_that_breaks_within_every_block(liar, tmp_path):
    "3,000 bytes an answer, and no more: far below the size of a block."

    def answer(h):
        start = int(re.fullmatch(r'bytes=(\d+)-', h.headers['Range'])[1]) if 'Range' in h.headers else 0
        span = f'bytes {start}-{len(GOOD) - 1}/{len(GOOD)}'
        ranged = {'Content_Range': span} if start else {}
        h.reply(b'', 206 if start else 200, Content_Length=len(GOOD) - start, **ranged)
        h.wfile.write(GOOD[start : start + 3000])

    body = json.dumps({'files': [ENTRY]}).replace('HOME', liar.home).encode()
    liar.RequestHandlerClass.answers = {'/list': lambda h: h.reply(body), '/file': answer}
    get(None, tmp_path / 'x', 'esc50', Source(f'{liar.home}/list', 'the page', 10, 1))
    assert len(load_clips(tmp_path / 'x')) == 10


def test_a_server_that_refuses_ranges_gets_a_new_start(liar, tmp_path):
    asked = []

    def answer(h):
        asked.append('Range' in h.headers)
        if asked[-1]:
            return h.reply(status=416)
        h.reply(b'', Content_Length=len(GOOD))
        h.wfile.write(GOOD if len(asked) > 2 else GOOD[:2000])

    body = json.dumps({'files': [ENTRY]}).replace('HOME', liar.home).encode()
    liar.RequestHandlerClass.answers = {'/list': lambda h: h.reply(body), '/file': answer}
    get(None, tmp_path / 'x', 'esc50', Source(f'{liar.home}/list', 'the page', 10, 1))
    assert asked == [False, True, False]


@pytest.mark.parametrize('way', ['drips', 'stalls'])
def test_a_server_that_drips_or_stalls_is_given_up(liar, tmp_path, way):
    from soundtag.download import Patience, Remote, fetch

    def answer(h):
        h.reply(Content_Length=1000)
        while way == 'drips':
            h.wfile.write(b'.')
            time.sleep(0.02)
        time.sleep(2)

    liar.RequestHandlerClass.answers = {'/x': answer}
    patience = Patience(read=0.2, rate=1000, slow=0.3)
    began = time.monotonic()
    with pytest.raises((DataError, OSError)):
        fetch(Remote('x', f'{liar.home}/x', 1000, '0' * 32), tmp_path, patience=patience, wait=0.01)
    assert time.monotonic() - began < 2


def test_https_may_not_lead_to_less():
    from soundtag.download import check_url

    for url in ('http://zenodo.org/a.zip', 'ftp://zenodo.org/a.zip', 'HTTP://x/', '//', '', None):
        with pytest.raises(DataError, match='leads to'):
            check_url(url, 'https://zenodo.org/api/records/1')
    check_url('https://elsewhere.org/a.zip', 'https://zenodo.org/api/records/1')
    check_url('http://127.0.0.1/a.zip', 'http://127.0.0.1/list')


def test_a_redirect_from_https_to_http_is_not_followed(monkeypatch, tmp_path):
    import requests

    asked = []

    def answer(url, **options):
        asked.append(url)
        r = requests.Response()
        r.status_code, r.url, r.raw = 302, url, io.BytesIO()
        r.headers['location'] = 'http://127.0.0.1:9/evil.zip'
        return r

    monkeypatch.setattr(requests, 'get', answer)
    with pytest.raises(DataError, match='leads to http://127.0.0.1:9'):
        source = Source('https://archive.test/x.zip', 'the page', 10, 1)
        download('esc50', tmp_path / 'x', source=source)
    assert asked == ['https://archive.test/x.zip']


@pytest.mark.parametrize(
    'files',
    [
        {'top': b'x'},
        {'ESC-50-master/': b'', 'ESC-50-master/.': b'x'},
        {'ESC-50-master/./a': b'x'},
        {'ESC-50-master//a': b'x'},
        {'ESC-50-master/..': b'x'},
        {'./a': b'x'},
        {'/a': b'x'},
        {'ESC-50-master/a:b': b'x'},
        {'ESC-50-master/a/': b'', 'ESC-50-master/a': b'x'},
        {'ESC-50-master/a': b'x', 'ESC-50-master/a/b': b'x'},
        {'ESC-50-master/a': b'x', 'other/a': b'x'},
        {'ESC-50-master/' + 'a' * 300: b'x'},
        {'ESC-50-master/' + 'é' * 200: b'x'},
        {'ESC-50-master/' + 'a/' * 600 + 'b': b'x'},
        {'ESC-50-master/.soundtag_download.lock': b'x'},
        {'ESC-50-master/.soundtag_download.json': b'["archive.zip"]'},
        {'ESC-50-master/archive.zip': b'x'},
        {'ESC-50-master/archive.zip.contents': b'5\nabc'},
        {'ESC-50-master/audio/.part-1-1-0.wav': b'x'},
        {'ESC-50-master/audio/0.wav.part': b'x'},
    ],
    ids=lambda files: list(files)[-1][:40],
)
def test_members_that_no_data_set_holds(liar, tmp_path, files):
    body = zipped({**ESC, **files})
    liar.RequestHandlerClass.answers = {'/x.zip': lambda h: h.reply(body)}
    (tmp_path / 'in').mkdir()
    source = Source(f'{liar.home}/x.zip', 'the page', 10, 1)
    with pytest.raises(DataError, match='not the published archive'):
        download('esc50', tmp_path / 'in/esc', source=source)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*') if p.is_file()}
    assert left == {'in/esc/archive.zip'}


@pytest.mark.parametrize('seed', range(40))
def test_a_flipped_archive_is_refused_or_whole(tmp_path, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(GOOD)
    start = len(data) - 1600 if seed % 2 else 0
    for at in rng.integers(start, len(data), int(rng.choice([1, 3, 30]))):
        data[at] ^= 1 << rng.integers(8)
    (tmp_path / 'x.zip').write_bytes(data)
    (tmp_path / 'in').mkdir()
    try:
        unpack(tmp_path / 'x.zip', tmp_path / 'in', strip=1)
    except DataError as e:
        assert '\n' not in str(e)
    assert {p.name for p in tmp_path.iterdir()} <= {'x.zip', 'x.zip.contents', 'in'}


def test_esc50_is_one_commit_and_its_files_are_checked(server, tmp_path):
    from dataclasses import replace

    esc = module.SOURCES['esc50']
    assert re.search(r'/archive/[0-9a-f]{40}\.zip$', esc.url) and len(esc.digest) == 64
    get(server, tmp_path / 'esc', 'esc50', server.github)
    lines = ''.join(
        f'{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tmp_path / "esc")}\n'
        for path in [*sorted((tmp_path / 'esc/audio').iterdir()), tmp_path / 'esc/meta/esc50.csv']
    )
    digest = hashlib.sha256(lines.encode()).hexdigest()
    pinned = replace(server.github, files=esc.files, digest=digest)
    get(server, tmp_path / 'same', 'esc50', pinned)
    server.files['/master.zip'] = zipped({**ESC, 'ESC-50-master/audio/3.wav': wav(99)})
    with pytest.raises(DataError, match='not those that were published; delete the folder'):
        get(server, tmp_path / 'other', 'esc50', pinned)


def test_no_lock_stays_behind(server, tmp_path):
    server.statuses = [404]
    with pytest.raises(DataError):
        get(server, tmp_path / 'x')
    assert not list(tmp_path.rglob('*.lock'))
