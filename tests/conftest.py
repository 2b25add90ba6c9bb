"Shared by all tests: where the project is, and where the real recordings are, if anywhere."
import os
from pathlib import Path

import pytest

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
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
