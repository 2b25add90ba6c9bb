"The structure of the house: what holds for every chapter, whatever it is about."

import ast
import doctest
import filecmp
import importlib
import inspect
import pydoc
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from functools import cache
from pathlib import Path

import nbformat
import pytest
import style

import soundtag

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))
STUDIES_FROM = '20'  # Chapters with this number and above are the laboratory

# Cells that a test run passes over, as (notebook, first line) → reason. Short, and every entry is used.
SKIPPED_CELLS = {}

# Libraries that a study compares with where they are installed; nothing else uses them.
PEERS = set(
    'essentia kapre torch torchaudio mkl mkl_fft ducc0 pyfftw av miniaudio playwright'.split()
)

# What each module offers, and nothing else: its `__all__`. A name that somebody needs is added here with a reason.
PUBLIC = {
    'files': 'cache_dir file_lock read_json write_file',
    'workers': '',
    'formats': 'AudioError',
    'front': '',
    'audio': 'PALETTE audio_seconds fix_length load_audio play plot_waveform resample to_mono use_style wav_bytes',
    'synthesis': 'INSTRUMENTS Instrument Voice colored_noise perform pluck struck_bar',
    'stream': 'SILENCE_DB audio_blocks frame_levels windows',
    'miniset': '',
    'tables': 'DataError',
    'sections': '',
    'lists': '',
    'layouts': '',
    'archives': '',
    'stratify': '',
    'views': '',
    'dataset': 'Clips count_labels load_clips make_folds mini plot_distribution',
    'download': 'download',
    'corrections': 'correct_clips',
    'normalization': 'audio_norm feature_stats loud_span pad_or_repeat trim_silence',
    'duplicates': 'find_duplicates',
    'mfcc': 'LogMel MFCC Mel STFT from_settings hz_to_mel mel_filters mel_to_hz',
    'store': 'FeatureStore StoreError prepare_data',
    'channel': 'random_channel',
    'augmentation': 'Augment Batches ClipWindows crop cutmix freq_mask freq_mixstyle freq_shift gain mixup tilt time_mask time_shift',
    'model': 'AudioSequence FeatureLayer Standardize pooled_cnn post_cnn raw_cnn standardized strong_cnn',
    'pretrained': 'Embedding WeightsError download_weights load_weights yamnet',
    'metrics': 'accuracy average_precision geometric_mean lwlrap map_at_3 mean_std top3_accuracy',
    'recipe': 'FoldTask LinearRecipe RECIPES Recipe RunError TrainingData',
    'fitting': 'fit_fold',
    'linear': 'LinearClassifier',
    'rejection': 'Rejector',
    'suspects': 'find_suspects',
    'multilabel': '',
    'commands': '',
    'answers': '',
    'runs': '',
    'sessions': '',
    'progress': '',
    'locks': '',
    'fold': '',
    'training': 'split_rows train_folds',
    'pages': '',
    'results': 'Run evaluate load_run plot_confusion plot_curves plot_folds plot_labels top_confusions worst_mistakes write_metrics',
    'report': 'write_report',
    'comparison': '',
    'models': 'ModelError',
    'tagging': 'Calibration ModelError Tagger load_tagger tag_files',
    'export': 'export',
    'timeline': 'Event Timeline draw_timeline listen timeline',
    'calibration': 'auroc calibration_error cross_calibrate fit_temperature plot_reliability reliability temperature_scale threshold_for_recall',
    'explain': 'Explanation explain plot_explanation',
    'embed': 'embed',
    'classifier': 'SoundClassifier',
    'neighbours': 'SearchIndex',
    'approximate': '',
    'search': 'search',
    'answerpage': '',
    'teach': 'teach',
    'finding': '',
    'rooms': 'ImpulseResponses Room RoomDistribution read_responses simulate_dataset simulate_recording simulate_rooms',
    'distance': 'DistanceEstimator DistanceRecipe train_distance',
    'metres': 'CalibratedEstimator compare_distances',
    'console': '',
    'demo': '',
    'microphone': '',
    'distances': '',
    'card': '',
    'cluster': '',
    'cli': 'main',
}

# Modules that may import Keras at once: whoever imports them is about to train, or reads what was trained.
HEAVY = {'model', 'fitting', 'progress'}

TOP_LEVEL = set(
    'settings.ini README.md nbs soundtag _notebooks tests images pyproject.toml setup.py LICENSE'
    ' CHANGELOG.md CITATION.cff Makefile .ci .github .gitignore'.split()
)


@cache
def cells(path):
    return nbformat.read(path, as_version=4).cells


def code(path):
    return [c.source for c in cells(path) if c.cell_type == 'code']


def module_of(path):
    "The module that a chapter exports, like `audio` or `studies.speed`."
    return next(m[1] for s in code(path) if (m := re.match(r'#\|\s*default_exp (\S+)', s)))


MODULES = {module_of(p): p for p in NOTEBOOKS}  # module → chapter
PRODUCT = [m for m, p in MODULES.items() if p.name < STUDIES_FROM]
STUDIES = [m for m, p in MODULES.items() if p.name >= STUDIES_FROM]


def is_exported(source):
    return bool(re.match(r'#\|\s*(export|exporti)\b', source))


def parsed(source):
    "The cell's syntax tree without IPython magics."
    return ast.parse(re.sub(r'^(\s*)[%!].*', r'\1pass', source, flags=re.M))


def names_in(tree):
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    return names | {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}


@cache
def module_source(name):
    return (ROOT / 'soundtag' / f'{name.replace(".", "/")}.py').read_text('utf-8')


@cache
def module_tree(name):
    return ast.parse(module_source(name))


def imports(tree):
    "Every module imported anywhere in the code, also inside functions."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield '.' * node.level + (node.module or '')


def chapter_imports(tree):
    "The chapters imported; nbdev writes soundtag.audio as .audio, and as ..audio in a study."
    for name in imports(tree):
        if re.match(r'soundtag\.|\.', name):
            found = re.sub(r'^(soundtag\.|\.+)', '', name)
            is_study = f'studies.{found}' in MODULES and found not in MODULES
            yield f'studies.{found}' if is_study and not found.startswith('studies.') else found


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
    assert files == set(PRODUCT)
    studies = {p.stem for p in (ROOT / 'soundtag/studies').glob('*.py')} - {'__init__', '__main__'}
    assert {f'studies.{name}' for name in studies} == set(STUDIES)


@pytest.mark.parametrize('name', MODULES)
def test_a_chapter_imports_only_lower_chapters(name):
    order = list(MODULES)
    for module in chapter_imports(module_tree(name)):
        assert order.index(module) < order.index(name), f'{name} looks up to {module}'


def test_what_looks_up_is_found():
    tree = ast.parse(
        'def f():\n    from .studies.speed import benchmark\n    from .audio import play'
    )
    assert list(chapter_imports(tree)) == ['studies.speed', 'audio']


@pytest.mark.parametrize('name', MODULES)
def test_development_tools_and_code_from_data_stay_out(name):
    tree = module_tree(name)
    used = {m.split('.')[0] for m in imports(tree)}
    assert not used & {'fastcore', 'nbdev', 'execnb', 'pickle', 'dill', 'marshal', 'shelve'}
    calls = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
    called = {f.id for f in calls if isinstance(f, ast.Name)}
    assert not called & {'eval', 'exec', 'compile', '__import__'}
    assert 'allow_pickle=True' not in ast.unparse(tree)


@pytest.mark.parametrize('name', PRODUCT)
def test_what_comes_from_outside_is_not_checked_by_assert(name):
    "`python -O` leaves assertions out."
    assert not [n.lineno for n in ast.walk(module_tree(name)) if isinstance(n, ast.Assert)]


@pytest.mark.parametrize('name', [n for n in PRODUCT if n not in HEAVY])
def test_slow_imports_wait_until_they_are_needed(name):
    body = module_tree(name).body
    at_import = [
        m
        for node in body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for m in imports(ast.Module([node], []))
    ]
    slow = {'tensorflow', 'keras', 'matplotlib', 'librosa', 'IPython'}
    assert not {m.split('.')[0] for m in at_import} & slow


def test_export_gives_what_is_committed(tmp_path):
    for part in ('settings.ini', 'pyproject.toml'):
        shutil.copy(ROOT / part, tmp_path)
    shutil.copytree(ROOT / 'nbs', tmp_path / 'nbs')
    ignored = shutil.ignore_patterns('__pycache__')
    shutil.copytree(ROOT / 'soundtag', tmp_path / 'soundtag', ignore=ignored)
    nbdev_export = Path(sys.executable).parent / 'nbdev_export'
    subprocess.run([nbdev_export], cwd=tmp_path, check=True, capture_output=True)
    for folder in ('soundtag', 'soundtag/studies'):
        names = sorted(p.name for p in (tmp_path / folder).glob('*.py'))
        assert names == sorted(p.name for p in (ROOT / folder).glob('*.py'))
        differ = filecmp.cmpfiles(tmp_path / folder, ROOT / folder, names, shallow=False)[1:]
        assert differ == ([], []), 'run nbdev_export; modules are never edited by hand'


def test_notebooks_are_clean(tmp_path):
    shutil.copy(ROOT / 'settings.ini', tmp_path)
    shutil.copytree(ROOT / 'nbs', tmp_path / 'nbs')
    nbdev_clean = Path(sys.executable).parent / 'nbdev_clean'
    subprocess.run([nbdev_clean], cwd=tmp_path, check=True, capture_output=True)
    dirty = [
        p.name
        for p in (tmp_path / 'nbs').glob('*.ipynb')
        if p.read_bytes() != (ROOT / 'nbs' / p.name).read_bytes()
    ]
    assert not dirty, 'run nbdev_clean'


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda p: p.stem)
def test_a_chapter_can_be_read_in_one_sitting(path):
    assert path.stat().st_size < 2_000_000  # figures have twice the pixels they are shown with
    assert cells(path)[0].source.startswith('# ')
    for c in cells(path):
        assert not any(o.output_type == 'error' for o in c.get('outputs', [])), c.source
    prose = [c.source for c in cells(path) if c.cell_type == 'markdown']
    words = sum(len(re.sub(r'<!--.*?-->', '', text).split()) for text in prose)
    assert words < LONG_CHAPTERS.get(path.stem, (3000, 500))[0], f'{words} words'
    lines = style.code_lines(module_source(module_of(path)))
    assert lines < LONG_CHAPTERS.get(path.stem, (3000, 500))[1], f'{lines} exported lines'


# Chapters that are longer than one sitting: words and exported lines allowed.
LONG_CHAPTERS = {}


@pytest.mark.parametrize('rule', style.RULES)
@pytest.mark.parametrize('name', PRODUCT)
def test_the_product_is_written_by_the_rules(name, rule):
    assert not style.RULES[rule](module_source(name))


STUDY_RULES = ('wide lines', 'long functions', 'two statements on a line', 'named lambdas')


@pytest.mark.parametrize('rule', STUDY_RULES)
@pytest.mark.parametrize('name', STUDIES)
def test_the_laboratory_is_readable_too(name, rule):
    assert not style.RULES[rule](module_source(name))


PLANTED = {
    'wide lines': 'x = ' + '1 + ' * 30 + '1\n',
    'long functions': 'def f():\n' + '    x = 1\n' * 31,
    'two statements on a line': 'if x: y = 1\n',
    'unrelated tuple assignments': 'a, b = 1, 2\n',
    'comprehensions for their effect': '[print(x) for x in y]\n',
    'named lambdas': 'class A:\n    size = property(lambda self: 1)\n',
    'no type hints': "__all__ = ['f']\ndef f(x):\n    return x\n",
    'no example': "__all__ = ['f']\ndef f() -> int:\n    'One.'\n    return 1\n",
    'no docment': "__all__ = ['f']\ndef f(\n    x: int,\n) -> int:  # Text\n    return x\n",
    'no docstring': 'def f():\n    return 1\n',
    'defined twice': 'def f():\n    return 1\n\ndef f():\n    return 2\n',
}
FINE = '''__all__ = ['f']
def f(
    x: int,  # A number
) -> int:  # The next
    """The number after `x`.

    >>> f(1)
    2
    """
    a, b = b, a
    return x + 1
'''


def test_each_rule_finds_what_breaks_it():
    assert PLANTED.keys() == style.RULES.keys()
    for name, rule in style.RULES.items():
        assert rule(PLANTED[name]), name
        assert not rule(FINE), name


def test_lines_and_names_are_as_few_as_the_field_has():
    head, rows = style.table()
    total = dict(zip(head, rows[-1]))
    assert total['public'] <= style.PUBLIC_NAMES
    assert total['p95'] <= style.P95_WIDTH
    assert total['tokens'] <= style.MEAN_TOKENS


@pytest.mark.parametrize('name', PRODUCT)
def test_the_examples_of_the_docstrings_hold(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f'soundtag.{name}')
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    failed, tried = doctest.testmod(module, optionflags=options)
    assert not failed and (tried or not PUBLIC[name])


def parameters_of(member):
    "The names in a signature, but those that Python or a dataclass puts there."
    names = inspect.signature(member).parameters.values()
    return [p.name for p in names if p.name not in ('self', 'cls') and p.kind != p.VAR_KEYWORD]


@pytest.mark.parametrize('name', [n for n in PRODUCT if PUBLIC[n]])
def test_help_says_what_each_parameter_means(name):
    module = importlib.import_module(f'soundtag.{name}')
    for member in (vars(module)[n] for n in PUBLIC[name].split()):
        if not callable(member) or getattr(member, '__module__', None) != module.__name__:
            continue
        if isinstance(member, type) and issubclass(member, Exception):
            continue
        shown = pydoc.render_doc(member, renderer=pydoc.plaintext)
        for parameter in parameters_of(member):
            assert re.search(rf'\b{parameter}: \S', shown.split('Parameters:')[1]), parameter


def test_help_of_a_method_and_of_what_comes_back():
    from soundtag.tagging import Tagger

    assert 'sr: Rate of an array in Hz' in Tagger.tag.__doc__
    assert 'Returns: Samples, float32, (n,) or (channels, n)' in soundtag.load_audio.__doc__


def test_the_front_door_opens(tmp_path, monkeypatch):
    import soundtag

    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(soundtag) == (0, 5)
    assert all(callable(getattr(soundtag, name)) for name in soundtag.__all__)
    assert (ROOT / 'soundtag/py.typed').exists()


@pytest.mark.parametrize('name', PRODUCT)
def test_a_module_offers_what_is_listed_and_nothing_else(name):
    assert set(style.public_names(module_source(name))) == set(PUBLIC[name].split())


@pytest.mark.parametrize('name', MODULES)
def test_every_public_name_is_asserted_on(name):
    proved = set()
    for source in code(MODULES[name]):
        if is_exported(source):
            continue
        tree = parsed(source)
        asserts = any(isinstance(n, ast.Assert) for n in ast.walk(tree))
        if asserts or re.search(r'np\.testing\.assert_', source):
            proved |= names_in(tree)
    assert not set(style.public_names(module_source(name))) - proved


def test_skipped_cells_are_on_the_list():
    found = set()
    for path in [*NOTEBOOKS, ROOT / 'nbs/index.ipynb']:
        for source in code(path):
            if re.search(r'^#\|\s*(eval:\s*false|skip_exec|skip_showdoc|slow\b)', source, re.M):
                found.add((path.name, source.splitlines()[0]))
        assert 'skip_exec: true' not in cells(path)[0].source
    assert found == set(SKIPPED_CELLS)
    passed_over = [p.name for p in (ROOT / 'nbs').glob('_*.ipynb')]
    assert not passed_over, 'nbdev passes over notebooks whose name starts with _'


@pytest.mark.parametrize('path', [*NOTEBOOKS, ROOT / 'nbs/index.ipynb'], ids=lambda p: p.stem)
def test_every_figure_has_a_text_for_those_who_cannot_see_it(path):
    for c in cells(path):
        if c.cell_type == 'code' and any('image/png' in o.get('data', {}) for o in c.outputs):
            has_text = re.search(r'^#\|\s*fig-alt:', c.source, re.M)
            assert has_text, f'{path.stem}: no fig-alt on:\n{c.source[:200]}'


def test_readme_is_what_index_gives():
    command = [sys.executable, ROOT / '_notebooks/build.py', 'readme', '--check']
    assert subprocess.run(command).returncode == 0, 'run make readme'


def test_settings_are_the_one_source():
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT / 'settings.ini')
    version = cfg['DEFAULT']['version']
    assert f'__version__ = "{version}"' in (ROOT / 'soundtag/__init__.py').read_text()
    assert version in (ROOT / 'CHANGELOG.md').read_text('utf-8')
    declared = {
        re.split(r'[<>=!~]', r)[0]
        for n, listed in cfg['DEFAULT'].items()
        if n.endswith('requirements') and n != 'dev_requirements'
        for r in listed.split()
    }
    as_installed = {
        'sklearn': 'scikit-learn',
        'ai_edge_litert': 'ai-edge-litert',
        'faiss': 'faiss-cpu',
        'PIL': 'pillow',
    }
    ours = PEERS | sys.stdlib_module_names | {'', 'soundtag', 'IPython'}
    for name in MODULES:
        for module in {m.split('.')[0] for m in imports(module_tree(name))} - ours:
            needed = as_installed.get(module, module)
            assert needed in declared, (
                f'{name} imports {module}, which settings.ini does not require'
            )


def test_no_path_of_one_machine():
    pattern = '(^|[^a-z])/(home|root|tmp|work|Users)/'
    out = subprocess.run(
        ['git', 'grep', '-nIE', pattern, '--', '.', ':!tests/test_structure.py'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout
    assert not out
