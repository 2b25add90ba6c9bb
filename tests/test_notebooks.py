"Each chapter runs top to bottom, and still says what it said when it was committed."

import difflib
import re
import shutil
from pathlib import Path

import nbformat
import pytest
import warm
from jupyter_client.provisioning import local_provisioner
from matplotlib import image
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / 'nbs').glob('[0-9i]*.ipynb'))
CELL_LIMIT = 300  # seconds; nbdev_test has no limit of its own


@pytest.fixture(scope='session')
def book(tmp_path_factory):
    "A copy to run in, so that a test changes nothing of the checkout."
    folder = tmp_path_factory.mktemp('book')
    shutil.copytree(ROOT / 'nbs', folder / 'nbs')
    (folder / 'images').mkdir()
    return folder


def told(cell):
    "What a cell told its reader in words and numbers, without what differs from run to run."
    text = ''
    for o in cell.outputs:
        if o.output_type == 'stream' and o.name == 'stdout':
            text += o.text
        elif (
            o.output_type in ('execute_result', 'display_data')
            and 'image/png' not in o.data
            and 'text/html' not in o.data
        ):
            text += o.data.get('text/markdown') or o.data.get('text/plain', '')
    return re.sub(r'0x[0-9a-f]+|/\S*/tmp\w*', '…', text).splitlines()


def kinds(cell):
    return [sorted(o.data) for o in cell.outputs if 'data' in o]


def images_of(path):
    "The files of images/ that a chapter writes."
    return set(
        re.findall(
            r"savefig\(.*images/([\w.]+)'",
            '\n'.join(c.source for c in nbformat.read(path, as_version=4).cells),
        )
    )


def look_alike(fresh, stored):
    "Whether two pictures differ in less than a pixel of ten thousand."
    a, b = (image.imread(p)[..., :3] for p in (fresh, stored))
    return a.shape == b.shape and (abs(a - b).max(-1) > 0.1).mean() < 0.0001


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_chapter_runs_and_says_the_same(path, book, monkeypatch):
    monkeypatch.setattr(local_provisioner, 'launch_kernel', warm.launch_kernel)
    stored = nbformat.read(path, as_version=4)
    fresh = nbformat.read(book / 'nbs' / path.name, as_version=4)
    for cell in fresh.cells:
        if cell.cell_type == 'code':
            cell.outputs = []
    NotebookClient(
        fresh,
        timeout=CELL_LIMIT,
        kernel_name='python3',
        resources={'metadata': {'path': book / 'nbs'}},
    ).execute()
    for old, new in zip(stored.cells, fresh.cells, strict=True):
        if old.cell_type != 'code':
            continue
        assert kinds(old) == kinds(new), f'other outputs than stored, in\n{old.source}'
        if not re.search(r'^# measured', old.source, re.M):
            diff = list(
                difflib.unified_diff(told(old), told(new), 'stored', 'fresh', lineterm='', n=0)
            )
            assert not diff, '\n'.join(
                ['run the chapter again and store it; in', old.source, *diff]
            )
    for name in images_of(path):
        assert look_alike(book / 'images' / name, ROOT / 'images' / name), (
            f'images/{name} is stale: run the chapter again'
        )


def test_every_image_is_one_that_a_chapter_writes():
    named = {name for path in NOTEBOOKS for name in images_of(path)}
    named.add('timeline.png')  # of the front page: a command wrote it, which stands below it
    assert named == {p.name for p in (ROOT / 'images').iterdir()}
