"The site as its readers meet it: built once, served on localhost, opened in headless Chromium."

import io
import re
import sys
import xml.etree.ElementTree as ET
from functools import cache
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import nbformat
import numpy as np
import pytest
from matplotlib import image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / '_notebooks'))
weave = pytest.importorskip('weave')
website = pytest.importorskip('website')

CHAPTERS = [p.stem for p in weave.CHAPTERS]
PAGES = ['404', 'index', 'predicting-from-sound', 'posts', 'listen', *CHAPTERS]
MAIN = ['index', 'predicting-from-sound', '04_mfcc']


@pytest.fixture(scope='module')
def browser(chromium):
    return chromium()


def open_tab(context, server):
    "A tab that notes whatever goes wrong in it."
    tab = context.new_page()
    tab.wrong = []
    tab.on('console', lambda m: m.type == 'error' and tab.wrong.append(f'console: {m.text}'))
    tab.on('pageerror', lambda e: tab.wrong.append(f'script: {e}'))
    tab.on('requestfailed', lambda r: tab.wrong.append(f'failed: {r.url}'))
    tab.on(
        'request',
        lambda r: r.url.startswith((server, 'data:')) or tab.wrong.append(f'from outside: {r.url}'),
    )
    tab.on('response', lambda r: r.status >= 400 and tab.wrong.append(f'{r.status}: {r.url}'))
    return tab


PAINT = '''window.paint = {lcp: 0, shift: 0};
new PerformanceObserver(l => l.getEntries().forEach(e => paint.lcp = e.startTime)).observe({type: "largest-contentful-paint", buffered: true});
new PerformanceObserver(l => l.getEntries().forEach(e => { if (!e.hadRecentInput) paint.shift += e.value })).observe({type: "layout-shift", buffered: true});'''


@pytest.fixture(scope='module')
def visit(browser, server):
    "Opens page after page in one tab, whose storage is emptied before each, and whose cache is used if `cached`: a new browser for each would take three times as long."
    context = browser.new_context()
    tab = open_tab(context, server)
    tab.add_init_script(PAINT)
    devtools = context.new_cdp_session(tab)
    devtools.send('Network.enable')

    def go(page, width=1280, scheme='light', cached=True):
        tab.goto('about:blank')  # what was on its way to the page before ends here
        devtools.send('Storage.clearDataForOrigin', {'origin': server, 'storageTypes': 'all'})
        devtools.send('Network.setCacheDisabled', {'cacheDisabled': not cached})
        tab.wrong.clear()
        tab.set_viewport_size({'width': width, 'height': 800})
        tab.emulate_media(color_scheme=scheme)
        tab.goto(f'{server}/{page}.html', wait_until='load')
        return tab

    yield go
    context.close()


class Reader(HTMLParser):
    "Links, anchors, and what the head says."

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.meta, self.title = [], set(), {}, ''
        self.in_title = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        self.ids |= {a[k] for k in ('id', 'name') if a.get(k)}
        self.links += [a[k] for k in ('href', 'src') if a.get(k)]
        if tag == 'meta':
            self.meta[a.get('name') or a.get('property')] = a.get('content')
        self.in_title = tag == 'title'

    def handle_data(self, data):
        if self.in_title:
            self.title += data
            self.in_title = False


@cache
def read(path):
    return Reader(path.read_text('utf-8'))


def test_every_page_is_there(docs):
    assert sorted(p.stem for p in docs.glob('*.html')) == sorted(PAGES)


@pytest.mark.parametrize('page', PAGES)
def test_internal_links_and_anchors_resolve(docs, page):
    lost = []
    for link in read(docs / f'{page}.html').links:
        url = urlsplit(urljoin(f'http://here/{page}.html', link))
        if url.netloc != 'here' or url.scheme != 'http':
            continue
        path = docs / (unquote(url.path).lstrip('/') or 'index.html')
        path = path / 'index.html' if path.is_dir() else path
        if (
            not path.is_file()
            or url.fragment
            and '=' not in url.fragment
            and path.suffix == '.html'
            and unquote(url.fragment) not in read(path).ids
        ):
            lost.append(link)
    assert not lost


@pytest.mark.parametrize('page', PAGES)
def test_title_description_and_preview(docs, page):
    head = read(docs / f'{page}.html')
    assert head.title.strip() and head.meta.get('description')
    image = head.meta['og:image']
    assert (
        image.startswith(weave.SITE)
        and (docs / image.removeprefix(weave.SITE).lstrip('/')).is_file()
    )


@pytest.mark.parametrize('path', [*weave.CHAPTERS, weave.POST], ids=lambda p: p.stem)
def test_links_to_source_and_colab(docs, path):
    page = 'predicting-from-sound' if path == weave.POST else path.stem
    links, name = read(docs / f'{page}.html').links, path.relative_to(ROOT).as_posix()
    for start in (
        'https://colab.research.google.com/',
        'https://mybinder.org/',
        'https://github.com/',
    ):
        assert any(l.startswith(start) and l.endswith(name) for l in links)


def test_previous_and_next_chapter(docs):
    for before, after in zip(CHAPTERS, CHAPTERS[1:]):
        text = (docs / f'{before}.html').read_text('utf-8')
        assert re.search(rf'nav-page-next.*?{after}\.html', text, re.S)
        assert re.search(
            rf'nav-page-previous.*?{before}\.html',
            (docs / f'{after}.html').read_text('utf-8'),
            re.S,
        )


def test_the_side_bar_has_numbers_and_groups(docs):
    text = (docs / 'index.html').read_text('utf-8').split('id="quarto-sidebar"')[1].split('<main')[0]
    names = re.findall(r'"menu-text">([^<]*)<', text)
    for path in weave.CHAPTERS:
        title = re.match('# (.+)', nbformat.read(path, 4).cells[0].source)[1]
        assert f'{weave.number_of(path)} {title}' in unescape('|'.join(names))
    begins = [names.index(group) for group in website.GROUPS]
    assert begins == sorted(begins) and all(b - a > 1 for a, b in zip(begins, begins[1:]))
    assert text.count('sidebar-section depth1') == len(website.GROUPS)
    assert text.count('depth1 show') == 0, 'all are folded but the one a reader is in'
    assert (docs / '04_mfcc.html').read_text('utf-8').count('depth1 show') == 1


@pytest.mark.parametrize(
    'text, wanted',
    [
        ('see chapter 08b.', 'see [chapter 08b]({08b_models}).'),
        ('Chapters 04, 05a and 06 to 07', '[Chapters 04]({04_mfcc}), [05a]({05a_channel}) and [06]({06_model}) to [07]({07_training})'),
        ('(chapter 99), `chapter 04`', '(chapter 99), `chapter 04`'),
        ('[as chapter 04 says](x.html)', '[as chapter 04 says](x.html)'),
        ('# On chapter 04\n\nchapter 03, 20 times', '# On chapter 04\n\nchapter 03, 20 times'),
    ],
)
def test_a_chapter_that_is_named_is_a_link(text, wanted):
    wanted = re.sub(r'\{(\w+)\}', rf'{weave.SITE}/\1.html', wanted)
    assert weave.with_links(text, here='03_normalization') == wanted


@pytest.mark.parametrize('page', PAGES)
def test_no_chapter_is_named_without_a_link(docs, page):
    main = (docs / f'{page}.html').read_text('utf-8').split('<main', 1)[1].split('</main>')[0]
    prose = re.sub(r'<(a|code|h\d|figcaption)\b.*?</\1>', '', main, flags=re.S)
    mine = page.split('_')[0]
    found = re.findall(r'[Cc]hapters? (\d\d[a-z]?)\b', re.sub('<[^>]*>', '', prose))
    assert not [number for number in found if number != mine]


def test_the_feed_is_announced(docs):
    for page in PAGES:
        head = (docs / f'{page}.html').read_text('utf-8').split('</head>')[0]
        assert re.search('<link rel="alternate" type="application/rss.xml" [^>]*href="posts.xml"', head)


def test_cells_that_only_check_are_folded():
    def cell(source):
        return nbformat.v4.new_code_cell(source)

    check = 'y = f(2)\nassert y == 4'
    cells = [cell('def f(x):\n    return x * x'), cell(check), cell('print(f(3))')]
    later = website.used_later(cells)
    assert later[0] >= {'f'} and 'y' not in later[1]
    assert [bool(website.folded(c, l)) for c, l in zip(cells, later)] == [False, True, False]
    cells[2].source += '\nprint(y)'  # so y is no mere means to a check
    assert not website.folded(cells[1], website.used_later(cells)[1])
    cells[2].source = 'y = 3\nprint(y)'
    assert website.folded(cells[1], website.used_later(cells)[1])
    cells[1].outputs = [nbformat.v4.new_output('stream', text='4')]
    assert not website.folded(cells[1], website.used_later(cells)[1]), 'it shows something'


def test_the_package_reference_stands_in_the_chapters(docs):
    import soundtag.normalization as module

    ids, text = (
        read(docs / '03_normalization.html').ids,
        (docs / '03_normalization.html').read_text('utf-8'),
    )
    assert 'reference' in ids and all(
        name in ids or f'def {name}' in text for name in module.__all__
    )
    assert 'Gives: Mean, deviation, float32' in text.split('id="reference"', 1)[1], (
        'what comes back is told'
    )
    assert 'Parameters:' in module.trim_silence.__doc__, 'help() is as it was'


def test_the_feed_is_valid(docs):
    channel = ET.parse(docs / 'posts.xml').getroot().find('channel')
    assert all(channel.findtext(tag) for tag in ('title', 'link', 'description'))
    items = channel.findall('item')
    assert [i.findtext('title') for i in items] == [weave.TITLE]
    for item in items:
        assert all(item.findtext(tag) for tag in ('link', 'guid', 'pubDate', 'description'))
        assert item.findtext('link') == f'{weave.SITE}/predicting-from-sound.html'


@pytest.mark.parametrize('page', PAGES)
def test_a_page_opens_without_fault(visit, page):
    "On a phone, for the first time: soon, and whole. Then the window is made wide."
    tab = visit(page, width=390, cached=False)
    tab.wait_for_load_state('networkidle')
    tab.add_style_tag(
        content='#quarto-content { overflow-x: visible !important }'
    )  # or what is too wide would be cut off unseen
    assert tab.evaluate('document.documentElement.scrollWidth') <= 390, (
        'something is wider than the screen'
    )
    size = tab.evaluate(
        'performance.getEntries().filter(e => e.transferSize).reduce((sum, e) => sum + e.transferSize, 0)'
    )
    paint = tab.evaluate('paint')
    print(
        f'{page}: {size / 1e3:.0f} kB, largest paint {paint["lcp"]:.0f} ms, layout shift {paint["shift"]:.3f}'
    )
    assert 50e3 < size < 1.5e6  # of the page that listens: before its worker fetches the model
    assert 0 < paint['lcp'] < 2500 and paint['shift'] < 0.1
    tab.set_viewport_size({'width': 1280, 'height': 800})
    tab.evaluate('document.querySelectorAll("details").forEach(d => d.open = true)')
    tab.evaluate('document.querySelectorAll("img").forEach(i => i.loading = "eager")')
    tab.wait_for_function('[...document.images].every(i => i.complete)')
    bad = tab.evaluate(
        '[...document.images].filter(i => !i.naturalWidth || !i.alt.trim()).map(i => i.outerHTML.slice(0, 200))'
    )
    assert not bad
    formulas = tab.evaluate(
        '[...document.querySelectorAll("main .math")].map(m => [!!m.querySelector(".katex-html"), !!m.querySelector(".katex-error"), m.textContent])'
    )
    assert not [text for done, error, text in formulas if not done or error]
    if page in ('predicting-from-sound', '04_mfcc'):
        assert len(formulas) > 10
    assert not re.search(
        r'\$\$|\\frac|\\sum',
        tab.evaluate('''(() => { const m = document.querySelector("main").cloneNode(true);
        m.querySelectorAll(".katex, pre, code").forEach(x => x.remove()); return m.textContent })()'''),
    )
    assert not tab.wrong


def test_sounds_play(visit):
    tab = visit('predicting-from-sound')
    assert tab.locator('audio').count() > 5
    heard = tab.evaluate('''async () => { const out = [];
        for (const a of document.querySelectorAll("audio")) {
            a.muted = true; await a.play(); await new Promise(done => setTimeout(done, 150));
            out.push([a.currentTime, a.duration, a.getAttribute("aria-label")]); a.pause(); }
        return out }''')
    assert all(time > 0 and duration > 0.1 and label for time, duration, label in heard)
    assert not tab.wrong


@pytest.mark.parametrize('width', [1280, 390])
def test_no_code_of_the_post_is_cut(visit, width):
    tab = visit('predicting-from-sound', width=width)
    tab.evaluate('document.querySelectorAll("details").forEach(d => d.open = true)')
    blocks = tab.evaluate("""[...document.querySelectorAll("main pre")].map(e => [e.innerText, e.scrollWidth - e.clientWidth,
        e.closest(".cell-output") ? 0 : e.clientHeight / (e.innerText.trimEnd().split("\\n").length + 1)])""")
    assert len(blocks) > 40
    assert not [(text[:60], cut) for text, cut, _ in blocks if cut > 0]
    assert max(len(line) for text, *_ in blocks for line in text.splitlines()) <= 76
    if width == 1280:
        assert max(height for *_, height in blocks) < 30, 'a line is broken in two'


def test_figures_of_the_post_have_captions_and_are_sharp(visit):
    tab = visit('predicting-from-sound')
    tab.evaluate('document.querySelectorAll("details").forEach(d => d.open = true)')
    tab.evaluate('document.querySelectorAll("img").forEach(i => i.loading = "eager")')
    tab.wait_for_function('[...document.images].every(i => i.complete)')
    figures = tab.evaluate("""[...document.querySelectorAll("figure.shown")].map(f => [f.querySelector("figcaption")?.innerText ?? "",
        ...["alt", "naturalWidth", "width"].map(n => f.querySelector("img.on-light")[n])])""")
    assert len(figures) >= 15 and len({caption for caption, *_ in figures}) == len(figures)
    for caption, alt, pixels, width in figures:
        assert len(caption) > 30 and len(alt) > 60 and caption != alt
        assert pixels >= 1.9 * width, f'{caption}: {pixels} pixels on {width}'


def test_players_have_a_name_and_a_length(visit):
    names = visit('predicting-from-sound').locator('figure.sound figcaption').all_inner_texts()
    assert len(names) >= 17
    assert not [n for n in names if not re.search(r'^(?!Sound \d).{6,}, \d+\.\d s$', n)]


def test_a_dark_page_has_dark_figures(visit):
    tab = visit('predicting-from-sound', scheme='dark')
    tab.locator('a.figure-card').first.scroll_into_view_if_needed()
    shown = 'i => [...document.images].filter(i => i.closest(".figure-card") && i.offsetParent).map(i => i.className)'
    assert set(tab.evaluate(shown)) == {'on-dark'}
    tab.locator('a.figure-card').first.click()
    tab.wait_for_function('document.querySelector("dialog img").complete')
    large = tab.locator('dialog.enlarged img')
    assert large.get_attribute('src') == tab.locator('img.on-dark').first.evaluate('i => i.src')
    page = image.imread(io.BytesIO(large.screenshot()))[..., :3]
    assert page.mean() < 0.35


def test_a_figure_is_made_dark_and_its_pictures_are_left():
    import matplotlib.pyplot as plt
    from figures import GROUND, darken

    fig, (left, right) = plt.subplots(1, 2, figsize=(6, 2), dpi=100)
    left.imshow(np.random.default_rng(0).random((40, 40)), cmap='magma', aspect='auto')
    right.plot([0, 1], [0.5, 0.5], color='#0072B2', lw=9)
    fig.savefig(buffer := io.BytesIO(), format='png')
    plt.close(fig)
    light, dark = (image.imread(io.BytesIO(data))[..., :3] for data in (buffer.getvalue(), darken(buffer.getvalue())))
    assert light.shape == dark.shape and np.abs(dark[2, 2] - GROUND).max() < 0.02
    assert np.abs(light[90:110, 120:220] - dark[90:110, 120:220]).max() < 0.06, 'of 256 colours'
    (y, x), (r, g, b) = (100, 430), dark[100, 430]
    assert light[y, x, 2] > light[y, x, 0] and b > g > r and dark[y, x].mean() > light[y, x].mean()
    assert (light.min(-1) < 0.2).sum() > 50, 'there is black text'
    text = (light.max(-1) < 0.1) & (np.arange(light.shape[1]) > 330)
    assert dark[text].mean() > 0.9


def test_search_finds_mfcc(visit):
    tab = visit('index')
    tab.locator('.smalldocs-search input:visible').first.fill('MFCC')
    tab.wait_for_selector('.search-result')
    assert '04_mfcc.html' in ' '.join(
        a.get_attribute('href') for a in tab.locator('.search-result').all()
    )
    assert not tab.wrong


@pytest.mark.parametrize('page', ['predicting-from-sound', '04_mfcc'])
def test_table_of_contents_follows_the_scroll(visit, page):
    tab = visit(page)
    anchors = tab.evaluate(
        '[...document.querySelectorAll("#TOC a.nav-link")].map(a => a.getAttribute("href").slice(1))'
    )
    assert len(anchors) > 5
    for anchor in (anchors[2], anchors[len(anchors) // 2]):
        tab.evaluate(
            'id => document.getElementById(id).scrollIntoView({behavior: "instant"})', anchor
        )
        tab.wait_for_function(
            'id => document.querySelector("#TOC a.active").getAttribute("href") === "#" + id',
            arg=anchor,
            timeout=3000,
        )


def test_a_phone_has_the_contents_at_the_top(visit):
    tab = visit('04_mfcc')
    entries = tab.locator('#TOC a').all_inner_texts()
    assert not tab.locator('.contents-here').is_visible()
    tab.set_viewport_size({'width': 390, 'height': 844})
    assert not tab.locator('#TOC').is_visible()
    tab.locator('.contents-here summary').click()
    assert tab.locator('.contents-here a').all_inner_texts() == entries
    tab.locator('.contents-here a').nth(3).click()
    tab.wait_for_function('scrollY > 500')
    assert not tab.wrong


def test_a_page_that_is_lost_leads_back(browser, docs, server):
    context = browser.new_context()
    tab, text = context.new_page(), (docs / '404.html').read_text('utf-8')
    lost = f'{server}/some/where/else.html'
    context.route(lost, lambda route: route.fulfill(status=404, body=text, content_type='text/html'))
    tab.goto(lost)
    assert 'no such page' in tab.title()
    assert tab.evaluate('document.querySelector("main a").href') == f'{server}/index.html'
    styles = '[...document.styleSheets].map(s => [s.href, s.cssRules.length])'
    assert len(tab.evaluate(styles)) >= 3
    assert all(href.startswith(f'{server}/s') and n for href, n in tab.evaluate(styles))
    context.close()
    assert weave.SETTINGS['doc_baseurl'] in text, 'at its own address all begins there'


@pytest.mark.parametrize('page, width', [('listen', 1280), ('04_mfcc', 1800)])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_no_white_strip_beside_the_side_bar(visit, page, width, scheme):
    tab = visit(page, width=width, scheme=scheme)
    shot = image.imread(io.BytesIO(tab.screenshot()))[..., :3]
    bar = tab.evaluate('document.querySelector("#quarto-sidebar").getBoundingClientRect().right')
    np.testing.assert_array_equal(shot[750, 1], shot[750, round(bar) - 10])
    assert not (shot[750, 1] == shot[750, round(bar) + 15]).all(), 'it ends where the text begins'


def test_a_figure_opens_large_by_keyboard(visit):
    tab = visit('predicting-from-sound')
    figure = tab.locator('a.figure-card').first
    figure.focus()
    tab.keyboard.press('Enter')
    assert tab.locator('dialog.enlarged[open] img').get_attribute('alt')
    tab.keyboard.press('Escape')
    tab.wait_for_function('!document.querySelector("dialog.enlarged")')
    assert tab.evaluate('document.activeElement.className') == 'figure-card'


def test_light_and_dark(visit):
    colours = {
        scheme: visit('index', scheme=scheme).evaluate(
            'getComputedStyle(document.body).backgroundColor'
        )
        for scheme in ('light', 'dark')
    }
    assert colours['light'] == 'rgb(255, 255, 255)' and colours['dark'] != colours['light']


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('page', MAIN)
def test_nothing_bars_readers_with_disabilities(visit, page, scheme):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(visit(page, scheme=scheme)).response['violations']
    assert not [
        (v['id'], [n['html'][:150] for n in v['nodes'][:3]])
        for v in found
        if v['impact'] in ('serious', 'critical')
    ]


def test_comments_come_when_they_are_configured(monkeypatch):
    assert 'comments' not in website.configuration(dict.fromkeys(CHAPTERS, ''))['website']
    monkeypatch.setitem(weave.SETTINGS, 'giscus_repo_id', 'R_1')
    monkeypatch.setitem(weave.SETTINGS, 'giscus_category_id', 'DIC_1')
    try:
        assert website.configuration(dict.fromkeys(CHAPTERS, ''))['website']['comments']['giscus']['repo-id'] == 'R_1'
    finally:
        monkeypatch.undo()


@pytest.mark.parametrize('name', website.ARCHIVES)
def test_a_changed_archive_is_refused(tmp_path, name):
    (tmp_path / f'{name}-{website.ARCHIVES[name][0]}.tgz').write_bytes(b'something else')
    with pytest.raises(SystemExit, match='not the file it was'):
        website.archive(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_only_the_page_that_listens_loads_what_listening_takes(docs):
    for page in set(PAGES) - {'listen'}:
        assert not [l for l in read(docs / f'{page}.html').links if l.startswith('listen/')]
