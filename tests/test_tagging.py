"The bundled model: what it answers without TensorFlow, and what hostile files do to it."

import json
import os
import resource
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from soundtag.tagging import (
    OLD_NAMES,
    TAGGING_MODEL,
    Calibration,
    ModelError,
    Tagger,
    make_tagger,
    temperature_scale,
)

HEAVY = 'tensorflow', 'keras', 'librosa', 'sklearn', 'numba'


@pytest.fixture(scope='module')
def tagger():
    return Tagger.load()


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    from soundtag.miniset import mini_clip

    path = tmp_path_factory.mktemp('clip') / 'hat.wav'
    sf.write(path, mini_clip('Hi-hat', 1, 0, seed=0), 44100)
    return path


def soundtag(*words, limit=60):
    "The command in a process of its own, which may take 1 GB."

    def limits():
        resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))

    start = time.perf_counter()
    done = subprocess.run(
        [Path(sys.executable).parent / 'soundtag', *map(str, words)],
        capture_output=True,
        text=True,
        timeout=limit,
        preexec_fn=limits,
    )
    return done.returncode, done.stdout, done.stderr, time.perf_counter() - start


def test_the_bundled_model_is_small_and_comes_with_its_card():
    folder = Path(TAGGING_MODEL).parent
    assert Path(TAGGING_MODEL).stat().st_size < 3e6
    names = {p.name for p in folder.iterdir() if not p.name.startswith('.')}
    assert {'sounds.onnx', 'README.md', 'sources.csv'} <= names
    licences = {
        line.rsplit(',', 1)[1]
        for line in (folder / 'sources.csv').read_text('utf-8').splitlines()[1:]
    }
    assert licences <= {'CC-BY', 'CC0', 'Attribution', 'Creative Commons 0'}


def test_tagging_needs_nothing_heavy(clip):
    code = f'import sys\nfor name in {HEAVY}: sys.modules[name] = None\nfrom soundtag.cli import main\nsys.exit(main(["tag", {str(clip)!r}, "--model", "bundled"]))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith(f'{clip}: '), done.stderr


def test_silence_around_a_short_sound_changes_nothing(tagger):
    "The sound is as long as whole frames, and starts with one, so that the same samples are left."
    from soundtag.miniset import mini_clip

    frame = 882
    sound = mini_clip('Hi-hat', 1, 0, seed=0)[: 12 * frame]
    alone = tagger.probabilities(sound, 44100)
    for before, after in (
        (0, 20),
        (15, 0),
        (30, 40),
        (100, 80),
    ):  # in frames of 20 ms; a window has 200
        y = np.concatenate([np.zeros(before * frame), sound, np.zeros(after * frame)]).astype(
            'float32'
        )
        np.testing.assert_allclose(tagger.probabilities(y, 44100), alone, atol=1e-6)


def test_blocks_files_and_arrays_give_one_answer(tagger, clip):
    y, sr = sf.read(clip, dtype='float32')
    assert tagger.tag(clip) == tagger.tag(y, sr)
    np.testing.assert_allclose(
        tagger.probabilities(np.stack([y, y]), sr), tagger.probabilities(y, sr), atol=1e-5
    )


def bomb(path):
    "An hour of silence, less than 1 MB; 1.3 GB as double precision."
    with sf.SoundFile(path, 'w', 44100, 1, format='FLAC') as f:
        for _ in range(360):
            f.write(np.zeros(441_000, 'int16'))


def promises(path):
    "A header that promises 4 GB."
    sf.write(path, np.zeros(100), 44100, format='WAV')
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b'\xff\xff\xff\xff'
    path.write_bytes(data)


def archive(path):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('sound', bytes(200_000_000))


def channels(path):
    "A header with as many channels as fit."
    sf.write(path, np.random.default_rng(0).uniform(-1, 1, 44100), 44100, format='WAV')
    data = bytearray(path.read_bytes())
    data[22:24] = b'\xff\x03'
    path.write_bytes(data)


@pytest.mark.parametrize('make', [promises, archive, channels], ids=lambda f: f.__name__)
def test_a_hostile_file_is_named_and_nothing_else(make, clip, tmp_path):
    path = tmp_path / 'x.wav'
    make(path)
    code, out, err, _ = soundtag('tag', path, clip, '--model', 'bundled')
    assert code in (0, 1) and f'{clip}: ' in out and 'Traceback' not in err
    assert str(path) in out + err


def test_a_bomb_goes_by_in_little_memory(tmp_path):
    bomb(tmp_path / 'x.flac')
    code, out, err, _ = soundtag('tag', tmp_path / 'x.flac', '--model', 'bundled', limit=300)
    assert (code, out) == (0, f"{tmp_path / 'x.flac'}: silence 100.0%\n"), err


MUTANTS = """
import io, re, sys, time
from pathlib import Path
import numpy as np
import soundfile as sf
import random
from soundtag.audio import AudioError
from soundtag.studies.damage import mutate
from soundtag.tagging import Tagger
tagger, rng, folder, (y, sr) = Tagger.load(), random.Random(0), Path(sys.argv[3]), sf.read(sys.argv[1])
originals = []
for form, subtype in (('WAV', 'PCM_16'), ('FLAC', 'PCM_16'), ('OGG', 'VORBIS'), ('MP3', 'MPEG_LAYER_III'), ('AIFF', 'PCM_16')):
    sf.write(buffer := io.BytesIO(), y[:sr // 2], sr, format=form, subtype=subtype)
    originals.append((form.lower(), buffer.getvalue()))
outcomes, longest = {'answered': 0, 'refused': 0}, 0
for n in range(int(sys.argv[2])):
    form, data = originals[n % 5]
    path = folder / f'x.{form}'
    path.write_bytes(mutate(data, rng))
    start = time.perf_counter()
    try: outcomes['answered'] += bool(tagger.tag(path))
    except AudioError as e:
        outcomes['refused'] += 1
        assert str(path) in str(e) and chr(10) not in str(e)
    longest = max(longest, time.perf_counter() - start)
print(*outcomes.values(), longest, re.search('VmHWM: *(.*) kB', Path('/proc/self/status').read_text().replace(chr(9), ' '))[1])
"""


def test_mutated_recordings_are_answered_or_refused(clip, tmp_path):
    "10,000 of them when SOUNDTAG_MUTANTS says so; in a process of its own, whose memory is measured (ru_maxrss would count that of the process it was forked from)."
    words = [clip, os.environ.get('SOUNDTAG_MUTANTS', 200), tmp_path]
    done = subprocess.run(
        [sys.executable, '-c', MUTANTS, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answered, refused, seconds, kilobytes = map(float, done.stdout.split())
    assert answered > 0 and refused > 0 and seconds < 5 and kilobytes < 1e6


def test_what_is_shorter_than_a_sample_is_refused():
    from soundtag.audio import AudioError

    with pytest.raises(AudioError, match='array: holds no samples'):
        Tagger.load().tag(np.zeros(0), sr=44100)
    with pytest.raises(AudioError, match='no sampling rate'):
        Tagger.load().tag(np.array([0.1]), sr=10_000_000)
    with pytest.warns(UserWarning, match='too short to judge'):
        assert Tagger.load().tag(np.array([0.1]), sr=8000) == [('unknown', 1.0)]


def test_a_model_cannot_read_other_files(tmp_path):
    "ONNX lets weights lie in files beside the model; ours must not reach for any."
    import onnx

    proto = onnx.load(TAGGING_MODEL)
    (tmp_path / 'secret').write_bytes(bytes(4_000_000))
    weight = max(proto.graph.initializer, key=lambda t: len(t.raw_data))
    weight.ClearField('raw_data')
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (('location', str(tmp_path / 'secret')), ('offset', '0')):
        weight.external_data.add(key=key, value=value)
    (tmp_path / 'x.onnx').write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match='x.onnx'):
        Tagger.load(tmp_path / 'x.onnx')


def test_a_model_of_another_make_is_refused(tmp_path):
    import onnx

    proto = onnx.load(TAGGING_MODEL)
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path / 'x.onnx')
    with pytest.raises(ModelError, match='soundtag export'):
        Tagger.load(tmp_path / 'x.onnx')


OLD = {
    'labels': ['loud', 'soft'],
    'sr': 8000,
    'seconds': 1.0,
    'short': 'repeat',
    'silence': 60,
    'temperature': 1.5,
    'unknown': 0.4,
    'thresholds': {'loud': 0.5, 'soft': 0.3},
}


def loud_or_soft(X):
    return np.where(np.abs(X).max(1, keepdims=True) > 0.5, [[0.9, 0.1]], [[0.2, 0.8]])


def test_metadata_is_read_under_old_and_new_names():
    new = {OLD_NAMES.get(name, name): value for name, value in OLD.items()}
    assert 'fill' in new and 'trim_db' in new and len(new) == len(OLD)
    by_old, by_new = (make_tagger('x', loud_or_soft, json.dumps(m)) for m in (OLD, new))
    assert by_old == by_new
    assert (by_old.fill, by_old.trim_db) == ('repeat', 60)
    assert by_old.calibration == Calibration(1.5, 0.4, {'loud': 0.5, 'soft': 0.3})


def test_what_is_exported_is_what_is_read():
    from soundtag.export import metadata_json

    tagger = Tagger.load()
    text = metadata_json(tagger)
    assert not OLD_NAMES.keys() & json.loads(text).keys()
    assert replace(make_tagger('x', tagger.predict, text), predict=tagger.predict) == tagger


@pytest.mark.parametrize(
    'change, problem',
    [
        ({'labels': ['loud']}, 'labels: not 2 to 10,000'),
        ({'labels': ['loud', None]}, 'labels: not all are text'),
        ({'labels': ['a', 'b', 'c'], 'thresholds': None}, 'the model gives other labels'),
        ({'sr': float('nan')}, 'sr: not a number'),
        ({'seconds': '1'}, 'seconds: not a number'),
        ({'temperature': 0}, 'temperature: not a number from 0.05 to 20'),
        ({'unknown': -1}, 'unknown: not a number from 0 to 1'),
        ({'short': 'exec'}, 'fill: neither pad nor repeat'),
        ({'silence': 0}, 'trim_db: not a number from 1 to 200'),
        ({'thresholds': {'loud': 0.5}}, 'thresholds: not of all labels'),
        ({'thresholds': {'loud': 0.5, 'soft': 2}}, 'thresholds: not numbers from 0 to 1'),
    ],
    ids=lambda x: x if isinstance(x, str) else '',
)
def test_metadata_that_cannot_be_meant_is_refused_by_name(change, problem):
    with pytest.raises(ModelError, match=f'x.onnx: .*{problem}.*soundtag export'):
        make_tagger('x.onnx', loud_or_soft, json.dumps(OLD | change))
    with pytest.raises(ModelError, match='it has no metadata'):
        make_tagger('x.onnx', loud_or_soft, None)


def test_a_model_that_gives_no_numbers_is_refused():
    metadata = json.dumps(OLD)
    with pytest.raises(ModelError, match='gives no numbers'):
        make_tagger('x.onnx', lambda X: np.full((len(X), 2), np.nan), metadata)


def test_a_temperature_leaves_the_order_and_one_changes_nothing():
    p = np.random.default_rng(0).dirichlet(np.ones(5), 20)
    np.testing.assert_allclose(temperature_scale(p, 1), p)
    for temperature in (0.1, 0.7, 3):
        q = temperature_scale(p, temperature)
        np.testing.assert_allclose(q.sum(-1), 1)
        np.testing.assert_array_equal(q.argsort(-1), p.argsort(-1))
    assert (temperature_scale(p, 3).max(-1) <= p.max(-1)).all()
