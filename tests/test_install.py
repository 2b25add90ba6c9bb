"The package as a user gets it: a wheel, a fresh environment, no development tools, far from the checkout."

import os
import subprocess
from zipfile import ZipFile


def run(environment, *args):
    env = {k: v for k, v in os.environ.items() if not k.startswith(('PYTHON', 'VIRTUAL_ENV'))}
    env |= {'SOUNDTAG_CACHE': str(environment / 'cache'), 'TF_CPP_MIN_LOG_LEVEL': '3'}
    return subprocess.run(
        [environment / 'env/bin' / args[0], *args[1:]],
        cwd=environment,
        env=env,
        capture_output=True,
        text=True,
    )


def test_no_development_tools_come_along(environment):
    listed = run(environment, 'python', '-m', 'pip', 'list', '--format=freeze').stdout.lower()
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
