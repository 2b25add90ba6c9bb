"""The oldest versions that settings.ini admits: installs them, and runs what a user does first.

    python tests/oldest.py                 what naming sounds takes
    python tests/oldest.py train export    and what learning and exporting take
    python tests/oldest.py --list          prints what would be installed

Each `name>=version` becomes `name==version`; what these ask for is left to pip. A fresh environment
is made in a temporary folder, so that nothing of this one counts.
"""

import os
import re
import subprocess
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMOKE = {
    (): ['test_files', 'test_stream', 'test_tagging', 'test_timeline', 'test_requirements'],
    ('train',): ['test_audio', 'test_mfcc', 'test_model', 'test_linear', 'test_runs'],
}  # Extras → the tests that run, beside those of fewer extras


def requirements(*extras):
    "What settings.ini asks for, and with these extras."
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT / 'settings.ini', encoding='utf-8')
    names = ['requirements', *(f'{extra}_requirements' for extra in extras)]
    return [r for name in names for r in cfg['DEFAULT'][name].split()]


def oldest(requirement):
    "The oldest version that a requirement admits, as a constraint of pip; '' where it names none."
    found = re.match(r'([\w.-]+)>=([\w.]+)', requirement)
    return f'{found[1]}=={found[2]}' if found else ''


def main(*extras):
    lines = [oldest(r) for r in requirements(*extras)]
    if '--list' in sys.argv:
        return print('\n'.join(lines))
    with tempfile.TemporaryDirectory() as folder:
        env = Path(folder) / 'env'
        python = env / 'bin/python'
        constraints = Path(folder) / 'oldest.txt'
        constraints.write_text('\n'.join(lines) + '\n')
        subprocess.run([sys.executable, '-m', 'venv', env], check=True)
        pip = [python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
        wanted = str(ROOT) + (f'[{",".join(extras)}]' if extras else '')
        subprocess.run([*pip, '-c', constraints, wanted, 'pytest', 'hypothesis'], check=True)
        subprocess.run([python, '-m', 'pip', 'list', '--format=freeze'], check=True)
        tests = [t for some, names in SMOKE.items() if set(some) <= set(extras) for t in names]
        paths = [ROOT / f'tests/{name}.py' for name in tests]
        options = ['-q', '-p', 'no:cacheprovider', '-m', 'not slow', '-o', 'addopts=']
        if not extras:
            options += ['-k', 'not picture']  # which takes Matplotlib
        clean = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')}
        sys.exit(subprocess.run([python, '-m', 'pytest', *options, *paths], env=clean).returncode)


if __name__ == '__main__':
    main(*[word for word in sys.argv[1:] if not word.startswith('-')])
