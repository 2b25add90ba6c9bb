"What packaging needs: the citation, the release workflow, the Dockerfile, and the card of an exported model."

import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from dataclasses import replace
from zipfile import ZipFile

import pytest
import yaml
from test_results import write_data, write_run

from soundtag.card import write_card
from soundtag.dataset import load_clips
from soundtag.metrics import format_percent
from soundtag.recipe import RunError
from soundtag.results import load_run, write_metrics



@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as m:
        m.setenv('SOUNDTAG_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


INSTRUCTIONS = set('FROM RUN ARG WORKDIR COPY ENV VOLUME ENTRYPOINT CMD'.split())


@pytest.fixture(scope='module')
def settings(root):
    cfg = ConfigParser(delimiters=['='])
    cfg.read(root / 'settings.ini')
    return cfg['DEFAULT']


def test_the_citation_is_of_this_version(root, settings):
    citation = yaml.safe_load((root / 'CITATION.cff').read_text('utf-8'))
    assert {'cff-version', 'message', 'title', 'authors'} <= set(citation)  # what the form asks for
    assert citation['cff-version'] == '1.2.0' and citation['type'] == 'software'
    assert citation['version'] == settings['version']
    assert citation['abstract'] == settings['description']
    assert citation['repository-code'] == settings['git_url']
    assert [a['name'] for a in citation['authors']] == [settings['author']]
    for reference in citation['references']:
        assert {'type', 'title', 'authors', 'year'} <= set(reference)


def test_releases_are_published_by_trust_and_not_by_a_password(root):
    path = root / '.github/workflows/release.yml'
    flow = yaml.safe_load(path.read_text('utf-8'))
    assert flow[True] == {'release': {'types': ['published']}}  # YAML reads `on` as a switch
    build, publish = flow['jobs']['build'], flow['jobs']['publish']
    assert flow['permissions'] == {'contents': 'read'} and 'permissions' not in build
    assert publish['permissions'] == {'id-token': 'write'} and publish['needs'] == 'build'
    assert publish['environment']['name'] == 'pypi'
    assert publish['steps'][-1] == {'uses': 'pypa/gh-action-pypi-publish@release/v1'}
    assert 'password' not in path.read_text('utf-8').replace('no password', '')
    runs = [step.get('run', '') for step in build['steps']]
    assert runs.index('make test') < runs.index('python -m build')
    assert any('GITHUB_REF_NAME' in run and 'setup.py --version' in run for run in runs)


def instructions(root):
    "The instructions of the Dockerfile, continued lines joined: name and rest."
    text = (root / '.github/Dockerfile').read_text('utf-8').replace('\\\n', ' ')
    lines = [line for line in text.splitlines() if line.strip() and line[0] != '#']
    return [tuple(line.split(None, 1)) for line in lines]


def test_the_dockerfile_says_what_docker_understands(root, settings):
    steps = instructions(root)
    assert {name for name, _ in steps} <= INSTRUCTIONS and steps[0][0] == 'FROM'
    python = re.fullmatch(r'python:(\d+)\.(\d+)-slim', steps[0][1])
    assert tuple(map(int, python.groups())) >= tuple(map(int, settings['min_python'].split('.')))
    words = {name: rest for name, rest in steps}
    command = settings['console_scripts'].split('=')[0]
    assert json.loads(words['ENTRYPOINT']) == [command] and json.loads(words['CMD']) == ['--help']
    for name, rest in steps:
        if name == 'RUN':  # a shell understands it
            subprocess.run(['sh', '-n', '-c', rest], check=True)
    extras = {n.removesuffix('_requirements') for n in settings if n.endswith('_requirements')}
    assert 'train' in extras and 'EXTRAS=train' in (root / '.github/Dockerfile').read_text()


def test_what_the_dockerfile_copies_makes_the_package(root, environment, tmp_path):
    allowed = (root / '.github/Dockerfile.dockerignore').read_text().splitlines()
    for name, rest in instructions(root):
        if name != 'COPY':
            continue
        *sources, target = rest.split()
        for source in sources:
            assert f'!{source}' in allowed
            if (root / source).is_dir():
                shutil.copytree(
                    root / source, tmp_path / target, ignore=lambda *_: {'studies', '__pycache__'}
                )
            else:
                shutil.copy(root / source, tmp_path / target)
    pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check', 'wheel']
    out = tmp_path / 'dist'
    subprocess.run([*pip, '--no-deps', '--wheel-dir', out, str(tmp_path)], check=True)
    (wheel,), (other,) = out.glob('*.whl'), environment.glob('*.whl')
    assert sorted(ZipFile(wheel).namelist()) == sorted(ZipFile(other).namelist())


def test_the_card_of_a_run_says_what_it_is(tmp_path):
    clips = load_clips(write_data(tmp_path / 'data'))
    licensed = clips.table.assign(license=['CC0', 'CC-BY'] * 13 + [''])
    clips = replace(clips, table=licensed)
    out = write_run(tmp_path / 'run', clips)
    metrics = write_metrics(load_run(out), clips)
    (tmp_path / 'mine.onnx').touch()
    card = write_card(out, tmp_path / 'mine.onnx')
    assert card == tmp_path / 'mine.md'
    _, head, body = card.read_text('utf-8').split('---\n', 2)
    read = yaml.safe_load(head)
    result = read['model-index'][0]['results'][0]
    assert read['model-index'][0]['name'] == 'mine'
    assert result['task']['type'] == read['pipeline_tag'] == 'audio-classification'
    accuracy = metrics['metrics']['accuracy']['mean']
    assert result['metrics'][0]['value'] == pytest.approx(accuracy, abs=5e-5)
    assert format_percent(metrics['metrics']['accuracy']) in body
    for row in metrics['labels']:
        assert f"| {row['label']} | 8 | {row['recall']:.0%} | {row['precision']:.0%} |" in body
    assert '| CC0 | 12 |' in body and '| CC-BY | 12 |' in body  # of the training clips
    assert '--model mine.onnx' in body and 'finds less than 60 %' in body
    assert metrics['recordings'] == 24 and 'from 24 recordings' in body
    again = write_card(out, tmp_path / 'mine.onnx')  # ours may be replaced
    assert again == card
    card.write_text('# by hand')
    assert write_card(out, tmp_path / 'mine.onnx') is None and card.read_text() == '# by hand'


@pytest.mark.parametrize('damage', ['{}', '[]', '{"metrics": 3}', 'x'])
def test_the_card_of_a_damaged_run_is_refused_in_one_line(damage, tmp_path):
    out = write_run(tmp_path / 'run', load_clips(write_data(tmp_path / 'data')))
    with pytest.raises(RunError, match='metrics.json: is missing'):
        write_card(out, tmp_path / 'mine.onnx')
    (out / 'metrics.json').write_text(damage)
    with pytest.raises(RunError, match='metrics.json: is damaged') as e:
        write_card(out, tmp_path / 'mine.onnx')
    assert '\n' not in str(e.value) and not (tmp_path / 'mine.md').exists()
