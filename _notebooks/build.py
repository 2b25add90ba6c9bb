"""Builds what is generated from the chapters in `nbs/`.

    python _notebooks/build.py readme          README.md from nbs/index.ipynb
    python _notebooks/build.py colab           badges and the set-up cell in every chapter
    python _notebooks/build.py blog            the post, woven from the chapters (weave.py says how)
    python _notebooks/build.py blog --run      the same, its own cells run again
    python _notebooks/build.py site            the site in _docs (website.py says how)
    python _notebooks/build.py site --data F   the same, with examples from the recordings in F (default: $SOUNDTAG_DATA)

With --check nothing is written; the exit code says whether all is up to date.
"""
import argparse
import os
import re
import sys
import tempfile

sys.modules.setdefault('rfc3987_syntax', None)  # jsonschema does without it; it compiles 38 grammars when it is imported
import nbformat
from nbconvert import MarkdownExporter
from weave import CHAPTERS, POST, ROOT, equip, reading_minutes, run, weave

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
    text = re.sub(r'```\w*\n\s*```\n', '', text).replace('](../', '](')
    return NOTE + re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


def post(again):
    "The text of the post's notebook; `again` runs its own cells."
    nb = weave()
    if again:
        with tempfile.TemporaryDirectory() as folder:
            run(nb, folder)
    return nbformat.writes(nb) + '\n'


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['readme', 'colab', 'blog', 'site'])
    p.add_argument('--check', action='store_true', help='write nothing; exit 1 when something is stale')
    p.add_argument('--run', action='store_true', help='blog: run the cells that only the post has, and store what they print')
    p.add_argument('--data', metavar='F', default=os.environ.get('SOUNDTAG_DATA'), help='site: folder with FSDKaggle2018 and ESC-10, whose CC0 recordings the page that listens has as examples')
    args = p.parse_args()
    if args.what == 'site':
        from website import build
        return build(args.data)
    if args.what == 'colab':
        made = {path: equip(path) for path in CHAPTERS}
    else:
        made = {POST: post(args.run)} if args.what == 'blog' else {ROOT / 'README.md': readme()}
    stale = [path for path, text in made.items() if not path.exists() or path.read_text('utf-8') != text]
    if args.check:
        return int(bool(stale))
    for path in stale:
        path.write_text(made[path], 'utf-8')
    for path, text in made.items() if args.what == 'blog' else ():
        print(f'{path.name}: {len(text.encode()) / 1e6:.1f} MB, {reading_minutes(nbformat.reads(text, as_version=4)):.0f} minutes to read')


if __name__ == '__main__':
    sys.exit(main())
