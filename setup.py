"Reads settings.ini, the one source for name, version and requirements."
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

cfg = ConfigParser(delimiters=['='])
cfg.read(Path(__file__).parent / 'settings.ini', encoding='utf-8')
s = cfg['DEFAULT']
extras = {name: s[f'{name}_requirements'].split() for name in ('train', 'approximate', 'cluster', 'distance', 'export', 'fast', 'listen', 'litert', 'parquet', 'scenes')}

setup(
    name=s['lib_name'],
    version=s['version'],
    description=s['description'],
    long_description=(Path(__file__).parent / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=s['author'],
    author_email=s['author_email'],
    license='Apache-2.0',
    keywords=s['keywords'].split(),
    classifiers=['Development Status :: 3 - Alpha', 'Programming Language :: Python :: 3',
                 'Topic :: Multimedia :: Sound/Audio :: Analysis', 'Framework :: Jupyter'],
    url=s['git_url'],
    packages=[s['lib_path']],  # Part I alone: the studies stay in the repository
    package_data={s['lib_path']: ['bundled/*', 'py.typed']},
    python_requires=f">={s['min_python']}",
    install_requires=s['requirements'].split(),
    extras_require=extras | {'dev': [*s['dev_requirements'].split(), *(r for needed in extras.values() for r in needed)]},
    entry_points={'console_scripts': s['console_scripts'].split()},
)
