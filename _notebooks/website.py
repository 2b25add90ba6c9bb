"""Builds the site: the front page, the post and the chapters, as they lie stored in their notebooks; nothing is run.

A copy of each notebook goes to `_proc`, where figures and sounds become files, cells that are hidden are left out and
plumbing is folded; smalldocs renders that folder to `_docs`. It is a valid Quarto project, so `quarto render _proc`
does the same. Nothing in the pages is loaded from outside: KaTeX comes from the npm registry once, by its checksum.
"""
import ast
import base64
import hashlib
import html
import importlib
import inspect
import io
import logging
import re
import shutil
import struct
import tarfile
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import listening
import nbformat
import soundfile as sf
import yaml
from figures import darken, made_once, slim
from fontTools import subset
from fontTools.ttLib import TTFont
from smalldocs import api
from smalldocs.site import build as render
from soundtag.front import without_parameters
from weave import CHAPTERS, POST, ROOT, SETTINGS, SITE, TITLE, addresses, module_of, number_of, with_links

PROC, DOCS = ROOT / '_proc', ROOT / '_docs'
logging.getLogger('fontTools').setLevel(logging.ERROR)
ARCHIVES = {    # name at the npm registry: version, SHA-512
    'katex': ('0.16.11', 'RQrI8rlHY92OLf3rho/Ts8i/XvjgguEjOkO1BEXcU3N8BqPpSzBNwV/G0Ukr+P/l3ivvJUE/Fa/CwbS6HesGNQ=='),
    'onnxruntime-web': ('1.30.0', 'q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==')}
REPO = SETTINGS['git_url']


def archive(name, cache=ROOT / 'build'):
    "An archive from the npm registry, fetched once and checked each time."
    version, checksum = ARCHIVES[name]
    path, url = cache / f'{name}-{version}.tgz', f'https://registry.npmjs.org/{name}/-/{name}-{version}.tgz'
    if not path.exists():
        cache.mkdir(exist_ok=True)
        with urllib.request.urlopen(url, timeout=60) as answer:
            path.write_bytes(answer.read())
    data = path.read_bytes()
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != checksum:
        path.unlink()
        raise SystemExit(f'{url} is not the file it was; nothing of it is used')
    return data


def keep_used_icons():
    "Leave in the icon font only what the pages use: a tenth of a page's weight."
    lib, libs = DOCS / 'site_libs/bootstrap-icons', DOCS / 'site_libs'
    text = ''.join(p.read_text('utf-8') for p in [*DOCS.glob('*.html'), libs / 'smalldocs.css', libs / 'smalldocs.js'])
    css, used = (lib / 'bootstrap-icons.min.css').read_text('utf-8'), set(re.findall(r'\bbi-[\w-]+', text))
    rules = {name: code for name, code in re.findall(r'\.(bi-[\w-]+)::before\{content:"\\(\w+)"\}', css) if name in used}
    codes = {int(code, 16) for code in [*rules.values(), *re.findall(r'content: "\\(f\w{3})"', text)]}
    font, options = TTFont(lib / 'fonts/bootstrap-icons.woff'), subset.Options(flavor='woff', notdef_outline=True)
    cut = subset.Subsetter(options)
    cut.populate(unicodes=codes)
    cut.subset(font)
    shutil.rmtree(lib / 'fonts')
    font.save(lib / 'icons.woff')
    common = re.sub(r'@font-face\{[^}]*\}|\.bi-[\w-]+::before\{content:"\\\w+"\}', '', css)
    face = '@font-face{font-display:block;font-family:bootstrap-icons;src:url(icons.woff) format("woff")}'
    (lib / 'bootstrap-icons.min.css').write_text(common + face + ''.join(f'.{name}::before{{content:"\\{code}"}}' for name, code in rules.items()), 'utf-8')


def with_contents(text):
    "A page with its table of contents once more, folded at its top, for screens that have no room beside the text."
    found = re.search(r'<nav id="TOC".*?<h2 id="toc-title">(.*?)</h2>(<ul>.*?</ul>)</nav>', text, re.S)
    if not found:
        return text
    entries = re.sub(r' (id|class|data-scroll-target)="[^"]*"', '', found[2])
    contents = f'<details class="contents-here"><summary>{found[1]}</summary><nav aria-label="Contents">{entries}</nav></details>'
    return text.replace('</header><div class="open-in">', f'</header>{contents}<div class="open-in">', 1)


def bring_home():
    "Put KaTeX beside the pages, and let nothing be loaded from elsewhere; the themes do without their web fonts."
    lib = DOCS / 'site_libs/katex'
    with tarfile.open(fileobj=io.BytesIO(archive('katex'))) as tar:
        for member in tar:
            name = member.name.removeprefix('package/')
            if re.fullmatch(r'dist/(katex\.min\.(css|js)|contrib/auto-render\.min\.js|fonts/.*\.woff2)|LICENSE', name):
                target = lib / name.removeprefix('dist/')
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(tar.extractfile(member).read())
    for page in DOCS.glob('*.html'):
        text = re.sub(r'https://cdn\.jsdelivr\.net/npm/katex@[\d.]+/dist', 'site_libs/katex', page.read_text('utf-8'))
        text = text.replace(' role="img"></i>', ' aria-hidden="true"></i>')    # the link says what it is
        text = text.replace('</head>', f'<link rel="alternate" type="application/rss+xml" title="{SETTINGS["title"]}" href="posts.xml"></head>', 1)
        if page.stem == '404':    # it is shown at any address, so its own links begin at the site's
            text = text.replace('<head>', f'<head>{BASE}', 1)
        page.write_text(with_contents(text), 'utf-8')
    for theme in DOCS.glob('site_libs/themes/*.css'):
        theme.write_text(re.sub(r'@import ?url\([^)]*\);', '', theme.read_text('utf-8')), 'utf-8')


def keep(data, kind):
    "Store bytes as a file named by their content; its path seen from the pages."
    path = PROC / f'media/{hashlib.sha256(data).hexdigest()[:16]}.{kind}'
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return f'media/{path.name}'


def shown_size(data):
    "How large a PNG is shown, in CSS pixels: at 90 dots an inch, whatever it has."
    width, height = struct.unpack('>II', data[16:24])
    at = data.find(b'pHYs')
    dpi = struct.unpack('>I', data[at + 4:at + 8])[0] * .0254 if at > 0 else 90
    return round(width * 90 / dpi), round(height * 90 / dpi)


def picture(data, alt, caption=''):
    "HTML of a figure that loads when it comes near, opens large, and is dark on a dark page."
    (width, height), light, dark = shown_size(data), keep(made_once(slim, data), 'png'), keep(made_once(darken, data), 'png')
    images = ''.join(f'<img class="on-{kind}" src="{src}" alt="{html.escape(alt)}" width="{width}" height="{height}" loading="lazy">' for kind, src in (('light', light), ('dark', dark)))
    words = f'<figcaption>{html.escape(caption)}</figcaption>' if caption else ''
    return f'<figure class="shown"><a class="figure-card" href="{light}">{images}</a>{words}</figure>'


def player(data, name):
    "HTML of a player with a name and a length, that fetches its sound when it is asked to play."
    seconds = sf.info(io.BytesIO(data)).duration
    label = f'{name}, {seconds:.1f} s'
    return f'<figure class="sound"><figcaption>{html.escape(label)}</figcaption><audio controls preload="none" src="{keep(data, "wav")}" aria-label="{html.escape(label)}"></audio></figure>'


def option(cell, name):
    "What a cell says after `#| NAME: `, as YAML; None where it doesn't."
    found = re.search(rf'^#\| {name}: (.*)$', cell.source, re.M)
    return found and yaml.safe_load(found[1])


def shown_outputs(cell):
    "The outputs with pictures and sounds as files. A sound's name is in the cell's list, or the line printed before it."
    names, outputs, sounds = option(cell, 'sounds') or [], [], 0
    for o in cell.outputs:
        data = o.get('data', {})
        if 'image/png' in data:
            data = {'text/html': picture(base64.b64decode(data['image/png']), option(cell, 'fig-alt') or '', option(cell, 'fig-cap') or '')}
        elif found := re.search(r'data:audio/[\w-]+;base64,([^"]+)', data.get('text/html', '')):
            printed = outputs[-1].get('text', '') if outputs else ''
            name = names[sounds] if sounds < len(names) else f'Sound {sounds + 1}'
            if not names and printed.count('\n') == 1 and len(printed) < 80:
                name = outputs.pop().text.strip()
            sounds += 1
            data = {'text/html': player(base64.b64decode(found[1]), name)}
        elif data:
            data = {k: v for k, v in data.items() if k in ('text/markdown', 'text/html', 'text/plain')}
        outputs.append(nbformat.v4.new_output('display_data', data=data) if data else o)
    return outputs


FIGURE = re.compile(r'!\[([^]]*)\]\((?:data:image/png;base64,([^)]+)|(?:\.\./)?images/([\w.]+\.png))\)(?:\n\n\*([^*\n]+)\*$)?', re.M)    # with a caption below it, perhaps


def with_figures(text):
    "Markdown with its PNGs as figures."
    def figure(m):
        data = base64.b64decode(m[2]) if m[2] else (ROOT / 'images' / m[3]).read_bytes()
        return f'```{{=html}}\n{picture(data, m[1], m[4] or "")}\n```'
    return FIGURE.sub(figure, text)


def imports(node):
    "Whether a statement does nothing but import."
    is_condition = isinstance(node, ast.If) and all(map(imports, node.body))
    return isinstance(node, (ast.Import, ast.ImportFrom)) or is_condition


def checks(node):
    "Whether a statement does nothing but check."
    if isinstance(node, (ast.For, ast.With)):
        return all(map(checks, node.body))
    is_call = isinstance(node, ast.Expr) and re.match(r'np\.testing\.|refused\(', ast.unparse(node))
    return isinstance(node, (ast.Assert, ast.Try)) or bool(is_call)


def bound(body):
    "The names that statements give to something."
    nodes = [node for statement in body for node in ast.walk(statement)]
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {n.name for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef))}


def used_later(cells):
    "For each cell the names that later ones use before they give them anew."
    later, names = [], set()
    for cell in reversed(cells):
        later.append(set(names))
        try:
            body = ast.parse(cell.source).body if cell.cell_type == 'code' else []
        except SyntaxError:    # a cell for IPython
            continue
        for statement in reversed(body):
            names -= bound([statement]) if isinstance(statement, ast.Assign) else set()
            names |= {n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
            names |= bound([statement]) if isinstance(statement, ast.AugAssign) else set()
    return later[::-1]


def folded(cell, later=frozenset()):
    "Quarto's options for a cell that is plumbing: what imports, what draws, and what only checks and gives nothing to `later` cells."
    if 'code-fold' in cell.source:
        return []
    if any('image/png' in o.get('data', {}) for o in cell.outputs):
        return ['#| code-fold: true', '#| code-summary: "How the figure is drawn"']
    try:
        body = ast.parse(cell.source).body
    except SyntaxError:    # a cell for IPython
        return []
    only_checks = not cell.outputs and any(map(checks, body)) and not (bound(body) & later)
    for summary, plumbing in (('What is imported', all(map(imports, body))), ('Checks', all(map(checks, body)) or only_checks)):
        if body and plumbing:
            return ['#| code-fold: true', f'#| code-summary: "{summary}"']
    return []


def page_cells(nb, here=None):
    "The cells of a notebook as the site shows them."
    for cell, later in zip(nb.cells, used_later(nb.cells)):
        if cell.cell_type == 'raw' or cell.source.startswith('[![Open in Colab]'):
            continue
        if cell.cell_type == 'markdown':
            text = re.sub(r'^<!--.*?-->\n?', '', cell.source, flags=re.M | re.S)
            yield nbformat.v4.new_markdown_cell(with_figures(with_links(text, here).replace(f'{SITE}/', '')))
        elif not re.search(r'^#\| *(hide|default_exp)\b', cell.source, re.M):
            lines = cell.source.splitlines()
            options = [l for l in lines if re.match(r'#\| *[\w-]+: ', l) and not re.match(r'#\| (fig-alt|fig-cap|sounds):', l)]
            code = '\n'.join(l for l in lines if not l.startswith('#|') and l != '# measured').strip('\n')
            new = nbformat.v4.new_code_cell('\n'.join([*options, *folded(cell, later), code]))
            new.outputs = shown_outputs(cell)
            yield new


def split_title(cell):
    "Title, summary and the rest of a notebook's first cell."
    title, summary, rest = re.match(r'# (.+?)\n+> (.+?)(?:\n|\Z)(.*)', cell.source, re.S).groups()
    return title.strip(), summary.strip(), rest.strip()


def open_in(path):
    "HTML of the links that take a reader from the page to its notebook."
    colab, binder = addresses(path)
    source = f'{REPO}/blob/{SETTINGS["branch"]}/{path}'
    links = ('play-btn', 'Open in Colab', colab), ('cloud', 'Open in Binder', binder), ('github', 'Source', source)
    return '<div class="open-in">' + ''.join(f'<a href="{html.escape(url)}"><i class="bi bi-{icon}" aria-hidden="true"></i> {text}</a>' for icon, text, url in links) + '</div>'


def first_image(nb):
    "The first figure as the page's preview, when there is one."
    for cell in nb.cells:
        for o in cell.get('outputs', []):
            if 'image/png' in o.get('data', {}):
                return keep(base64.b64decode(o['data']['image/png']), 'png')


@contextmanager
def own_docstrings(symbol):
    "A context in which a symbol's docstrings are as their author wrote them: the page has a table of the parameters."
    members = vars(symbol).values() if isinstance(symbol, type) else ()
    functions = [symbol, *filter(inspect.isfunction, members)]
    complete = [function.__doc__ for function in functions]
    for function, text in zip(functions, complete):
        function.__doc__ = without_parameters(text or '') or None
    try:
        yield
    finally:
        for function, text in zip(functions, complete):
            function.__doc__ = text


def reference(module):
    "Markdown of all that a module exports: signature, what goes in, what comes out."
    mod = importlib.import_module(f'soundtag.{module}')
    parts = ['## Reference', f'What `soundtag.{module}` exports.']
    for symbol in api.own(mod):
        back = re.search(r'^ *\)(?: -> .*)?:? *# (.*)$', inspect.getsource(inspect.unwrap(symbol)), re.M)
        with own_docstrings(symbol):
            entry = api.entry(symbol, 3)
        parts.append(entry + (f'\n\nGives: {back[1]}' if back and not isinstance(symbol, type) else ''))
    return '\n\n'.join(parts)


def as_one(cells):
    "A page of text and tables as one cell, so that what is folded may begin in one and end in another."
    parts = [c.source if c.cell_type == 'markdown' else o.data['text/markdown'] for c in cells for o in c.get('outputs', [c])]
    return [nbformat.v4.new_markdown_cell('\n\n'.join(parts))]


def stage(path, name, front, extra=''):
    "A notebook's copy in _proc, with its front matter."
    nb = nbformat.read(path, as_version=4)
    if name == 'index':
        nb.cells = as_one(nb.cells)
    first = next(c for c in nb.cells if c.cell_type == 'markdown')
    title, summary, rest = split_title(first)
    if path in CHAPTERS:
        title = f'{number_of(path)} {title}'
    first.source = re.sub(r'^\[!\[.*$', '', rest, flags=re.M)
    front = {'title': title, 'description': summary, 'image': first_image(nb) or 'images/results_curves.png', **front}
    cells = [nbformat.v4.new_raw_cell(f'---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---'),
             nbformat.v4.new_markdown_cell(f'```{{=html}}\n{open_in(path.relative_to(ROOT).as_posix())}\n```')]
    cells += [c for c in page_cells(nb, path.stem) if c.source.strip() or c.get('outputs')]
    if extra:
        cells.append(nbformat.v4.new_markdown_cell(with_links(extra, path.stem).replace(f'{SITE}/', '')))
    for i, cell in enumerate(cells):
        cell.id = f'cell-{i}'
        if cell.cell_type == 'markdown':
            cell.source = re.sub(r'\]\((?:\.\./)?(?:nbs/|_notebooks/)', '](', cell.source).replace(f']({POST.name})', '](predicting-from-sound.ipynb)').replace('](../images/', '](images/')
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=nb.metadata), PROC / f'{name}.ipynb')
    return title


GROUPS = {'Sound': '00', 'Data sets': '01d', 'Features': '03', 'Learning': '06', 'Results': '08', 'Answers': '08b', 'Rooms and distance': '10',
          'The command': '10b', 'Laboratory': '20'}    # Of chapters in the side bar: from which number on


def sidebar(titles):
    "The chapters in their groups, as the side bar has them."
    sections = [{'section': name, 'contents': []} for name in GROUPS]
    for path in CHAPTERS:
        group = max(i for i, first in enumerate(GROUPS.values()) if first <= number_of(path))
        sections[group]['contents'].append({'text': titles[path.stem], 'href': path.name})
    return sections


def configuration(titles):
    """`_quarto.yml` of the site: what nbs has, the pages, and what settings.ini says.

    `giscus_repo_id` and `giscus_category_id` in settings.ini, as giscus.app gives them, turn comments on.
    """
    config = yaml.safe_load((ROOT / 'nbs/_quarto.yml').read_text('utf-8'))
    config['project']['resources'] = ['media', 'images', 'listen', 'enlarge.js', 'offline.js']
    config['format']['html'] |= {'css': 'style.css', 'include-after-body': [{'text': '<script src="enlarge.js" defer></script>'}]}
    web = config['website']
    web |= {'title': SETTINGS['title'], 'description': SETTINGS['description'], 'site-url': SITE, 'repo-url': REPO,
            'image': 'images/results_curves.png', 'favicon': 'images/favicon.svg'}
    web['navbar']['left'] = [{'text': TITLE, 'href': 'predicting-from-sound.ipynb'}, {'text': 'Listen', 'href': 'listen.qmd'}, {'text': 'Posts', 'href': 'posts.qmd'}]
    web['navbar']['tools'] = [{'icon': 'github', 'href': REPO, 'aria-label': 'Source on GitHub'}, {'icon': 'rss', 'href': 'posts.xml', 'aria-label': 'Feed'}]
    web['sidebar']['contents'] = [{'text': 'soundtag', 'href': 'index.ipynb'}, {'text': TITLE, 'href': 'predicting-from-sound.ipynb'}, {'text': 'A page that listens', 'href': 'listen.qmd'}, *sidebar(titles)]
    if 'giscus_repo_id' in SETTINGS:
        web['comments'] = {'giscus': {'repo': f'{SETTINGS["user"]}/{SETTINGS["repo"]}', 'repo-id': SETTINGS['giscus_repo_id'], 'category': 'Announcements', 'category-id': SETTINGS['giscus_category_id']}}
    return config


BASE = '<script>document.write(`<base href="${location.pathname.startsWith("%s/") ? "%s" : ""}/">`)</script>' % ((SETTINGS['doc_baseurl'].rstrip('/'),) * 2)
LOST = """---
title: There is no such page
description: Chapters get other names and numbers from time to time.
comments: false
toc: false
page-navigation: false
---

Perhaps the address is mistyped, or the chapter it belongs to has another name now. The menus of this page have all chapters and a search. Or begin with

- [the front page](index.ipynb), which says what soundtag is,
- [the post](predicting-from-sound.ipynb), *{title}*,
- [the page that listens](listen.qmd).
"""

LISTING = {'title': 'Posts', 'description': 'What has been written about soundtag.', 'image': 'images/results_curves.png', 'comments': False,
           'listing': {'contents': ['predicting-from-sound.ipynb'], 'sort': 'date desc', 'feed': True, 'sort-ui': False, 'filter-ui': False,
                       'fields': ['image', 'date', 'title', 'categories', 'author', 'description']}}


def build(data=None):
    "The whole site, from the notebooks to _docs; the page that listens takes its examples from the recordings in `data`."
    shutil.rmtree(PROC, ignore_errors=True)
    shutil.copytree(ROOT / 'images', PROC / 'images')
    for name in ('style.css', 'enlarge.js'):
        shutil.copy(ROOT / '_notebooks/site' / name, PROC)
    shutil.copy(ROOT / '_notebooks/site/favicon.svg', PROC / 'images')
    titles = {path.stem: stage(path, path.stem, {'comments': False}, reference(module_of(path))) for path in CHAPTERS}
    facts = yaml.safe_load(nbformat.read(POST, as_version=4).cells[0].source.strip('-\n'))
    stage(POST, 'predicting-from-sound', {'date': str(facts['date']), 'author': facts['author'], 'categories': facts['categories'], 'image': facts['image'], 'image-alt': 'Learning curves: on the clips learned from they rise to the top, on the others they stay far below'})
    stage(ROOT / 'nbs/index.ipynb', 'index', {'comments': False, 'page-navigation': False})
    listening.stage(PROC, archive('onnxruntime-web'), ARCHIVES['onnxruntime-web'][0], data and Path(data))
    (PROC / 'posts.qmd').write_text(f'---\n{yaml.safe_dump(LISTING, sort_keys=False)}---\n', 'utf-8')
    (PROC / '404.qmd').write_text(LOST.format(title=TITLE), 'utf-8')
    (PROC / '_quarto.yml').write_text(yaml.safe_dump(configuration(titles), sort_keys=False, allow_unicode=True), 'utf-8')
    site = render(PROC, quiet=True)
    bring_home()
    keep_used_icons()
    listening.keep_offline(DOCS)
    warnings = [w for w in site.warnings if not w.endswith('posts.xml')]    # the feed, which is written last
    print(f'{len(site.pages)} pages in {DOCS.name}', *warnings, sep='\n')
    return int(bool(warnings))
