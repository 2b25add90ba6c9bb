"""Builds what is generated from the chapters in `nbs/`.

    python _notebooks/build.py readme          write README.md from nbs/index.ipynb
    python _notebooks/build.py readme --check  say whether README.md is up to date, by the exit code
"""
import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
NOTE = '<!-- Made from nbs/index.ipynb by `make readme`; edit that. -->\n\n'


def shown(cell):
    "The cell as a reader sees it, without directives; None when it is hidden."
    lines = cell.source.splitlines()
    directives = [line for line in lines if line.startswith('#|')]
    if any(re.match(r'#\|\s*(hide|default_exp|include: false)', d) for d in directives):
        return None
    if any(re.match(r'#\|\s*echo: false', d) for d in directives):
        lines = []
    cell.source = '\n'.join(line for line in lines if not line.startswith('#|')).strip()
    return cell


def readme():
    "The text of README.md."
    nb = nbformat.read(ROOT / 'nbs/index.ipynb', as_version=4)
    nb.cells = [c for c in map(shown, nb.cells) if c is not None]
    text, resources = MarkdownExporter().from_notebook_node(nb)
    if resources['outputs']:
        raise SystemExit('index.ipynb: a figure in an output cannot stand in README.md; show a file of images/ instead')
    text = re.sub(r'```\w*\n\s*```\n', '', text).replace('](../images/', '](images/')
    return NOTE + re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['readme'])
    p.add_argument('--check', action='store_true', help='write nothing; exit 1 when the file is stale')
    args = p.parse_args()
    path, text = ROOT / 'README.md', readme()
    if args.check:
        return int(path.read_text('utf-8') != text)
    path.write_text(text, 'utf-8')


if __name__ == '__main__':
    sys.exit(main())
