"The page that listens, in headless Chromium: it says what Python says, draws it, and sends nothing anywhere."

import base64
import csv
import io
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from soundtag.audio import wav_bytes
from soundtag.answers import EVENT_COLUMNS
from soundtag.miniset import mini_clip
from soundtag.export import metadata_json
from soundtag.tagging import Calibration, Tagger, load_tagger

CLOSE = 1e-3  # largest difference of a probability
NOTE = '''window.heard = {answers: [], timelines: []};
addEventListener("change", () => { heard.answers = []; heard.timelines = []; }, true);      // what comes before a choice is of the file before it
addEventListener("DOMContentLoaded", () => { const view = document.getElementById("listen");
  view.addEventListener("answer", e => heard.answers.push({...e.detail, at: performance.now()}));
  view.addEventListener("timeline", e => heard.timelines.push(e.detail)); });'''
DROP = '''([name, data]) => { const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), files = new DataTransfer();
  files.items.add(new File([bytes], name)); heard.dropped = performance.now();
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: files, bubbles: true, cancelable: true})); }'''


@pytest.fixture(scope='module')
def model(root):
    "The model that soundtag brings along."
    path = root / 'soundtag/bundled/sounds.onnx'
    if not path.exists():
        pytest.skip('there is no bundled model')
    return path


@pytest.fixture(scope='module')
def tagger(model):
    return load_tagger(model)


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    "Synthetic sounds as files, each for something that can go otherwise than in Python."
    folder, rng = tmp_path_factory.mktemp('clips'), np.random.default_rng(0)
    cello, guitar = mini_clip('Cello', 3, 0, seed=1), mini_clip('Acoustic_guitar', 5, 1, seed=1)
    quiet = np.zeros(2 * 44100)
    sounds = {
        'cello': cello,
        'long': np.concatenate([cello, guitar, guitar, cello, guitar]),
        'stroke': guitar[:2000],
        'two_channels': np.stack([guitar, rng.normal(0, 0.01, len(guitar))]),
        'silent_ends': np.concatenate([quiet, guitar[:30000], quiet, quiet, quiet]),
        'silence': quiet,
    }
    for name, y in sounds.items():
        (folder / f'{name}.wav').write_bytes(wav_bytes(y, sr=44100))
    sf.write(folder / 'flute.flac', mini_clip('Flute', 1, 0, seed=1), 44100)
    return {p.stem: p for p in folder.iterdir()}


@pytest.fixture(scope='module')
def spoken(clips):
    "What the fake microphone plays: a real clip where there are any, which is as plain as a clip can be, or a synthetic one."
    if not os.environ.get('SOUNDTAG_DATA'):
        return clips['cello']
    y, sr = sf.read(min(Path(os.environ['SOUNDTAG_DATA']).glob('ESC-10/audio/*.ogg')))
    path = clips['cello'].with_name('spoken.wav')
    path.write_bytes(wav_bytes(y, sr=sr))
    return path


@pytest.fixture(scope='module')
def browser(chromium, spoken):
    return chromium(
        '--use-fake-device-for-media-stream',
        '--use-fake-ui-for-media-stream',
        f'--use-file-for-fake-audio-capture={spoken}',
        '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
    )


@pytest.fixture(scope='module')
def visit(model, browser, server):
    "Opens the page that listens, and notes what goes wrong and whatever leaves for elsewhere."
    contexts = []

    def go(address=server, width=1280, scheme='light', route=None):
        context = browser.new_context(viewport={'width': width, 'height': 800}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.wrong = []
        tab.on('pageerror', lambda e: tab.wrong.append(f'script: {e}'))
        context.on(
            'request',
            lambda r: (
                r.url.startswith((address, f'blob:{address}'))
                or tab.wrong.append(f'from outside: {r.url}')
            ),
        )
        context.on(
            'request', lambda r: r.method == 'GET' or tab.wrong.append(f'sends: {r.method} {r.url}')
        )
        tab.add_init_script(NOTE)
        if route:
            context.route(*route)
        tab.goto(f'{address}/listen.html')
        if not route:
            tab.wait_for_selector('#listen[data-ready]')
        return tab

    yield go
    for context in contexts:
        context.close()


@pytest.fixture(scope='module')
def one(visit):
    return visit()


@pytest.fixture
def tab(one):
    "One page for all tests that leave it as it was."
    one.evaluate('heard.answers = []; heard.timelines = []')
    yield one
    assert not one.wrong


def hear(tab, path, timeline=True):
    "Give the page a file, and wait for its answer, and for its timeline."
    tab.set_input_files('#file', path)
    tab.wait_for_function('heard.answers.length')
    if timeline:
        tab.wait_for_function('heard.timelines.length')
    return tab.evaluate('heard.answers[0]')


def fault(tab):
    tab.wait_for_selector('#say.fault')
    return tab.inner_text('#say')


def assert_same(answer, tagger, path):
    p = tagger.probabilities(path)
    assert answer['labels'] == tagger.labels
    if p is None:
        assert answer['p'] is None
    else:
        np.testing.assert_allclose(answer['p'], p, atol=CLOSE)
    best = tagger.tag(path)
    assert [label for label, _ in answer['best']] == [label for label, _ in best]
    np.testing.assert_allclose([q for _, q in answer['best']], [q for _, q in best], atol=CLOSE)


def test_it_says_what_python_says(tab, tagger, clips):
    for name in ('cello', 'long', 'stroke', 'two_channels', 'silent_ends', 'silence', 'flute'):
        assert_same(hear(tab, clips[name]), tagger, clips[name])
        shown = [i.get_attribute('data-label') for i in tab.locator('#best li').all()]
        assert shown == [label for label, _ in tagger.tag(clips[name])]
        assert tab.inner_text('#heard') == shown[0].replace('_', ' ')


def test_it_says_what_python_says_of_real_clips(tab, tagger, real_data):
    wavs, oggs = (
        sorted(real_data.glob('FSDKaggle2018/FSDKaggle2018.audio_train/*.wav')),
        sorted(real_data.glob('ESC-10/audio/*.ogg')),
    )
    for path in [*wavs[::60], *oggs[::80]]:
        assert_same(hear(tab, path, timeline=False), tagger, path)


def test_its_timeline_is_pythons(tab, tagger, clips):
    hear(tab, clips['long'])
    p, levels = map(
        np.concatenate, zip(*tagger.predict_windows(clips['long'], seconds=1, hop=0.25))
    )
    moments = tab.evaluate('heard.timelines[0]')
    np.testing.assert_allclose([m['p'] for m in moments], p, atol=CLOSE)
    np.testing.assert_allclose([m['level'] for m in moments], levels, atol=0.01)
    assert tab.inner_text('#parts').startswith('0.0–') and 's: ' in tab.get_attribute(
        '#timeline', 'aria-label'
    ) + tab.inner_text('#parts')
    tab.evaluate('heard.answers = []; heard.timelines = []')
    hear(tab, clips['stroke'])
    (moment,) = tab.evaluate('heard.timelines[0]')  # heard twice, and told once
    (p,) = (p for p, _ in tagger.predict_windows(clips['stroke'], seconds=1, hop=0.25))
    assert len(p) == 2
    np.testing.assert_allclose(moment['p'], p.mean(0), atol=CLOSE)


def test_another_rate_is_brought_to_the_models(tab, tagger, clips, tmp_path):
    y = mini_clip('Cello', 3, 0, seed=1, sr=48000)
    (tmp_path / 'other.wav').write_bytes(wav_bytes(y, sr=48000))
    answer = hear(tab, tmp_path / 'other.wav')
    np.testing.assert_allclose(
        answer['p'], tagger.probabilities(tmp_path / 'other.wav'), atol=CLOSE
    )


RATES = """async files => { const { rateOf } = await import(new URL("listen/resample.js", location));
  return files.map(f => rateOf(new DataView(Uint8Array.from(atob(f), c => c.charCodeAt(0)).buffer)) ?? null) }"""


def test_the_rate_is_read_from_the_file(tab):
    y, files, wanted = np.zeros(2000, 'float32'), [], []
    for form in ('WAV', 'FLAC', 'OGG', 'MP3'):
        for rate in (8000, 22050, 44100, 48000):
            sf.write(buffer := io.BytesIO(), y, rate, format=form)
            files.append(base64.b64encode(buffer.getvalue()).decode())
            wanted.append(rate)
    files += [base64.b64encode(b).decode() for b in (b'', b'RIFF', b'fLaC', b'notes' * 20)]
    assert tab.evaluate(RATES, files) == [*wanted, None, None, None, None]


RESAMPLE = """async ([y, from, to]) => { const { resample } = await import(new URL("listen/resample.js", location));
  return [...resample(Float32Array.from(y), from, to)] }"""


@pytest.mark.parametrize('rate, target', [(44100, 16000), (48000, 44100), (8000, 16000)])
def test_resampling_keeps_tones_and_loses_what_is_too_high(tab, rate, target):
    t, out = np.arange(rate // 4) / rate, np.arange(target // 4) / target
    tones = 440, 0.42 * min(rate, target)  # Hz
    y = tab.evaluate(RESAMPLE, [sum(np.sin(2 * np.pi * f * t) for f in tones).tolist(), rate, target])
    inner = slice(200, -200)
    wanted = sum(np.sin(2 * np.pi * f * out) for f in tones)
    np.testing.assert_allclose(y[inner], wanted[inner], atol=1e-3)
    if target < rate:
        high = np.sin(2 * np.pi * (0.53 * target) * t).tolist()
        assert np.abs(tab.evaluate(RESAMPLE, [high, rate, target])[inner]).max() < 1e-3


SCRIPT = '''async ([sounds, metadata]) => { const t = await import(new URL("listen/tagging.js", location));
  const model = {...metadata, answer: async ys => Float32Array.from(ys.flatMap(y => {
    const e = [0, 1, 2].map(k => y.reduce((sum, v, i) => sum + (i % 3 === k ? v * v : 0), 1e-3)), sum = e.reduce((a, b) => a + b);
    return e.map(v => v / sum).slice(0, metadata.labels.length) }))};
  const out = [];
  for (const text of sounds) {
    const y = new Float32Array(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
    const sound = await t.hear(model, t.withoutOffset(y, model.sr));
    const p = t.soundingMean(sound.windows, model.trim_db); out.push([p, t.tag(p, model, sound)]); }
  return out }'''


@pytest.mark.parametrize(
    'fill, trim_db, temperature, unknown, known, rejects, thresholds',
    [
        ('pad', None, 1.0, 0.0, None, False, None),
        ('repeat', 60, 1.7, 0.4, None, False, None),
        ('repeat', 20, 0.6, 0.9, None, False, None),
        ('pad', 40, 2.5, 0.34, None, False, None),
        ('repeat', 60, 1.7, 0.4, (0.5, -0.6), False, None),
        ('repeat', 60, 1.0, 0.0, None, True, None),
        ('pad', 40, 0.7, 0.4, None, True, None),
        ('repeat', 60, 1.0, 0.0, None, False, {'a': 0.333, 'b': 0.334, 'c': 0.34}),
    ],
)
def test_what_surrounds_the_model_is_the_same(
    tab, fill, trim_db, temperature, unknown, known, rejects, thresholds
):
    def answer(X):
        e = np.stack([np.square(X[:, k::3], dtype=float).sum(1) for k in range(3)], 1) + 1e-3
        p = e / e.sum(1, keepdims=True)
        return p[:, :2] if rejects else p

    calibration = Calibration(temperature, unknown, thresholds, known=known)
    labels = ['a', 'b', 'c'][: 3 - rejects]
    hears = 8000, 0.3, fill, trim_db
    several = thresholds is not None  # a yes or no for each label
    other = Tagger(answer, labels, *hears, calibration, independent=several, rejects=rejects)
    rng = np.random.default_rng(1)
    sounds = []
    for n in (1, 159, 160, 161, 2399, 2400, 2401, 3600, 3601, 9000, 24000):
        y = rng.normal(0, 0.1, n) * np.exp(rng.uniform(-9, 0, math.ceil(n / 500)).repeat(500)[:n])
        y[: rng.integers(0, n)] *= rng.choice([0.0, 1.0])
        sounds.append(y.astype('float32'))
    sounds += [(sounds[-1] * 10.0**-k).astype('float32') for k in (1, 2, 3, 4, 5)]
    sounds += [(sounds[10] + offset).astype('float32') for offset in (0.2, -0.01)]
    metadata = json.loads(metadata_json(other))
    texts = [base64.b64encode(y).decode() for y in sounds]  # a list would be sent number by number
    answers = tab.evaluate(SCRIPT, [texts, metadata])
    for y, (p, best) in zip(sounds, answers):
        wanted = other.probabilities(y, 8000)
        assert (p is None) == (wanted is None)
        if p is not None:
            np.testing.assert_allclose(p, wanted, atol=1e-6)
        tags = other.tag(y, 8000)
        assert [label for label, _ in best] == [label for label, _ in tags]
        np.testing.assert_allclose([q for _, q in best], [q for _, q in tags], atol=1e-6)


def test_from_drop_to_answer_in_two_seconds(tab, clips, tagger):
    took = []
    for name in ('cello', 'two_channels', 'cello'):
        tab.evaluate('heard.answers = []; heard.timelines = []')
        tab.evaluate(DROP, [f'{name}.wav', base64.b64encode(clips[name].read_bytes()).decode()])
        tab.wait_for_function('heard.timelines.length')
        took.append(tab.evaluate('heard.answers[0].at - heard.dropped'))
    print('drop to answer:', ', '.join(f'{t:.0f} ms' for t in took))
    assert statistics.median(took) < 2000


def test_the_spectrogram_is_drawn_where_the_tone_is(tab, tmp_path):
    t = np.arange(2 * 44100) / 44100
    (tmp_path / 'tone.wav').write_bytes(
        wav_bytes(0.5 * np.sin(2 * np.pi * 1000 * t) * (t < 1), sr=44100)
    )
    hear(tab, tmp_path / 'tone.wav')
    picture = np.array(
        tab.evaluate('''() => { const c = document.getElementById("spectrogram"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
        return [...Array(c.height)].map((_, y) => [...Array(c.width)].map((_, x) => d[4 * (y * c.width + x)] + d[4 * (y * c.width + x) + 1])) }''')
    )
    height, width = picture.shape
    left = picture[:, width // 4 : width // 2 - 20].mean(1)
    assert abs(left.argmax() / height - (1 - math.log(1000 / 50) / math.log(400))) < 0.03, (
        'the tone is not where 1000 Hz is'
    )
    assert left.max() > 300 and picture[:, width * 3 // 4 :].max() < 30, 'silence is dark'
    strip = tab.evaluate(
        '() => { const c = document.getElementById("timeline"); return [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data].filter(v => v).length }'
    )
    assert strip > 1000


def test_the_microphone(tab, tagger, spoken):
    label = tagger.tag(spoken)[0][0]
    tab.click('#microphone')
    tab.wait_for_function('heard.answers.length > 8')
    time.sleep(3)
    live = tab.evaluate('heard.answers')
    assert all(a['live'] for a in live) and live[-1]['best'][0][0] == label
    assert tab.inner_text('#heard') == label.replace('_', ' ')
    assert tab.inner_text('#microphone') == 'Stop'
    assert (
        tab.evaluate('''() => { const c = document.getElementById("spectrogram"), d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
        return new Set(new Uint32Array(d.buffer)).size }''')
        > 100
    )
    tab.click('#microphone')
    tab.wait_for_function('heard.timelines.length')
    final = tab.evaluate('heard.answers.at(-1)')
    assert not final['live'] and final['best'][0][0] == label
    assert 'recording' in tab.inner_text('#say') and tab.inner_text('#microphone') == 'Microphone'


def test_examples_can_be_chosen_by_keyboard_and_play(tab, tagger, docs):
    first = tab.locator('#listen [data-src]').first
    first.focus()
    tab.keyboard.press('Enter')
    tab.wait_for_function('heard.timelines.length')
    assert_same(tab.evaluate('heard.answers[0]'), tagger, docs / first.get_attribute('data-src'))
    tab.wait_for_function('document.getElementById("player").currentTime > 0')
    tab.wait_for_function('document.getElementById("moment").textContent.startsWith("now: ")')
    assert tab.locator('#now').is_visible() and tab.locator('#player').is_visible()
    with tab.expect_file_chooser():
        tab.locator('#choose').focus()
        tab.keyboard.press('Enter')


def test_examples_are_recordings_that_may_be_used(tab, docs, real_data):
    table = (docs / 'listen.html').read_text('utf-8')
    buttons = tab.locator('#listen [data-src]').all()
    about = [json.loads(b.get_attribute('data-about')) for b in buttons]
    assert {'dog', 'rain', 'Cello'} < {a['label'] for a in about} and len(buttons) == 20
    assert 'synthetic' not in tab.inner_text('main').lower()
    credited = (real_data / 'ESC-10/ATTRIBUTION.md').read_text('utf-8').splitlines()
    meta = real_data / 'FSDKaggle2018/FSDKaggle2018.meta/train_post_competition.csv'
    free = {r.split(',')[3] for r in meta.read_text('utf-8').splitlines() if 'Commons 0' in r}
    for button, a in zip(buttons, about):
        assert (docs / button.get_attribute('data-src')).stat().st_size <= 40_000
        number, author = a['url'].split('/')[-2], a['credit'].removesuffix(' at Freesound, CC0')
        line = [l for l in credited if f'/{number}/' in l]
        assert f'*{author}* ([CC0]' in line[0] if line else number in free, a
        assert a['url'] in table and a['credit'] in table
    dog = about[[a['label'] for a in about].index('dog')]
    assert dog['right'] and round(dog['p'], 2) == 1.0
    tab.locator('#listen [data-src*=dog]').click()
    tab.wait_for_function('heard.timelines.length')
    told = tab.inner_text('#about')
    assert dog['credit'] in told and 'has learned from this recording' in told
    assert 'named it rightly, with 99.7 %' in told
    first_four = [a['right'] for a in about if a['label'] in ('Cello', 'Clarinet', 'dog', 'rain')]
    assert first_four == [True, True, False, False], 'wrong answers are among them'


def test_without_recordings_the_examples_are_synthetic(root, tmp_path, capsys):
    sys.path.insert(0, str(root / '_notebooks'))
    listening = pytest.importorskip('listening')
    for data in (None, tmp_path / 'nothing'):
        groups, real = listening.examples(tmp_path, ['Cello', 'Flute', 'dog'], data)
        assert not real and 'synthetic' in capsys.readouterr().out
        assert [g['name'] for g in groups] == ['Synthetic examples']
        assert [e['text'] for e in groups[0]['examples']] == ['Cello', 'Flute']


@pytest.fixture(scope='module')
def own(tmp_path_factory, tagger):
    "Models as `soundtag export` writes them, with a network that takes one length, or any."
    onnx = pytest.importorskip('onnx')
    helper, number = onnx.helper, onnx.TensorProto
    folder = tmp_path_factory.mktemp('own')
    labels = ['rain', 'big_bang', 'bell', 'bark']
    nodes = [
        helper.make_node('Mul', ['audio', 'audio'], ['power']),
        helper.make_node('Reshape', ['power', 'shape'], ['parts']),
        helper.make_node('ReduceMean', ['parts'], ['mean'], axes=[1], keepdims=0),
        helper.make_node('Add', ['mean', 'floor'], ['floored']),
        helper.make_node('Log', ['floored'], ['logits']),
        helper.make_node('Softmax', ['logits'], ['p'], axis=1),
    ]
    constants = [
        helper.make_tensor('shape', number.INT64, [3], [0, -1, 4]),
        helper.make_tensor('floor', number.FLOAT, [1], [1e-6]),
    ]
    changes = {'fixed': {}, 'any': {}, 'old': {}, 'labels': {'labels': labels[:3]}, 'rate': {'sr': 9}}
    for name, change in changes.items():
        size = 's' if name == 'any' else 32000
        graph = helper.make_graph(
            nodes,
            'soundtag',
            [helper.make_tensor_value_info('audio', number.FLOAT, ['n', size])],
            [helper.make_tensor_value_info('p', number.FLOAT, ['n', 4])],
            constants,
        )
        proto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8
        )
        calibration = Calibration(1.5, 0.1, dict.fromkeys(labels, 0.25))
        text = metadata_json(Tagger(None, labels, 16000, 2.0, 'repeat', 60, calibration))
        metadata = json.loads(text) | change
        if name == 'old':
            metadata |= {'short': metadata.pop('fill'), 'silence': metadata.pop('trim_db')}
        helper.set_model_props(proto, {'first': 'x', 'soundtag': json.dumps(metadata)})
        onnx.save(proto, folder / f'{name}.onnx')
    del proto.metadata_props[:]
    onnx.save(proto, folder / 'bare.onnx')
    (folder / 'cut.onnx').write_bytes((folder / 'any.onnx').read_bytes()[:200])
    (folder / 'text.onnx').write_text('no model')
    return folder


def drop(tab, path):
    tab.evaluate(DROP, [path.name, base64.b64encode(path.read_bytes()).decode()])


@pytest.fixture
def bundled(tab):
    "The bundled model answers afterwards."
    yield
    tab.click('#bundled')
    tab.wait_for_function('!document.getElementById("which").textContent')


@pytest.mark.parametrize('name, span', [('fixed', 2.0), ('any', 1.0), ('old', 2.0)])
def test_a_model_of_the_readers_own_answers(tab, tagger, clips, own, bundled, name, span):
    hear(tab, clips['long'])
    tab.evaluate('heard.answers = []; heard.timelines = []')
    drop(tab, own / f'{name}.onnx')
    tab.wait_for_function('heard.timelines.length')  # what was heard last is heard again
    mine = load_tagger(own / f'{name}.onnx')
    assert_same(tab.evaluate('heard.answers[0]'), mine, clips['long'])
    p = np.concatenate([p for p, _ in mine.predict_windows(clips['long'], seconds=span, hop=0.25)])
    np.testing.assert_allclose(
        [m['p'] for m in tab.evaluate('heard.timelines[0]')], p, atol=CLOSE
    )
    told = tab.inner_text('#which')
    assert f'{name}.onnx answers: 4 sounds (rain, big bang, bell, bark)' in told
    assert '“20 sounds” brings back' in told
    assert tab.get_attribute('#own', 'aria-pressed') == 'true'
    assert tab.get_attribute('#bundled', 'aria-pressed') == 'false'
    tab.evaluate('heard.answers = []; heard.timelines = []')
    tab.click('#bundled')
    tab.wait_for_function('heard.timelines.length')
    assert_same(tab.evaluate('heard.answers[0]'), tagger, clips['long'])
    tab.evaluate('heard.answers = []; heard.timelines = []')
    tab.click('#own')  # and once more, without the file
    tab.wait_for_function('heard.timelines.length')
    assert tab.evaluate('heard.answers[0].labels') == mine.labels


@pytest.mark.parametrize(
    'name, told',
    [
        ('text', 'is no ONNX model, or a damaged one'),
        ('cut', 'is no ONNX model, or a damaged one'),
        ('bare', 'is no model that soundtag exported, or a damaged one (it has no metadata)'),
        ('labels', 'the model gives other labels'),
        ('rate', 'sr: not a number from 8000 to 192000'),
    ],
)
def test_a_file_that_is_no_model_is_told_and_changes_nothing(tab, tagger, clips, own, name, told):
    hear(tab, clips['cello'])
    tab.set_input_files('#model-file', own / f'{name}.onnx')
    said = fault(tab)
    assert said.startswith(f'{name}.onnx ') and told in said and said.count('\n') == 0
    assert tab.inner_text('#heard') == '' == tab.inner_text('#which')
    tab.evaluate('heard.answers = []; heard.timelines = []')
    assert_same(hear(tab, clips['cello']), tagger, clips['cello'])


def test_yamnet_can_be_chosen(tab, clips, bundled, docs):
    button = tab.locator('[data-model=yamnet]')
    if not button.count():
        pytest.skip('the site was built where the weights of YAMNet could not be had')
    tab.set_input_files('#file', clips['two_channels'])
    tab.wait_for_function('heard.timelines.length')
    tab.evaluate('heard.answers = []; heard.timelines = []')
    button.click()
    tab.wait_for_function('heard.timelines.length')
    yamnet, answer = load_tagger('yamnet'), tab.evaluate('heard.answers[0]')
    assert answer['labels'] == yamnet.labels and len(answer['labels']) == 521
    np.testing.assert_allclose(answer['p'], yamnet.probabilities(clips['two_channels']), atol=0.01)
    assert answer['best'][0][0] == yamnet.tag(clips['two_channels'])[0][0]
    assert 'YAMNet answers: 521 sounds' in tab.inner_text('#which')
    assert 'Google' in tab.inner_text('main')


def test_an_error_leaves_nothing_of_the_last_answer(tab, clips, tmp_path):
    hear(tab, clips['cello'])
    assert tab.inner_text('#heard') and tab.locator('#best li').count() == 3
    (tmp_path / 'notes.wav').write_bytes(b'this is a text')
    tab.set_input_files('#file', tmp_path / 'notes.wav')
    fault(tab)
    assert not tab.inner_text('#heard') + tab.inner_text('#best') + tab.inner_text('#parts')
    assert not tab.locator('#player').is_visible() and not tab.locator('#save').is_visible()
    drawn = '[...document.querySelectorAll("#listen canvas")].map(c => c.width)'
    assert tab.evaluate(drawn) == [0, 0, 0]
    hear(tab, clips['cello'])
    assert tab.inner_text('#heard') and min(tab.evaluate(drawn)) > 100


def test_the_timeline_can_be_saved(tab, clips, tmp_path):
    path = tmp_path / 'one, "two".wav'
    path.write_bytes(clips['silent_ends'].read_bytes())
    hear(tab, path)
    saved = {}
    for kind in ('csv', 'txt'):
        with tab.expect_download() as download:
            tab.click(f'#save-{kind}')
        assert download.value.suggested_filename == f'one_two_.{kind}'
        saved[kind] = Path(download.value.path()).read_text('utf-8')
    rows = list(csv.DictReader(io.StringIO(saved['csv'])))
    assert list(rows[0]) == list(EVENT_COLUMNS)  # as `soundtag tag --timeline --format csv`
    assert {r['file'] for r in rows} == {path.name} and len(rows) >= 3
    assert rows[0]['label'] == 'silence' == rows[-1]['label'] and rows[0]['onset'] == '0.000'
    assert all(a['offset'] == b['onset'] for a, b in zip(rows, rows[1:]))
    assert all(0 < float(r['probability']) <= 1 for r in rows)
    parts = [line.split('\t') for line in saved['txt'].splitlines()]
    assert [[f'{float(a):.3f}', f'{float(b):.3f}', label] for a, b, label in parts] == [
        [r['onset'], r['offset'], r['label']] for r in rows
    ]
    shown = tab.inner_text('#parts').splitlines()
    assert len(shown) == len(rows) and shown[0].endswith('silence')


def test_it_works_without_a_network_once_loaded(visit, serve, docs, tagger, clips):
    address, stop = serve(docs)
    tab = visit(address)
    tab.wait_for_selector('#offline:not([hidden])')
    stop()
    reply = tab.reload()
    assert reply.from_service_worker and reply.status == 200
    tab.wait_for_selector('#listen[data-ready]')
    assert_same(hear(tab, clips['cello']), tagger, clips['cello'])
    tab.locator('#listen [data-src]').last.click()
    tab.wait_for_function('heard.answers.length === 2')
    assert not tab.wrong
    assert (
        tab.evaluate('getComputedStyle(document.getElementById("choose")).backgroundColor')
        == 'rgb(11, 92, 173)'
    )


@pytest.mark.parametrize(
    'name, data, told',
    [
        ('notes.wav', b'this is a text', 'notes.wav is not sound in a format this browser knows'),
        ('nothing.wav', b'', 'nothing.wav is empty'),
        ('cut.flac', b'fLaC' + bytes(60), 'cut.flac is not sound'),
    ],
)
def test_files_that_are_no_sound_are_named(tab, name, data, told, tmp_path):
    (tmp_path / name).write_bytes(data)
    tab.set_input_files('#file', tmp_path / name)
    assert told in fault(tab)


def test_samples_that_are_no_numbers_are_named(tab, tmp_path, tagger, clips):
    buffer = io.BytesIO()
    sf.write(buffer, np.full(44100, np.nan, 'float32'), 44100, format='WAV', subtype='FLOAT')
    (tmp_path / 'nan.wav').write_bytes(buffer.getvalue())
    tab.set_input_files('#file', tmp_path / 'nan.wav')
    assert 'nan.wav holds samples that are NaN or infinite' in fault(tab)
    assert_same(
        hear(tab, clips['cello']), tagger, clips['cello']
    )  # a fault leaves the page as it was


def test_what_is_too_long_is_refused_before_it_is_decoded(tab, tmp_path):
    (tmp_path / 'long.wav').write_bytes(wav_bytes(np.zeros(11 * 60 * 8000), sr=8000))
    tab.set_input_files('#file', tmp_path / 'long.wav')
    assert 'long.wav lasts 11 minutes' in fault(tab)


def test_a_microphone_that_cannot_be_had_is_told(tab):
    faults = {
        'NotAllowedError': 'was refused',
        'NotFoundError': 'no microphone',
        'NotReadableError': 'in use',
        'AbortError': 'cannot be used',
    }
    tab.evaluate('() => { heard.real = navigator.mediaDevices.getUserMedia }')
    for error, told in faults.items():
        tab.evaluate(
            'name => { navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("why", name)) }',
            error,
        )
        tab.click('#microphone')
        tab.wait_for_function(
            'told => document.querySelector("#say.fault")?.textContent.includes(told)', arg=told
        )
        assert tab.locator('#microphone').is_enabled()
    tab.evaluate('() => { navigator.mediaDevices.getUserMedia = heard.real }')


@pytest.mark.parametrize(
    'what, answer, told',
    [
        ('**/ort-*.wasm.gz', {'body': 'no wasm'}, 'cannot run in this browser'),
        ('**/sounds-*.onnx', {'body': 'no model'}, 'cannot run in this browser'),
        ('**/sounds-*.onnx', {'status': 404}, 'did not arrive (404)'),
        ('**/worker.js', {'status': 404}, 'did not arrive'),
    ],
)
def test_what_does_not_arrive_or_run_is_told(visit, what, answer, told):
    tab = visit(route=(what, lambda route: route.fulfill(**answer)))
    assert told in fault(tab)
    assert tab.locator('#choose').is_disabled()


def test_nothing_bars_readers_with_disabilities(tab, clips):
    from axe_playwright_python.sync_playwright import Axe

    tab.set_viewport_size({'width': 390, 'height': 800})
    hear(tab, clips['cello'])
    backgrounds = []
    for _ in ('light', 'dark'):
        found = Axe().run(tab).response['violations']
        assert not [
            (v['id'], [n['html'][:150] for n in v['nodes'][:3]])
            for v in found
            if v['impact'] in ('serious', 'critical')
        ]
        backgrounds.append(tab.evaluate('getComputedStyle(document.body).backgroundColor'))
        tab.evaluate('smalldocsToggleScheme()')
    assert backgrounds[0] == 'rgb(255, 255, 255)' != backgrounds[1]
    assert (
        tab.get_attribute('#heard', 'aria-live') == 'polite'
        and tab.get_attribute('#say', 'role') == 'status'
    )
    style = tab.add_style_tag(
        content='#quarto-content { overflow-x: visible !important }'
    )  # or what is too wide would be cut off unseen
    assert tab.evaluate('document.documentElement.scrollWidth') <= 390, (
        'something is wider than a phone'
    )
    style.evaluate('e => e.remove()')
    tab.set_viewport_size({'width': 1280, 'height': 800})


def test_the_browser_is_told_to_send_nothing(tab, docs):
    assert "connect-src 'self'" in (docs / 'listen.html').read_text('utf-8')
    assert (
        tab.evaluate('fetch("http://localhost:9/").then(() => "sent", e => "refused")') == 'refused'
    )
    for path in (docs / 'listen').glob('*.js'):
        assert 'http' not in path.read_text('utf-8').replace('https.', ''), (
            f'{path.name} names an address'
        )
