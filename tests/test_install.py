"The package as a user gets it: a wheel, a fresh environment, no development tools, far from the checkout."

import json
import os
import subprocess
import sys
from zipfile import ZipFile

import numpy as np

from soundtag.audio import wav_bytes
from soundtag.recipe import RECIPES


def run(environment, *args, name='env'):
    env = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'VIRTUAL_ENV'))}
    env |= {'SOUNDTAG_CACHE': str(environment / 'cache'), 'TF_CPP_MIN_LOG_LEVEL': '3'}
    return subprocess.run(
        [environment / name / 'bin' / args[0], *args[1:]],
        cwd=environment,
        env=env,
        capture_output=True,
        text=True,
    )


def test_no_development_tools_come_along(environment):
    pip = [sys.executable, '-m', 'pip', '--python', environment / 'env/bin/python']
    done = subprocess.run([*pip, 'list', '--format=freeze'], capture_output=True, text=True)
    listed = done.stdout.lower()
    assert 'soundtag==' in listed
    assert not {line.split('==')[0] for line in listed.split()} & {
        'nbdev',
        'fastcore',
        'execnb',
        'jupyter',
        'pytest',
    }


def test_the_laboratory_stays_in_the_repository(environment):
    code = 'import soundtag, importlib.util as u; print(u.find_spec("soundtag.studies"))'
    assert run(environment, 'python', '-c', code).stdout.strip() == 'None'
    (wheel,) = environment.glob('*.whl')
    assert not [n for n in ZipFile(wheel).namelist() if 'studies/' in n]


def test_train_and_tag_on_mini(environment):
    done = run(
        environment,
        'soundtag',
        'train',
        'mini',
        '--recipe',
        'post',
        '--folds',
        '2',
        '--epochs',
        '1',
        '--out',
        'run',
    )
    assert done.returncode == 0, done.stderr
    assert 'MAP@3' in done.stdout
    assert (environment / 'run/metrics.json').exists() and (
        environment / 'run/report.html'
    ).exists()
    clip = next((environment / 'cache').rglob('*test/*.wav'))
    tagged = run(environment, 'soundtag', 'tag', str(clip), '--model', 'run')
    assert tagged.returncode == 0, tagged.stderr
    assert clip.name in tagged.stdout


def base(environment, *words):
    "The command without the extra train: exit code, stdout, stderr."
    code = 'import sys; from soundtag.cli import main; sys.exit(main())'
    done = run(environment, 'python', '-c', code, *map(str, words), name='base')
    return done.returncode, done.stdout, done.stderr


def test_naming_sounds_takes_little(base_environment, tmp_path):
    listed = {p.name for p in (base_environment / 'base').rglob('site-packages/*')}
    assert not listed & {'tensorflow', 'keras', 'librosa', 'sklearn', 'matplotlib', 'numba'}
    path = tmp_path / 'x.wav'
    path.write_bytes(wav_bytes(np.sin(np.arange(88200) ** 1.3), sr=44100))
    for words in ((), ('--timeline',), ('--distance',), ('--format', 'json')):
        code, out, err = base(base_environment, 'tag', path, '--model', 'bundled', *words)
        assert code == 0 and out and not err, err
    shown = run(base_environment, 'python', '-c', 'import soundtag; soundtag.Tagger', name='base')
    assert shown.returncode == 0, shown.stderr


def test_what_takes_more_says_so(base_environment, tmp_path):
    path = tmp_path / 'x.wav'
    path.write_bytes(wav_bytes(np.sin(np.arange(88200)), sr=44100))
    picture = 'tag', path, '--model', 'bundled', '--timeline', '--picture', tmp_path / 'x.png'
    (tmp_path / 'run').mkdir()
    places = {'name': 'x', 'root': 'x', 'fingerprint': '0' * 16, 'clips': 2, 'labels': 2}
    config = {'recipe': RECIPES['post'].settings, 'selection': 'x', 'data': places}
    config |= {'folds': {'number': 2, 'kind': 'auto'}, 'seed': 0, 'versions': {}}
    (tmp_path / 'run/config.json').write_text(json.dumps(config))
    (tmp_path / 'run/labels.json').write_text('["a", "b"]')
    for words in (('train', 'mini', '--recipe', 'post'), picture, ('report', tmp_path / 'run')):
        code, _, err = base(base_environment, *words)
        *_, last = err.splitlines()
        assert code == 2 and last.startswith('soundtag: ') and 'Traceback' not in err
        assert 'pip install "soundtag[train]"' in last
