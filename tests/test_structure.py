"The structure of the house: what holds for every chapter, whatever it is about."

import ast
import filecmp
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))

# Cells that a test run passes over, as (notebook, first line) → reason. Short, and every entry is used.
SKIPPED_CELLS = {}

# Libraries that a benchmark compares with where they are installed; nothing else uses them.
PEERS = {'essentia', 'kapre', 'torch', 'torchaudio', 'mkl', 'mkl_fft', 'ducc0', 'pyfftw'}

TOP_LEVEL = {
    'settings.ini',
    'README.md',
    'nbs',
    'soundtag',
    '_notebooks',
    'tests',
    'images',
    'pyproject.toml',
    'setup.py',
    'LICENSE',
    'CHANGELOG.md',
    'Makefile',
    '.ci',
    '.github',
    '.gitignore',
}


@cache
def cells(path):
    return nbformat.read(path, as_version=4).cells


def code(path):
    return [c.source for c in cells(path) if c.cell_type == 'code']


def is_exported(source):
    return bool(re.match(r'#\|\s*exports?\b', source))


def parsed(source):
    "The cell's syntax tree without IPython magics."
    return ast.parse(re.sub(r'^(\s*)[%!].*', r'\1pass', source, flags=re.M))


def names_in(tree):
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)
    }


@cache
def module_tree(name):
    return ast.parse((ROOT / 'soundtag' / f'{name}.py').read_text('utf-8'))


def exported(name):
    for node in module_tree(name).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '__all__':
            return ast.literal_eval(node.value)
    raise AssertionError(f'{name} has no __all__')


def imports(tree):
    "Every module imported anywhere in the code, also inside functions."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield '.' * node.level + (node.module or '')


def tracked():
    try:
        out = subprocess.run(
            ['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('not a git checkout')
    return [Path(p) for p in out.split('\0') if p]


def test_top_level_is_as_the_user_fixed_it():
    assert {p.parts[0] for p in tracked()} <= TOP_LEVEL


def test_one_chapter_is_one_module():
    files = {p.stem for p in (ROOT / 'soundtag').glob('*.py')} - {'__init__', '_modidx'}
    assert files == set(MODULES)


@pytest.mark.parametrize('name', MODULES)
def test_a_chapter_imports_only_lower_chapters(name):
    order = list(MODULES)
    for module in imports(module_tree(name)):
        if re.match(r'soundtag\.|\.', module):  # nbdev writes soundtag.audio as .audio
            assert order.index(module.split('.')[1]) < order.index(name), (
                f'{name} looks up to {module}'
            )


@pytest.mark.parametrize('name', MODULES)
def test_development_tools_and_code_from_data_stay_out(name):
    tree = module_tree(name)
    assert not {m.split('.')[0] for m in imports(tree)} & {
        'fastcore',
        'nbdev',
        'execnb',
        'pickle',
        'dill',
        'marshal',
        'shelve',
    }
    called = {
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    assert not called & {'eval', 'exec', 'compile', '__import__'}
    assert 'allow_pickle=True' not in ast.unparse(tree)


@pytest.mark.parametrize('name', [n for n in MODULES if n not in ('model', 'training', 'results')])
def test_slow_imports_wait_until_they_are_needed(name):
    at_import = [
        m
        for node in module_tree(name).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for m in imports(ast.Module([node], []))
    ]
    assert not {m.split('.')[0] for m in at_import} & {
        'tensorflow',
        'keras',
        'matplotlib',
        'librosa',
        'IPython',
    }


def test_export_gives_what_is_committed(tmp_path):
    for part in ('settings.ini', 'pyproject.toml'):
        shutil.copy(ROOT / part, tmp_path)
    shutil.copytree(ROOT / 'nbs', tmp_path / 'nbs')
    shutil.copytree(
        ROOT / 'soundtag', tmp_path / 'soundtag', ignore=shutil.ignore_patterns('__pycache__')
    )
    subprocess.run(
        [Path(sys.executable).parent / 'nbdev_export'],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    names = sorted(p.name for p in (tmp_path / 'soundtag').glob('*.py'))
    assert names == sorted(p.name for p in (ROOT / 'soundtag').glob('*.py'))
    differ = filecmp.cmpfiles(tmp_path / 'soundtag', ROOT / 'soundtag', names, shallow=False)[1:]
    assert differ == ([], []), 'run nbdev_export; modules are never edited by hand'


def test_notebooks_are_clean(tmp_path):
    shutil.copy(ROOT / 'settings.ini', tmp_path)
    shutil.copytree(ROOT / 'nbs', tmp_path / 'nbs')
    subprocess.run(
        [Path(sys.executable).parent / 'nbdev_clean'], cwd=tmp_path, check=True, capture_output=True
    )
    dirty = [
        p.name
        for p in (tmp_path / 'nbs').glob('*.ipynb')
        if p.read_bytes() != (ROOT / 'nbs' / p.name).read_bytes()
    ]
    assert not dirty, 'run nbdev_clean'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_a_chapter_can_be_read_in_one_sitting(path):
    assert path.stat().st_size < 1_000_000
    assert cells(path)[0].source.startswith('# ')
    for c in cells(path):
        assert not any(o.output_type == 'error' for o in c.get('outputs', [])), c.source
        if c.cell_type == 'code' and is_exported(c.source):
            for node in parsed(c.source).body:
                assert node.end_lineno - node.lineno < 32, (
                    f'{path.stem}: {c.source.splitlines()[1]} is too long to read'
                )


@pytest.mark.parametrize('name', MODULES)
def test_every_exported_symbol_is_asserted_on(name):
    proved = set()
    for source in code(MODULES[name]):
        if is_exported(source):
            continue
        tree = parsed(source)
        checks = any(isinstance(n, ast.Assert) for n in ast.walk(tree)) or re.search(
            r'np\.testing\.assert_', source
        )
        if checks:
            proved |= names_in(tree)
    assert not set(exported(name)) - proved


@pytest.mark.parametrize('name', MODULES)
def test_every_exported_function_says_what_goes_in_and_comes_out(name):
    lines = (ROOT / 'soundtag' / f'{name}.py').read_text('utf-8').splitlines()
    for node in module_tree(name).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith('_'):
            continue
        doc = ast.get_docstring(node)
        assert doc and '\n' not in doc, f'{name}.{node.name}: one line of docstring'
        if isinstance(node, ast.FunctionDef):
            a = node.args
            silent = [
                x.arg
                for x in [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
                if x and '#' not in lines[x.lineno - 1]
            ]
            end = max(node.lineno, node.body[0].lineno - 1)  # the line that closes the signature
            assert not silent and ('#' in lines[end - 1] or not returns(node)), (
                f'{name}.{node.name}: no docment for {silent or "what it returns"}'
            )


def returns(node):
    return any(
        isinstance(n, (ast.Return, ast.Yield)) and n.value is not None for n in ast.walk(node)
    )


def test_skipped_cells_are_on_the_list():
    found = set()
    for path in [*NOTEBOOKS, ROOT / 'nbs/index.ipynb']:
        for source in code(path):
            if re.search(r'^#\|\s*(eval:\s*false|skip_exec|skip_showdoc|slow\b)', source, re.M):
                found.add((path.name, source.splitlines()[0]))
        assert 'skip_exec: true' not in cells(path)[0].source
    assert found == set(SKIPPED_CELLS)
    assert not [p.name for p in (ROOT / 'nbs').glob('_*.ipynb')], (
        'nbdev passes over notebooks whose name starts with _'
    )


@pytest.mark.parametrize('path', [*NOTEBOOKS, ROOT / 'nbs/index.ipynb'], ids=lambda p: p.stem)
def test_every_figure_has_a_text_for_those_who_cannot_see_it(path):
    for c in cells(path):
        if c.cell_type == 'code' and any('image/png' in o.get('data', {}) for o in c.outputs):
            assert re.search(r'^#\|\s*fig-alt:', c.source, re.M), (
                f'{path.stem}: no fig-alt on:\n{c.source[:200]}'
            )


def test_readme_is_what_index_gives():
    assert (
        subprocess.run(
            [sys.executable, ROOT / '_notebooks/build.py', 'readme', '--check']
        ).returncode
        == 0
    ), 'run make readme'


def test_settings_are_the_one_source():
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT / 'settings.ini')
    assert (
        f'__version__ = "{cfg["DEFAULT"]["version"]}"'
        in (ROOT / 'soundtag/__init__.py').read_text()
    )
    assert cfg['DEFAULT']['version'] in (ROOT / 'CHANGELOG.md').read_text('utf-8')
    declared = {
        re.split(r'[<>=!~]', r)[0]
        for n, told in cfg['DEFAULT'].items()
        if n.endswith('requirements') and n != 'dev_requirements'
        for r in told.split()
    }
    as_installed = {'sklearn': 'scikit-learn', 'ai_edge_litert': 'ai-edge-litert'}
    stdlib = sys.stdlib_module_names
    for name in MODULES:
        for module in (
            {m.split('.')[0] for m in imports(module_tree(name))}
            - stdlib
            - PEERS
            - {'', 'soundtag', 'IPython'}
        ):
            assert as_installed.get(module, module) in declared, (
                f'{name} imports {module}, which settings.ini does not require'
            )


def test_no_path_of_one_machine():
    out = subprocess.run(
        [
            'git',
            'grep',
            '-nIE',
            '(^|[^a-z])/(home|root|tmp|work|Users)/',
            '--',
            '.',
            ':!tests/test_structure.py',
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout
    assert not out
