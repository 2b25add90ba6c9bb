"Shared by all tests: where the project is, where the real recordings are, if anywhere, and the package as a user has it."
import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')    # soundtag asks for it, but a test file that imports Keras first would be before it
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


@pytest.hookimpl(tryfirst=True)    # before xdist reads the groups
def pytest_collection_modifyitems(items):
    "With several workers, tests that share what they train or install stay together; chapters go where there is room."
    for item in items:
        if item.path.name != 'test_notebooks.py':
            item.add_marker(pytest.mark.xdist_group('environment' if 'environment' in item.fixturenames else item.path.stem))


@pytest.fixture(scope='session')
def environment(tmp_path_factory):
    "A folder with a fresh environment in it, `env`, that holds the built wheel and what it requires."
    folder = tmp_path_factory.mktemp('user')
    pip = [folder / 'env/bin/python', '-m', 'pip', '--quiet', '--disable-pip-version-check']
    where = {'cwd': folder, 'env': {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')}}
    subprocess.run([sys.executable, '-m', 'venv', folder / 'env'], check=True)
    subprocess.run([*pip, 'wheel', '--no-deps', '--wheel-dir', folder, str(ROOT)], check=True, **where)
    wheel, = folder.glob('*.whl')
    subprocess.run([*pip, 'install', wheel], check=True, **where)
    return folder
