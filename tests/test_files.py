"Chapter 00 from outside: whole files or none, in threads, processes and when somebody dies."

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from soundtag import files
from soundtag.files import cache_dir, file_lock, read_json, write_file, write_npy


@pytest.mark.parametrize(
    'data, content', [('ä\n', 'ä\n'.encode()), (b'\0\xff', b'\0\xff'), ('', b'')]
)
def test_what_is_written_is_read(tmp_path, data, content):
    path = tmp_path / 'a/b/file.txt'
    assert write_file(path, data) == path and path.read_bytes() == content
    assert write_file(str(path), data) == path
    assert [p.name for p in path.parent.iterdir()] == ['file.txt']


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt, SystemExit])
def test_a_writer_that_dies_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = write_file(tmp_path / 'model.keras', 'old')

    def dies(part):
        assert part.suffix == '.keras' and part.parent == tmp_path and part != path
        part.write_text('half')
        raise error

    with pytest.raises(error):
        write_file(path, dies)
    assert path.read_text() == 'old' and [p.name for p in tmp_path.iterdir()] == ['model.keras']


def test_readers_and_many_writers_see_whole_files_only(tmp_path):
    path = write_file(tmp_path / 'file', 'a' * 100_000)
    contents, stop = set(), threading.Event()

    def read():
        while not stop.is_set():
            text = path.read_text()
            contents.add((len(text), len(set(text))))

    def write(letter):
        for _ in range(40):
            write_file(path, letter * 100_000)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(letter,)) for letter in 'bcd']
    for t in (reader, *writers):
        t.start()
    for t in writers:
        t.join()
    stop.set()
    reader.join()
    assert contents == {(100_000, 1)} and [p.name for p in tmp_path.iterdir()] == ['file']


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = write_file(tmp_path / 'file', 'old')
    code = (
        'import sys, time\nfrom soundtag.files import write_file\n'
        'def slow(part):\n    part.write_text("half")\n    print("half", flush=True)\n'
        '    time.sleep(60)\nwrite_file(sys.argv[1], slow)'
    )
    child = subprocess.Popen([sys.executable, '-c', code, path], stdout=subprocess.PIPE)
    assert child.stdout.readline().strip() == b'half'
    child.kill()
    child.communicate()
    assert path.read_text() == 'old'


def test_arrays(tmp_path):
    array = np.arange(6, dtype='float16').reshape(2, 3)
    np.testing.assert_array_equal(np.load(write_npy(tmp_path / 'x.npy', array)), array)
    with pytest.raises(ValueError, match='[Oo]bject'):
        write_npy(tmp_path / 'y.npy', np.array([print], object))
    assert [p.name for p in tmp_path.iterdir()] == ['x.npy']


def test_json_that_is_missing_and_json_that_is_damaged(tmp_path):
    assert read_json(tmp_path / 'none.json', default=None) is None
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / 'none.json')
    for text in (b'', b'{"a": ', b'\xff\xfe'):
        (tmp_path / 'bad.json').write_bytes(text)
        with pytest.raises(ValueError, match='bad.json: is damaged, .* make it again') as e:
            read_json(tmp_path / 'bad.json', default={})
        assert '\n' not in str(e.value)


def test_a_lock_is_for_one_at_a_time(tmp_path):
    inside, most, waited = [], [], []

    def work(k):
        with file_lock(tmp_path / 'new/lock', on_wait=lambda: waited.append(k)):
            inside.append(k)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert most == [1] * 5 and len(waited) == len(set(waited)) >= 1


def test_a_lock_refuses_or_is_free_again_after_an_error(tmp_path):
    with file_lock(tmp_path / 'lock'):
        with pytest.raises(BlockingIOError, match='another process'):
            with file_lock(tmp_path / 'lock', wait=False):
                pass
    with pytest.raises(ZeroDivisionError):
        with file_lock(tmp_path / 'lock'):
            1 / 0
    with file_lock(tmp_path / 'lock', wait=False):
        pass


def test_the_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv('SOUNDTAG_CACHE', str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv('SOUNDTAG_CACHE')
    assert cache_dir().name == 'soundtag' and cache_dir() != tmp_path


KILLED = """
import os, signal, sys
from pathlib import Path
import soundtag.dataset as dataset
def killed(part, *args, **kwargs):
    (Path(part) / 'clip.wav').write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
dataset.write_mini = killed
dataset.mini(sys.argv[1])
"""


def test_what_a_killed_program_left_is_removed_by_the_next(tmp_path, monkeypatch):
    import soundtag.dataset as dataset
    from soundtag.files import scratch_folder

    few = dataset.mini_plan(0).groupby('label').head(2)  # clips of the set, so that it is made soon
    monkeypatch.setattr(dataset, 'mini_plan', lambda seed: few)
    for _ in range(2):
        subprocess.run([sys.executable, '-c', KILLED, tmp_path / 'mini'])
        left = sorted(p.name for p in tmp_path.iterdir())
        assert len(left) == 2 and all(name.startswith('.mini-') for name in left)
    with scratch_folder(tmp_path, '.mini-') as at_work:
        assert len(dataset.mini(tmp_path / 'mini')) == len(few)
        assert at_work.exists()  # somebody else makes a set beside it
    assert [p.name for p in tmp_path.iterdir()] == ['mini']


def test_a_folder_in_progress_goes_whatever_happens(tmp_path):
    from soundtag.files import scratch_folder

    with pytest.raises(KeyError), scratch_folder(tmp_path / 'new', '.x-') as folder:
        (folder / 'a').write_text('a')
        raise KeyError
    assert not list((tmp_path / 'new').iterdir())


def test_two_that_begin_at_once_leave_each_other_alone(tmp_path, monkeypatch):
    "A folder is not there before it is locked, or who comes between would take it for one that was left."
    real = files.file_lock

    def disturbed(path, **options):
        if not options:  # the owner's lock, whose file is there and is not held yet
            path.touch()
            for left in {path.with_name(p.name.removesuffix('.lock')) for p in tmp_path.iterdir()}:
                files.remove_left(left)
        return real(path, **options)

    monkeypatch.setattr(files, 'file_lock', disturbed)
    with files.scratch_folder(tmp_path, '.x-') as folder:
        assert folder.is_dir()
    assert not list(tmp_path.iterdir())


def test_what_is_done_meanwhile_needs_no_removal(tmp_path):
    files.remove_left(tmp_path / '.x-done')
    assert not list(tmp_path.iterdir())
