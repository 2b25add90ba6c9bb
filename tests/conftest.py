"Shared by all tests: where the project is, where the real recordings are, if anywhere, and the package as a user has it."

import os
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ.setdefault(
        'OMP_NUM_THREADS', '1'
    )  # threads of OpenMP wait for each other without leaving the core, which the worker beside it wants: a regression took sixteen times as long
os.environ.setdefault(
    'TF_ENABLE_ONEDNN_OPTS', '1'
)  # soundtag asks for it, but a test file that imports Keras first would be before it
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def root():
    return ROOT


@pytest.fixture(scope='session')
def real_data():
    "Folder of the real recordings, which are not part of the project."
    folder = os.environ.get('SOUNDTAG_DATA')
    if not folder:
        pytest.skip('SOUNDTAG_DATA is not set: the real recordings are not here')
    return Path(folder)


LONGEST = [
    'environment',
    'test_training',
    '10a_distance',
    '07_training',
    'test_cli',
    '28_bundled',
    '24_ablation',
    '06_model',
    'docs',
    'test_model',
    'test_results',
    'test_tagging',
]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    "With several workers, tests that share what they train or install stay together, and what takes longest begins first, so that all end at about the same time."

    def place(item):
        if item.path.name == 'test_notebooks.py':  # a chapter goes where there is room
            name, others = item.callspec.id if hasattr(item, 'callspec') else '', len(LONGEST)
        else:
            shared = [f for f in ('environment', 'docs') if f in item.fixturenames]
            name, others = (*shared, item.path.stem)[0], len(LONGEST) + 1
            item.add_marker(pytest.mark.xdist_group(name))
        return LONGEST.index(name) if name in LONGEST else others

    items.sort(key=place)


@pytest.fixture(scope='session')
def environment(tmp_path_factory):
    "A folder with a fresh environment in it, `env`, that holds the built wheel and what it requires."
    folder = tmp_path_factory.mktemp('user')
    pip = [folder / 'env/bin/python', '-m', 'pip', '--quiet', '--disable-pip-version-check']
    where = {
        'cwd': folder,
        'env': {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')},
    }
    subprocess.run([sys.executable, '-m', 'venv', folder / 'env'], check=True)
    subprocess.run(
        [*pip, 'wheel', '--no-deps', '--wheel-dir', folder, str(ROOT)], check=True, **where
    )
    (wheel,) = folder.glob('*.whl')
    subprocess.run(
        [*pip, 'install', '--no-compile', wheel], check=True, **where
    )  # Python compiles what is imported
    return folder


@pytest.fixture(scope='session')
def docs(tmp_path_factory):
    "The folder of the built site."
    sys.path.insert(0, str(ROOT / '_notebooks'))
    website, folder = pytest.importorskip('website'), tmp_path_factory.mktemp('site')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(website, 'PROC', folder / '_proc')
        patch.setattr(website, 'DOCS', folder / '_docs')
        assert website.build() == 0, 'smalldocs warned of something; see above'
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
