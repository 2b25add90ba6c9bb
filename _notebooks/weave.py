"""Weaves the post from the chapters.

`post.md` holds what only the post says: the way from one part to the next, the conclusion, the references. A line
`<!-- cells NAME -->` in it is replaced by the cells of the chapters that are marked for the part NAME:

- a code cell by the directive `#| post NAME`; `#| post NAME figure` takes the figure alone, for cells that read files
  which only the repository has;
- a Markdown cell, or some of its paragraphs, by `<!-- post NAME -->` before and `<!-- /post -->` after them.

Chapters come in their order, cells in theirs. Checks (`assert`) stay in the chapters. Jinja fills in what was measured,
from `nbs/results`, so that no number is typed.
"""
import ast
import json
import re
from configparser import ConfigParser
from copy import deepcopy
from hashlib import sha256
from pathlib import Path

import jinja2
import nbformat
import yaml
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ConfigParser(delimiters=['='])
SETTINGS.read(ROOT / 'settings.ini', 'utf-8')
SETTINGS = SETTINGS['DEFAULT']
SITE = SETTINGS['doc_host'] + SETTINGS['doc_baseurl']

TITLE = 'Predicting from sound'
SUMMARY = 'What a neural network hears in two seconds of sound, how it learns its clips by heart, and what a straight line does better'
DATE = '2026-11-22'
POST = ROOT / f'_notebooks/{DATE}-predicting-from-sound.ipynb'
CHAPTERS = sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))


def addresses(path):
    "Where Colab and Binder open the notebook at `path`, seen from the repository's root."
    where = f'{SETTINGS["user"]}/{SETTINGS["repo"]}'
    return (f'https://colab.research.google.com/github/{where}/blob/{SETTINGS["branch"]}/{path}',
            f'https://mybinder.org/v2/gh/{where}/{SETTINGS["branch"]}?labpath={path}')


def badges(path):
    "Markdown that opens the notebook at `path` in Colab and in Binder."
    colab, binder = addresses(path)
    return (f'[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})\n'
            f'[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})')


def in_laboratory(path):
    "Whether a chapter belongs to Part II, which only the repository has, not the package that pip installs."
    return path.name >= '20'


def module_of(path):
    "The module that a chapter exports, like `audio` or `studies.speed`."
    return next(m[1] for c in nbformat.read(path, as_version=4).cells if (m := re.match(r'#\|\s*default_exp (\S+)', c.source)))


def reads_the_book(nb):
    "Whether a chapter reads results that lie beside it, or writes an image of the book."
    return any(re.search(r"results/|\.\./images", c.source) for c in nb.cells if c.cell_type == 'code')


# Found by running the chapters without each extra
EXTRAS = {
    'approximate': ('09ha', '09i', '27c'),
    'cluster': ('00c', '10h', '21e'),
    'distance': ('10', '10a', '10ab', '10e', '28b', '29', '29a', '29b', '29c'),
    'export': ('09a', '28'),
    'scenes': ('27',),
}


def extras(stem):
    "What the cells of a chapter take beside what learning takes."
    number = stem.split('_')[0]
    return ','.join(['train', *(extra for extra, numbers in EXTRAS.items() if number in numbers)])


def set_up(laboratory=False, book=False, extras='train'):
    "The one cell that makes a notebook run where it was opened alone, as in Colab; a study is found in the repository."
    where = '(there is no results folder beside it)' if book else '(in Colab)'
    condition = "not Path('results').is_dir()" if book else "'google.colab' in sys.modules"
    return (f"#| hide\n# Where this notebook was opened alone {where}, this fetches soundtag; elsewhere it does nothing.\nimport sys\n"
            + ("from pathlib import Path\n" if book else '') + f"if {condition}:\n"
            f"    !git clone --quiet --depth 1 --branch {SETTINGS['branch']} {SETTINGS['git_url']}\n"
            f"    %pip install --quiet './{SETTINGS['repo']}[{extras}]'\n"
            f"    %cd {SETTINGS['repo']}/nbs" + ("\n    sys.path.insert(0, '..')" if laboratory else ''))


def equip(path):
    "The text of a chapter with its badges and its set-up cell, as its second and third cells."
    nb = nbformat.read(path, as_version=4)
    ours = [nbformat.v4.new_markdown_cell(badges(path.relative_to(ROOT).as_posix())), nbformat.v4.new_code_cell(set_up(in_laboratory(path), reads_the_book(nb), extras(path.stem)))]
    for cell in ours:
        cell.id = sha256(cell.source.encode()).hexdigest()[:8]
    nb.cells[1:] = ours + [c for c in nb.cells[1:] if not re.match(r'\[!\[Open in Colab\]|#\| hide\n# (In Colab this fetches|Where this notebook was opened alone)', c.source)]
    return nbformat.writes(nb) + '\n'


def directive(cell):
    "The part a code cell is marked for and whether only its figure is wanted, or None."
    found = re.search(r'^#\| post (\w+)( figure)?$', cell.source, re.M)
    return found and (found[1], bool(found[2]))


def passages(text, part):
    "The marked passages of a Markdown cell."
    return re.findall(rf'<!-- post {part} -->\n(.*?)(?:\n<!-- /post -->|\Z)', text, re.S)


def without_checks(source):
    "The code without its assertions and their like, which the chapters keep."
    def check(node): return isinstance(node, ast.Assert) or isinstance(node, ast.Expr) and ast.unparse(node).startswith('np.testing.')
    lines, nodes = source.splitlines(), ast.parse(source).body
    for node in reversed(nodes):
        if check(node):
            del lines[node.lineno - 1:node.end_lineno]
    left = re.sub(r'\n{3,}', '\n\n', '\n'.join(lines)).strip()
    last = ast.parse(left).body[-1:]
    shows = nodes and check(nodes[-1]) and last and isinstance(last[0], ast.Expr) and not ast.unparse(last[0]).startswith('print(')
    return left + (';' if shows else '')    # what was no output in the chapter is none here


def deeper(text):
    "Headings one level further down, for they stand under a heading of the post."
    return re.sub(r'^(#+) ', r'#\1 ', text, flags=re.M)


NOT_PROSE = re.compile(r'(```.*?```|`[^`]*`|\$\$.*?\$\$|!?\[[^]]*\]\([^)]*\)|<a .*?</a>|<!--.*?-->|^#+ .*?$)', re.S | re.M)
CHAPTER = re.compile(r'\b[Cc]hapters?\s+\d\d[a-z]?\b(?:(?:,\s+\d\d[a-z]?\b)*,?\s+(?:and|or|to)\s+\d\d[a-z]?\b)*')    # 04; 04, 05a and 06; 04 to 06b


def number_of(path):
    "The number of a chapter, like `08b`."
    return path.stem.split('_')[0]


def with_links(text, here=None):
    "`chapter 04` and each number in `chapters 04 to 06b` as a link to its page, where it is none yet and not `here`."
    pages = {number_of(p): p.stem for p in CHAPTERS if p.stem != here}

    def link(words, number):
        return f'[{words}]({SITE}/{pages[number]}.html)' if number in pages else words

    def links(mention):
        first, *more = re.split(r'(?<=[\da-z])(?=,|\s+(?:and|or|to)\s)', mention[0])
        later = (re.sub(r'\d\d[a-z]?', lambda m: link(m[0], m[0]), part) for part in more)
        return link(first, first.split()[-1]) + ''.join(later)

    parts = NOT_PROSE.split(text)    # every second one is no prose
    return ''.join(part if i % 2 else CHAPTER.sub(links, part) for i, part in enumerate(parts))


def figure(cell):
    "The figure of a cell as Markdown that brings its picture along."
    alt = re.search(r'^#\| fig-alt: "(.*)"$', cell.source, re.M)[1]
    picture, = (o.data['image/png'] for o in cell.outputs if 'image/png' in o.get('data', {}))
    caption = re.search(r'^#\| fig-cap: "(.*)"$', cell.source, re.M)[1]
    return f'![{alt}](data:image/png;base64,{"".join(picture.split())})\n\n*{caption}*'


def woven_code(cell):
    "A chapter's code cell as the post has it: what only draws is folded, and the clips are those chosen at the top."
    lines = [l for l in cell.source.splitlines() if not re.match(r'#\| (post|export)|# measured|clips = mini\(\)$', l)]
    top = [l for l in lines if l.startswith('#|')]
    draws = any('image/png' in o.get('data', {}) for o in cell.outputs)
    if draws:
        top += ['#| code-fold: true', '#| code-summary: "How the figure is drawn"']
    new = nbformat.v4.new_code_cell('\n'.join(top + [without_checks('\n'.join(l for l in lines if not l.startswith('#|')))]))
    new.outputs = deepcopy(cell.outputs)
    return new


def marked(part):
    "The cells that the chapters have marked for one part of the post."
    cells = []
    for path in CHAPTERS:
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == 'markdown':
                cells += [nbformat.v4.new_markdown_cell(with_links(deeper(p))) for p in passages(cell.source, part)]
            elif (wanted := directive(cell)) and wanted[0] == part:
                cells.append(nbformat.v4.new_markdown_cell(figure(cell)) if wanted[1] else woven_code(cell))
    if not cells:
        raise SystemExit(f'post.md asks for the part {part}, for which no chapter has marked a cell')
    return cells


def results():
    "All that real runs have written down, by file name."
    return {p.stem: json.loads(p.read_text('utf-8')) for p in sorted((ROOT / 'nbs/results').glob('*.json'))}


def told():
    "The text of post.md with the numbers filled in and the references numbered."
    env = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, comment_start_string='{##')
    env.filters['points'] = lambda x: f'{100 * x:.0f}'
    env.filters['pct'] = lambda x: f'{100 * x:.1f} %'
    env.filters['pm'] = lambda m: f'{100 * m["mean"]:.1f} ± {100 * m["sd"]:.1f} %'
    text = env.from_string((ROOT / '_notebooks/post.md').read_text('utf-8')).render(**results(), site=SITE, git_url=SETTINGS['git_url'])
    keys = re.findall(r'^\[@(\w+)\]: ', text, re.M)
    text = re.sub(r'^\[@(\w+)\]: ', lambda m: f'{keys.index(m[1]) + 1}. <a id="ref-{m[1]}"></a>', text, flags=re.M)
    unknown = set(cited := re.findall(r'\[@(\w+)\]', text)) - set(keys)
    if unknown or set(keys) - set(cited):
        raise SystemExit(f'post.md: references that do not fit their list: {sorted(unknown | (set(keys) - set(cited)))}')
    return re.sub(r'\[@(\w+)\]', lambda m: f'<sup>[[{keys.index(m[1]) + 1}]](#ref-{m[1]})</sup>', text)


def front_matter():
    "Two cells: YAML for Quarto, and the heading, summary and list that fastpages reads."
    facts = {'toc': True, 'badges': True, 'comments': True, 'categories': ['sound', 'neural networks', 'jupyter'], 'sticky_rank': 1, 'image': 'images/results_curves.png'}
    quarto = {'description': SUMMARY, 'date': DATE, 'author': SETTINGS['author'], **facts}
    listed = '\n'.join(f'- {k}: {json.dumps(v) if not isinstance(v, str) else v}' for k, v in facts.items())
    return [nbformat.v4.new_raw_cell(f'---\n{yaml.safe_dump(quarto, sort_keys=False, allow_unicode=True, width=200)}---'),
            nbformat.v4.new_markdown_cell(f'# {TITLE}\n\n> {SUMMARY}\n\n<!--\n{listed}\n-->\n\n{badges(POST.relative_to(ROOT).as_posix())}'),
            nbformat.v4.new_code_cell(set_up())]


def weave():
    "The post as a notebook. What the post's own cells printed is kept from the post as it lies there."
    cells = front_matter()
    for block in re.split(r'^(<!-- cells \w+ -->|```python\n.*?^```)$', told(), flags=re.M | re.S):
        if found := re.match(r'<!-- cells (\w+) -->', block):
            cells += marked(found[1])
        elif block.startswith('```python'):
            cells.append(nbformat.v4.new_code_cell(block.removeprefix('```python\n').removesuffix('\n```')))
        elif block.strip():
            cells.append(nbformat.v4.new_markdown_cell(with_links(block.strip())))
    before = {c.source: c.outputs for c in nbformat.read(POST, as_version=4).cells if c.cell_type == 'code'} if POST.exists() else {}
    for i, cell in enumerate(cells):
        cell.id = f'{i:03}-{sha256(cell.source.encode()).hexdigest()[:8]}'
        if cell.cell_type == 'code' and not cell.outputs:
            cell.outputs = before.get(cell.source, [])
    kernel = {'display_name': 'python3', 'language': 'python', 'name': 'python3'}
    return nbformat.v4.new_notebook(cells=cells, metadata={'kernelspec': kernel})


def run(nb, folder):
    "Run the post in a folder, and take over what its own cells print; the others keep what the chapters stored."
    fresh = deepcopy(nb)
    for cell in fresh.cells:
        if cell.cell_type == 'code':
            cell.outputs = []
    NotebookClient(fresh, timeout=600, kernel_name='python3', resources={'metadata': {'path': str(folder)}}, record_timing=False).execute()
    own = {b[len('```python\n'):-len('\n```')] for b in re.findall(r'^```python\n.*?^```$', told(), re.M | re.S)}
    for cell, new in zip(nb.cells, fresh.cells, strict=True):
        if cell.source in own:
            cell.outputs = [o for o in new.outputs if not (o.output_type == 'stream' and o.name == 'stderr')]
    return nb


def reading_minutes(nb):
    "How long the post takes to read, without its references: 220 words a minute, and 10 s for a figure or an equation."
    text = '\n'.join(c.source for c in nb.cells if c.cell_type == 'markdown').split('\n## References')[0]
    figures = text.count('](data:image') + sum('image/png' in o.get('data', {}) for c in nb.cells for o in c.get('outputs', []))
    words, equations = re.subn(r'\$\$.*?\$\$', ' ', re.sub(r'!\[[^]]*\]\([^)]*\)|\]\([^)]*\)|<!--.*?-->', ' ', text, flags=re.S), flags=re.S)
    return len(words.split()) / 220 + (figures + equations) / 6
