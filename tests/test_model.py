"Chapter 06 from outside: sizes, files that restore alone, features inside the network, the generator."

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import librosa
import numpy as np
import pytest
from conftest import some
from warm import Forked

from soundtag.audio import AudioError, fix_length, load_audio
from soundtag.dataset import load_clips, mini
from soundtag.mfcc import MFCC, LogMel
from soundtag.model import AudioSequence, FeatureLayer, _dft_tables, post_cnn, raw_cnn, standardized

POST = MFCC(sr=44100, n_mfcc=40, hop_length=512)
SETTINGS = [
    POST,
    LogMel(sr=44100, n_mels=64, hop_length=512),
    MFCC(sr=16000, n_fft=400, win_length=320, hop_length=160, n_mels=40),
    LogMel(sr=8000, n_fft=255, hop_length=77, n_mels=20),
    LogMel(sr=44100, hop_length=512, center=False, top_db=None, ref=0.5, amin=1e-8),
]


@pytest.fixture(scope='module')
def clips():
    return mini()


@pytest.fixture(scope='module')
def sounds():
    "Two seconds at 44.1 kHz of each of some clips: the real recordings where SOUNDTAG_DATA says they are, else synthetic ones."
    data = os.environ.get('SOUNDTAG_DATA')
    sets = (
        [load_clips(Path(data) / n, allow_missing=True) for n in ('FSDKaggle2018', 'ESC-10')]
        if data
        else [mini()]
    )
    paths = [p for s in sets for p in some(s)]
    return np.stack(
        [
            fix_length(load_audio(p, sr=44100)[0], 88200, rng=np.random.default_rng(i))
            for i, p in enumerate(paths)
        ]
    )


def in_batches(layer, y):
    return np.concatenate(
        [keras.ops.convert_to_numpy(layer(y[i : i + 32])) for i in range(0, len(y), 32)]
    )


def run(code, *args, **env):
    done = subprocess.run(
        [sys.executable, '-c', code, *map(str, args)],
        capture_output=True,
        text=True,
        env=os.environ | {'TF_CPP_MIN_LOG_LEVEL': '3'} | env,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize('labels', [2, 10, 41])
def test_parameters(labels):
    assert post_cnn(labels).count_params() == 168_745 - 65 * (41 - labels)
    assert raw_cnn(labels).count_params() == 360_513 - 1029 * (41 - labels)
    assert post_cnn(labels).output_shape == raw_cnn(labels).output_shape == (None, labels)


def test_blocks():
    shapes = [
        l.output.shape[1:] for l in post_cnn(41).layers if isinstance(l, keras.layers.MaxPooling2D)
    ]
    assert shapes == [(20, 86, 32), (10, 43, 32), (5, 21, 32), (2, 10, 32)]
    kinds = [type(l).__name__ for l in post_cnn(41).layers[1:5]]
    assert kinds == ['Conv2D', 'BatchNormalization', 'Activation', 'MaxPooling2D']


@pytest.mark.parametrize(
    'shape', [(1, 40, 173, 1), (40, 173, 1), (1, 40, 1, 1), (40, 1, 1), (1, 1, 1, 1)]
)
def test_standardized(shape):
    rng = np.random.default_rng(0)
    mean, std = (
        rng.normal(size=shape).astype('float32'),
        rng.uniform(0.5, 2, shape).astype('float32'),
    )
    net, x = post_cnn(3), rng.standard_normal((4, 40, 173, 1)).astype('float32')
    expected = net.predict(
        (x - mean.reshape(mean.shape[-3:])) / std.reshape(std.shape[-3:]), verbose=0
    )
    np.testing.assert_allclose(
        standardized(net, mean, std).predict(x, verbose=0), expected, atol=1e-5
    )


def test_file_restores_with_soundtag_alone(tmp_path):
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((2, 88200)).astype('float32')
    mean, std = rng.normal(size=(40, 173, 1)), rng.uniform(0.5, 2, (40, 173, 1))
    listener = keras.Sequential(
        [keras.Input((88200,)), FeatureLayer(POST), standardized(post_cnn(5), mean, std)]
    )
    listener.save(tmp_path / 'm.keras')
    np.save(tmp_path / 'x.npy', audio)
    code = (
        f'import os; os.chdir({str(tmp_path)!r})\n'
        'import numpy as np, keras, soundtag.model\n'
        'm = keras.saving.load_model("m.keras", safe_mode=True)\n'
        'np.save("p.npy", m.predict(np.load("x.npy"), verbose=0))'
    )
    alone = Forked(exec, code, {}, stderr=tmp_path / 'stderr.txt')
    assert alone.wait() == 0, (tmp_path / 'stderr.txt').read_text()
    np.testing.assert_allclose(
        np.load(tmp_path / 'p.npy'), listener.predict(audio, verbose=0), atol=1e-5
    )


@pytest.mark.parametrize('n', [1, 2, 3, 15, 97, 160, 400, 1102, 2048])
def test_split_dft(n):
    frame, left = np.random.default_rng(n).standard_normal(n), n
    tables, k = _dft_tables(n)
    out = frame
    for t in tables:
        left //= t.shape[2]
        out = t @ out.reshape(t.shape[0], t.shape[2], left)
    np.testing.assert_allclose(out.ravel(), np.fft.fft(frame)[k], atol=1e-9)
    assert set(np.minimum(k, n - k)) == set(range(n // 2 + 1))


def test_mfcc_layer_agrees_on_clips(sounds):
    ours = in_batches(FeatureLayer(POST), sounds)
    assert ours.shape == (len(sounds), 40, 173, 1)
    np.testing.assert_allclose(ours[..., 0], POST(sounds), atol=1e-3)
    np.testing.assert_allclose(
        ours[0, ..., 0], librosa.feature.mfcc(y=sounds[0], sr=44100, n_mfcc=40), atol=2e-3
    )


@pytest.mark.parametrize('dtype,atol', [('float64', 1e-3), ('float32', 2e-3)])
def test_log_mel_layer_agrees_on_clips(sounds, dtype, atol):
    features = LogMel(sr=44100, hop_length=512)
    np.testing.assert_allclose(
        in_batches(FeatureLayer(features, dtype=dtype), sounds)[..., 0], features(sounds), atol=atol
    )


@pytest.mark.parametrize('features', SETTINGS, ids=lambda f: f'{type(f).__name__}-{f.sr}-{f.n_fft}')
@pytest.mark.parametrize('samples', [3000, 4097, 8000])
def test_settings(features, samples):
    y = np.random.default_rng(samples).standard_normal((3, samples)).astype('float32') * np.float32(
        [[1], [1e-3], [1e-6]]
    )
    out = keras.ops.convert_to_numpy(FeatureLayer(features)(y))
    expected = features(y)
    assert out.shape == (*expected.shape, 1)
    np.testing.assert_allclose(out[..., 0], expected, atol=1e-3)


def test_layer_is_plain():
    layer = FeatureLayer(POST, name='ears')
    twin = FeatureLayer.from_config(layer.get_config())
    assert twin.features == POST and twin.name == 'ears'
    keras.config.set_dtype_policy('mixed_float16')
    try:
        assert FeatureLayer(POST).compute_dtype == 'float64'
    finally:
        keras.config.set_dtype_policy('float32')
    anything = keras.Input((None,))
    model = keras.Model(anything, FeatureLayer(POST)(anything))
    y = np.random.default_rng(0).standard_normal((2, 30000)).astype('float32')
    np.testing.assert_allclose(model.predict(y, verbose=0)[..., 0], POST(y), atol=1e-3)
    assert (
        not FeatureLayer(POST)(np.zeros((1, 4096), 'float32')).numpy().std(axis=2).any()
    )  # silence: finite and even


@pytest.mark.parametrize(
    'backend, needs', [('numpy', 'jax'), ('jax', 'jax'), ('torch', 'torch')]
)  # Keras's NumPy backend borrows from JAX
def test_other_backends(backend, needs, tmp_path):
    if not importlib.util.find_spec(needs):
        pytest.skip(f'{needs} is not installed')
    y = np.random.default_rng(0).standard_normal((2, 20000)).astype('float32')
    np.save(tmp_path / 'y.npy', y)
    run(
        'import sys, numpy as np, keras\nfrom soundtag.mfcc import MFCC\nfrom soundtag.model import FeatureLayer\n'
        'out = FeatureLayer(MFCC(sr=44100, n_mfcc=40, hop_length=512))(np.load(sys.argv[1]))\n'
        'np.save(sys.argv[2], keras.ops.convert_to_numpy(out))',
        tmp_path / 'y.npy',
        tmp_path / 'out.npy',
        KERAS_BACKEND=backend,
    )
    np.testing.assert_allclose(np.load(tmp_path / 'out.npy')[..., 0], POST(y), atol=1e-3)


def test_sequence_is_deterministic(clips):
    few = clips.subset(clips.table.index[:21])
    make = lambda **kw: AudioSequence(few, sr=8000, seconds=0.5, batch_size=8, **kw)
    a, b = make(seed=3), make(seed=3)
    for epoch in range(3):
        assert sorted(a.order) == list(range(21)) and len(a) == 3 and len(a[2][0]) == 5
        for k in reversed(range(3)):  # whoever asks, in whatever order
            for u, v in zip(a[k], b[k]):
                np.testing.assert_array_equal(u, v)
        before = a.order
        a.on_epoch_end(), b.on_epoch_end()
        assert not np.array_equal(before, a.order)
    assert not np.array_equal(make(seed=3).order, make(seed=4).order)
    x, targets = a[0]
    assert x.shape == (8, 4000, 1) and x.dtype == 'float32' and np.abs(x).max() <= 0.5
    np.testing.assert_array_equal(targets.argmax(1), few.y[a.order[:8]])


@pytest.mark.parametrize('workers', [1, 2])
def test_sequence_keeps_its_order_in_keras(clips, workers):
    few = clips.subset(clips.table.index[:12])
    sequence = AudioSequence(
        few, sr=8000, seconds=0.5, batch_size=5, shuffle=False, workers=workers
    )
    layers = keras.layers.Conv1D(8, 40, strides=20), keras.layers.Flatten()
    answer = keras.layers.Dense(len(few.labels), activation='softmax')
    net = keras.Sequential([keras.Input((4000, 1)), *layers, answer])
    x = np.concatenate([sequence[k][0] for k in range(len(sequence))])
    np.testing.assert_allclose(
        net.predict(sequence, verbose=0), net.predict(x, verbose=0), atol=1e-6
    )
    shuffled = AudioSequence(few, sr=8000, seconds=0.5, batch_size=5, workers=workers)
    net.compile('adam', 'categorical_crossentropy')
    net.fit(shuffled, epochs=2, shuffle=False, verbose=0)
    assert (
        shuffled.epoch >= 2 and sequence.epoch == 0
    )  # Keras ends one more epoch when it first builds the model


def test_sequence_names_the_bad_file(clips, tmp_path):
    few = replace(clips.subset(clips.table.index[:2]), root=tmp_path)
    with pytest.raises(AudioError, match=few.table.path.iloc[0]):
        AudioSequence(few, sr=8000, seconds=1, shuffle=False)[0]


@pytest.mark.parametrize(
    'call, word',
    [
        (lambda: post_cnn(1), 'n_labels=1'),
        (lambda: raw_cnn(0), 'n_labels=0'),
        (lambda: post_cnn(3, input_shape=(40, 15, 1)), '40, 15, 1'),
        (lambda: post_cnn(3, input_shape=(40, None, 1)), 'None'),
        (lambda: raw_cnn(3, input_shape=(1615, 1)), '1615'),
        (lambda: raw_cnn(3, input_shape=(32000,)), '32000'),
        (lambda: standardized(post_cnn(3), np.zeros((40, 173, 1)), np.zeros((40, 173, 1))), 'std'),
        (
            lambda: standardized(post_cnn(3), np.full((40, 173, 1), np.nan), np.ones((40, 173, 1))),
            'finite',
        ),
        (lambda: standardized(post_cnn(3), np.zeros((64, 173, 1)), np.ones((64, 173, 1))), '64'),
        (lambda: FeatureLayer(POST)(np.zeros((2, 88200, 1), 'float32')), 'batch, samples'),
        (lambda: FeatureLayer({'name': 'Chroma'}), 'Chroma'),
    ],
)
def test_errors_are_one_clear_line(call, word):
    with pytest.raises(ValueError) as e:
        call()
    assert word in str(e.value) and '\n' not in str(e.value)
