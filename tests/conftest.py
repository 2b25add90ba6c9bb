"Shared by all tests: where the project is, and where the real recordings are, if anywhere."
import os
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


def pytest_collection_modifyitems(items):
    "With several workers, a file's tests stay together, for they share what they train; chapters go where there is room."
    for item in items:
        if item.path.name != 'test_notebooks.py':
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
