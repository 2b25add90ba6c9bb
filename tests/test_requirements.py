"settings.ini: what is required has a lower bound, which tests/oldest.py installs, and the lock file follows."

import re

import oldest
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = 'approximate cluster distance export fast listen litert parquet scenes train'.split()
LOCK = oldest.ROOT / 'tests/requirements.txt'


@pytest.mark.parametrize('requirement', oldest.requirements(*EXTRAS))
def test_every_requirement_has_a_lower_bound(requirement):
    wanted = Requirement(requirement)
    name, version = oldest.oldest(requirement).split('==')
    assert canonicalize_name(name) == canonicalize_name(wanted.name)
    assert wanted.specifier.contains(version)


def test_models_of_strangers_need_a_keras_that_reads_no_other_files():
    (keras,) = [r for r in oldest.requirements('train') if r.startswith('keras')]
    assert not Requirement(keras).specifier.contains('3.11.3')


def locked():
    "Name → version of the lock file."
    lines = re.findall(r'^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)', LOCK.read_text('utf-8'), re.M)
    return {canonicalize_name(name): version for name, version in lines}


@pytest.mark.parametrize('requirement', [*oldest.requirements(*EXTRAS, 'dev')])
def test_the_lock_file_holds_what_is_required(requirement):
    wanted = Requirement(requirement)
    version = locked()[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(version, prereleases=True), f'{wanted}: {version} is locked'
