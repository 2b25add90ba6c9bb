"Shared by all tests: where the project is, where the real recordings are, if anywhere, and the package as a user has it."

import gc
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault(
        'OMP_NUM_THREADS', '1'
    )  # threads of OpenMP wait for each other without leaving the core, which the worker beside it wants: a regression took sixteen times as long
os.environ.setdefault(
    'TF_ENABLE_ONEDNN_OPTS', '1'
)  # soundtag asks for it, but a test file that imports Keras first would be before it
sys.modules.setdefault(
    'rfc3987_syntax', None
)  # jsonschema does without it; it compiles 38 grammars when it is imported, by way of nbformat
ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def at_once():
    "TensorFlow computes step by step: to build a graph takes longer than a few steps."
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def small_cnn(n_labels, *, input_shape):
    "A convolution, normalisation and an answer: nothing that is kept or resumed is missing, and it takes a fifth of the time."
    from keras import Input, Model, layers

    from soundtag.model import conv_norm_relu

    inputs = Input(input_shape)
    x = conv_norm_relu(inputs, 16, (input_shape[0], 5), padding='valid')  # tells the bands apart
    x = layers.GlobalAveragePooling2D()(x)
    return Model(inputs, layers.Dense(n_labels, activation='softmax')(x))


@pytest.fixture(scope='session')
def root():
    return ROOT


def some(clips):
    "Paths of every fifth clip, label by label, or of every n-th where SOUNDTAG_EVERY says so."
    paths = clips.table.sort_values('label', kind='stable').path
    return [clips.root / p for p in paths.iloc[:: int(os.environ.get('SOUNDTAG_EVERY', 5))]]


@pytest.fixture(scope='session')
def real_data():
    "Folder of the real recordings, which are not part of the project."
    folder = os.environ.get('SOUNDTAG_DATA')
    if not folder:
        pytest.skip('SOUNDTAG_DATA is not set: the real recordings are not here')
    return Path(folder)


LONGEST = [
    'docs',
    'environment',
    'test_cluster',
    'test_training',
    'test_cli',
    '06d_fitting',
    '09a_export',
    '11_cli',
    'test_readers',
    '09_tagging',
    'test_structure',
    'test_cases',
    '08_results',
    'test_studies',
    '26_budget',
    '24_ablation',
    'test_store',
    'test_model',
    'test_rejection',
    'test_linear',
    '06_model',
    '28_bundled',
    '27_scenes',
    '10a_distance',
    '29a_distance',
    '29b_afar',
    '25_noise',
    '07_training',
    '23_folds',
]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    "With several workers, tests that share what they train or install stay together, and what takes longest begins first and short chapters come last, so that all end at about the same time."

    def place(item):
        if item.path.name == 'test_notebooks.py':  # a chapter goes where there is room
            name, others = item.callspec.id if hasattr(item, 'callspec') else '', len(LONGEST) + 1
        else:
            shared = [f for f in ('environment', 'docs') if f in item.fixturenames]
            name, others = (*shared, item.path.stem)[0], len(LONGEST)
            item.add_marker(pytest.mark.xdist_group(name))
        return LONGEST.index(name) if name in LONGEST else others

    items.sort(key=place)


def pytest_collection_finish():
    "What is imported by now is not looked through at each collection of garbage, of which Keras asks for one a training."
    gc.freeze()


def needed_by(*requirements):
    "The installed distributions that requirements ask for, directly or by way of others."
    found = {}
    waiting = [Requirement(r) for r in requirements]
    while waiting:
        r = waiting.pop()
        key = canonicalize_name(r.name)
        if r.marker and not r.marker.evaluate({'extra': ''}) or key in found:
            continue
        found[key] = distribution(r.name)
        assert r.specifier.contains(found[key].version, prereleases=True), (
            f'{r}: {found[key].version}'
        )
        waiting += [Requirement(text) for text in found[key].requires or ()]
        waiting += [Requirement(t) for e in r.extras for t in extra_of(found[key], e)]
    return list(found.values())


def extra_of(found, extra):
    "What one of the extras of a distribution asks for, without the marker that says so."
    wanted = [Requirement(text) for text in found.requires or ()]
    named = [r for r in wanted if r.marker and r.marker.evaluate({'extra': extra})]
    return [str(r).split(';')[0] for r in named if not r.marker.evaluate({'extra': ''})]


def link(distributions, site):
    "Make distributions importable from another environment, in a second and without a copy."
    for d in distributions:
        for name in {f.parts[0] for f in d.files if f.parts[0] not in ('..', '__pycache__')}:
            if not (site / name).exists():
                (site / name).symlink_to(d.locate_file(name))


def fresh_environment(folder):
    "An environment with nothing in it: to install pip takes three seconds, and the one outside can work in it, too."
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder], check=True)


def site_packages(env):
    return next((env / 'lib').glob('python3*/site-packages'))


@pytest.fixture(scope='session')
def environment(tmp_path_factory):
    """A folder with a fresh environment in it, `env`, that holds the built wheel, and what it and its extra train require.

    What it requires was installed once, with the development tools; here it is linked. What is not
    required, by the wheel or by what it requires, can't be imported.
    """
    folder = tmp_path_factory.mktemp('user')
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
    clean = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')}
    where = {'cwd': folder, 'env': clean, 'check': True}
    fresh_environment(folder / 'env')
    subprocess.run([*pip, 'wheel', '--no-deps', '--wheel-dir', folder, str(ROOT)], **where)
    (wheel,) = folder.glob('*.whl')
    mine = [*pip, '--python', folder / 'env/bin/python']
    subprocess.run([*mine, 'install', '--no-deps', '--no-compile', wheel], **where)
    site = site_packages(folder / 'env')
    (about,) = site.glob('soundtag-*.dist-info')
    link(needed_by(*PathDistribution(about).requires), site)
    link(needed_by(*extra_of(PathDistribution(about), 'train')), site)
    return folder


@pytest.fixture(scope='session')
def base_environment(environment):
    "A second environment, `base`, with the same wheel, and what it requires without any extra."
    fresh_environment(environment / 'base')
    site = site_packages(environment / 'base')
    for part in site_packages(environment / 'env').glob('soundtag*'):
        (site / part.name).symlink_to(part)
    (about,) = site.glob('soundtag-*.dist-info')
    link(needed_by(*PathDistribution(about).requires), site)
    return environment


@pytest.fixture(scope='session')
def docs(tmp_path_factory):
    "The folder of the built site."
    sys.path.insert(0, str(ROOT / '_notebooks'))
    website, folder = pytest.importorskip('website'), tmp_path_factory.mktemp('site')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(website, 'PROC', folder / '_proc')
        patch.setattr(website, 'DOCS', folder / '_docs')
        assert website.build(os.environ.get('SOUNDTAG_DATA')) == 0, 'smalldocs warned of something; see above'
    return folder / '_docs'


@pytest.fixture(scope='session')
def serve():
    "Serves a folder on localhost: gives its address and what stops it."
    running = []

    def start(folder):
        class Quiet(SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=folder)

            def log_message(self, *args):
                pass

        http = ThreadingHTTPServer(('127.0.0.1', 0), Quiet)
        threading.Thread(target=http.serve_forever, daemon=True).start()
        running.append(http)
        return f'http://127.0.0.1:{http.server_port}', lambda: (
            http.shutdown(),
            http.server_close(),
        )

    yield start
    for http in running:
        http.shutdown()
        http.server_close()


@pytest.fixture(scope='session')
def server(docs, serve):
    return serve(docs)[0]


@pytest.fixture(scope='session')
def chromium():
    "Starts headless Chromium with more flags."
    path = (
        shutil.which('chromium')
        or shutil.which('chromium-browser')
        or shutil.which('google-chrome')
    )
    if not path:
        pytest.skip('there is no Chromium on this machine')
    from playwright.sync_api import sync_playwright

    flags = [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--autoplay-policy=no-user-gesture-required',
    ]
    with sync_playwright() as p:
        running = []

        def start(*more):
            running.append(p.chromium.launch(executable_path=path, args=[*flags, *more]))
            return running[-1]

        yield start
        for browser in running:
            browser.close()
