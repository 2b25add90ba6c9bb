"The post: woven, fresh, readable, true to the runs, and running where nothing but the wheel and Jupyter is installed."

import ast
import json
import os
import re
import resource
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
from conftest import fresh_environment, link, needed_by
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / '_notebooks'))
import build  # noqa: E402
import weave  # noqa: E402


@pytest.fixture(scope='module')
def cells():
    return nbformat.read(weave.POST, as_version=4).cells


@pytest.fixture(scope='module')
def prose(cells):
    return '\n\n'.join(
        re.sub(r'\(data:image[^)]*\)', '()', c.source) for c in cells if c.cell_type == 'markdown'
    )


def test_weaving_again_gives_the_post_as_committed():
    assert build.post(False) == weave.POST.read_text('utf-8'), 'the post is stale: run make blog'


@pytest.mark.parametrize('path', weave.CHAPTERS, ids=lambda p: p.stem)
def test_every_chapter_has_the_badges_and_the_set_up_cell(path):
    assert weave.equip(path) == path.read_text('utf-8'), 'run make blog'


def test_addresses_come_from_the_settings(prose):
    where = f'{weave.SETTINGS["user"]}/{weave.SETTINGS["repo"]}'
    assert (
        f'https://colab.research.google.com/github/{where}/blob/{weave.SETTINGS["branch"]}/_notebooks/{weave.POST.name}'
        in prose
    )
    assert weave.SETTINGS['git_url'] in weave.set_up()


ALONE = [(False, False), (True, False), (False, True)]  # in the laboratory; reads the book's results


@pytest.mark.parametrize('laboratory, book', ALONE)
def test_set_up_does_nothing_here(laboratory, book, monkeypatch):
    monkeypatch.chdir(ROOT / 'nbs')
    code = weave.set_up(laboratory, book)
    exec(compile(re.sub(r'^(\s*)[%!].*', r'\1raise SystemExit("it does")', code, flags=re.M), 'set-up', 'exec'), {})


def test_a_chapter_opened_alone_fetches_what_it_reads(tmp_path, monkeypatch):
    "In any folder, with a git that copies and a pip that notes what it is asked."
    from IPython.core.interactiveshell import InteractiveShell

    git = tmp_path / 'git'
    git.write_text('#!/bin/sh\nmkdir -p soundtag/nbs/results && echo "$@" > asked')
    git.chmod(0o755)
    (tmp_path / 'away').mkdir()
    monkeypatch.chdir(tmp_path / 'away')
    monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
    shell = InteractiveShell.instance()
    shell.register_magic_function(lambda line: pips.append(line), magic_name='pip')
    pips = []
    try:
        shell.run_cell(weave.set_up(book=True)).raise_error()
        assert Path.cwd() == tmp_path / 'away/soundtag/nbs'
        assert pips == ["install --quiet './soundtag[train]'"]
        assert weave.SETTINGS['git_url'] in (tmp_path / 'away/asked').read_text()
        shell.run_cell(weave.set_up(book=True)).raise_error()  # and once more: all is there
        assert len(pips) == 1
    finally:
        InteractiveShell.clear_instance()


def test_only_chapters_that_read_results_fetch_them():
    reads = {p.stem: weave.reads_the_book(nbformat.read(p, 4)) for p in weave.CHAPTERS}
    assert reads['04_mfcc'] and reads['08_results'] and not reads['03_normalization']
    for path in weave.CHAPTERS:
        assert ('results folder beside' in path.read_text('utf-8')) == reads[path.stem]


def test_size_and_reading_time(cells):
    assert weave.POST.stat().st_size < 4e6
    assert 15 < weave.reading_minutes(nbformat.v4.new_notebook(cells=cells)) <= 29


def test_the_parts_stand_in_order(prose):
    parts = re.findall(r'^## (.+)$', prose, re.M)
    assert parts == [
        'The data set',
        'What is a sound to a computer?',
        'Which differences should not matter?',
        'What should go into the network?',
        'From waveform to MFCC',
        'The network',
        'Labels',
        'Who teaches, who judges?',
        'Results',
        'How far away?',
        'Conclusion',
        'Try it',
        'References',
    ]
    levels = [len(m) for m in re.findall(r'^(#+) ', prose, re.M)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:])), 'a level of headings is left out'


def test_fastpages_and_quarto_understand_the_front_matter(cells):
    quarto = yaml.safe_load(cells[0].source.strip('-'))
    title, summary = re.match(r'\s*#\s+(.*)\s*\n+>\s*(.*)\n', cells[1].source).groups()
    fastpages = dict(re.findall(r'^-\s+([^:]*):\s*(\S.*)$', cells[1].source, re.M))
    assert (
        cells[0].cell_type == 'raw'
        and title == weave.TITLE
        and summary == quarto['description']
        and '"' not in title + summary
    )
    for key in ('toc', 'badges', 'comments', 'categories', 'sticky_rank', 'image'):
        assert yaml.safe_load(fastpages[key]) == quarto[key]
    assert str(quarto['date']) == weave.POST.name[:10] and (ROOT / quarto['image']).is_file()


def test_references_and_their_marks_belong_together(prose):
    marks, anchors = (
        set(re.findall(r'\(#(ref-\w+)\)', prose)),
        re.findall(r'<a id="(ref-\w+)">', prose),
    )
    assert marks == set(anchors) and len(anchors) == len(set(anchors)) > 3
    assert (
        'Aleksander Nikolajev, Kayahan Kaya and Severin Brunner' in prose.split('## References')[1]
    )


def test_checks_and_plumbing_stay_in_the_chapters(cells):
    for c in cells:
        assert not re.search(r'^#\| (post|export)|<!-- /?post|<!-- cells', c.source, re.M)
        if c.cell_type == 'code' and 'google.colab' not in c.source:
            assert not [n for n in ast.parse(c.source).body if isinstance(n, ast.Assert)]
        if any('image/png' in o.get('data', {}) for o in c.get('outputs', [])):
            assert (
                re.search(r'^#\| fig-alt: ".{30}', c.source, re.M)
                and '#| code-fold: true' in c.source
            )


def test_figures_and_sounds_are_kept(cells):
    kinds = [k for c in cells for o in c.get('outputs', []) for k in o.get('data', {})]
    assert kinds.count('image/png') >= 5 and kinds.count('text/html') >= 10
    assert sum(c.source.count('](data:image/png') for c in cells) >= 4


def test_numbers_are_those_of_the_runs(prose):
    conclusion, table = (
        prose.split('## Conclusion')[1],
        [line for line in prose.splitlines() if line.startswith('| ')],
    )
    for name, title in (('fsd10', 'FSD-10'), ('esc10', 'ESC-10')):
        r = json.loads((ROOT / f'nbs/results/post_{name}.json').read_text('utf-8'))
        m, linear = r['metrics'], r['baselines']['linear']['accuracy']
        for value in (m['train_accuracy'], m['accuracy'], m['train_accuracy_at_rest'], linear):
            assert f'{100 * value["mean"]:.1f} %' in conclusion
        (row,) = (line for line in table if line.startswith(f'| {title} '))
        for value in (
            m['train_accuracy'],
            m['accuracy'],
            linear,
            r['baselines']['chance']['accuracy'],
        ):
            assert f'{100 * value["mean"]:.1f} ± {100 * value["sd"]:.1f} %' in row


def test_no_measured_number_is_typed():
    typed = re.sub(
        r'\{\{.*?\}\}|```python.*?```',
        '',
        (ROOT / '_notebooks/post.md').read_text('utf-8'),
        flags=re.S,
    )
    assert set(re.findall(r'\d[\d.]* ?%', typed)) <= {'90 %', '40 %'}, (
        'only what the first post said'
    )


OFFLINE = '''import socket
def refuse(connect):
    def only_here(self, address):
        if isinstance(address, tuple) and address[0] not in ('127.0.0.1', '::1', 'localhost'): raise OSError(f'no network: {address}')
        return connect(self, address)
    return only_here
socket.socket.connect = refuse(socket.socket.connect)
socket.socket.connect_ex = refuse(socket.socket.connect_ex)
'''

EXECUTE = 'from nbclient.cli import main; main()'  # what jupyter-execute does


def test_it_runs_with_the_wheel_and_jupyter_alone(environment, tmp_path):
    "A second environment sees the first one's packages, so that TensorFlow is installed once, and adds Jupyter."
    env = tmp_path / 'env'
    fresh_environment(env)
    packages = [
        Path(sysconfig.get_path('purelib', vars={'base': str(e), 'platbase': str(e)}))
        for e in (env, environment / 'env')
    ]
    (packages[0] / 'wheel.pth').write_text(f'{packages[1]}\n')
    clean = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(('PYTHON', 'VIRTUAL_ENV', 'SOUNDTAG', 'JUPYTER'))
    }
    link(needed_by('nbclient', 'ipykernel'), packages[0])
    (packages[0] / 'sitecustomize.py').write_text(OFFLINE)
    post = tmp_path / 'post.ipynb'
    post.write_bytes(weave.POST.read_bytes())
    clean |= {
        'SOUNDTAG_CACHE': str(environment / 'cache'),
        'TF_CPP_MIN_LOG_LEVEL': '3',
        'PATH': f'{env}/bin:{clean["PATH"]}',
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [env / 'bin/python', '-c', EXECUTE, '--inplace', '--timeout=600', post],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-3000:]
    seconds = (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / 2
    print(f'{seconds:.0f} s of two cores')
    assert seconds < 300
    for old, new in zip(
        nbformat.read(weave.POST, 4).cells, nbformat.read(post, 4).cells, strict=True
    ):
        assert [sorted(o.data) for o in old.get('outputs', []) if 'data' in o] == [
            sorted(o.data) for o in new.get('outputs', []) if 'data' in o
        ], new.source
