"""The page that listens: the bundled model, ONNX Runtime Web and synthetic examples, put beside the other pages.

What is large is named by its content, so that a browser may keep it; `offline.js` lists all that the page consists of.
"""
import gzip
import hashlib
import html
import io
import json
import re
import shutil
import tarfile

import jinja2
import onnxruntime
import soundfile as sf
import yaml
from weave import ROOT

from soundtag.miniset import mini_clip
from soundtag.synthesis import INSTRUMENTS
from soundtag.tagging import current_names

SITE = ROOT / '_notebooks/site/listen'
MODEL = ROOT / 'soundtag/bundled/sounds.onnx'
RESULTS = ROOT / 'nbs/results'
SCRIPTS = 'listen.js', 'listen.css', 'worker.js', 'microphone.js', 'tagging.js', 'spectrogram.js', 'LICENSE.txt'
KEPT = int(re.search(r'KEPT = (\d+)', (SITE / 'listen.js').read_text('utf-8'))[1])    # s of the microphone
GUARD = "connect-src 'self' blob:; worker-src 'self'; media-src 'self' blob:; form-action 'none'; object-src 'none'"    # the browser sees to it that nothing is sent
FRONT = {'title': 'A page that listens', 'description': 'What is this sound? Answered in your browser: from a file, an example or the microphone, and nothing is sent anywhere.',
         'image': 'images/results_curves.png', 'comments': False, 'toc': False, 'page-navigation': False,
         'format': {'html': {'include-in-header': [{'text': f'<meta http-equiv="Content-Security-Policy" content="{GUARD}">'}]}}}


def stamped(folder, name, data):
    "Store bytes under a name with their hash in it; the name."
    stem, suffix = name.split('.', 1)
    name = f'{stem}-{hashlib.sha256(data).hexdigest()[:8]}.{suffix}'
    (folder / name).write_bytes(data)
    return name


def runtime(folder, archive):
    "ONNX Runtime Web's plain build: the script, and the WebAssembly packed to a quarter."
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        script = tar.extractfile('package/dist/ort.wasm.bundle.min.mjs').read()
        wasm = tar.extractfile('package/dist/ort-wasm-simd-threaded.wasm').read()
    script = re.sub(rb'\n//# sourceMappingURL=.*', b'', script)
    return {'runtime': stamped(folder, 'ort.mjs', script), 'wasm': stamped(folder, 'ort.wasm.gz', gzip.compress(wasm, 9, mtime=0))}


def model(folder):
    "The bundled model, and its metadata as JSON beside it, under the names of today."
    data = MODEL.read_bytes()
    session = onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    about = current_names(json.loads(session.get_modelmeta().custom_metadata_map['soundtag']))
    text = json.dumps(about).encode()
    return {'model': stamped(folder, 'sounds.onnx', data), 'about': stamped(folder, 'sounds.json', text)}, about


def examples(folder, labels):
    "Buttons, one for each instrument that is among the labels."
    for label in sorted(set(INSTRUMENTS) & set(labels)):
        flac = io.BytesIO()
        sf.write(flac, mini_clip(label, 0, 0, seed=0), 44100, format='FLAC', subtype='PCM_16')
        name = stamped(folder, f'{label.lower()}.flac', flac.getvalue())
        yield f'<button type="button" data-src="listen/{name}" disabled>{label.replace("_", " ")}</button>'


def stage(proc, archive, version):
    "The page and all it needs, in the folder that is rendered."
    folder = proc / 'listen'
    folder.mkdir()
    for name in SCRIPTS:
        shutil.copy(SITE / name, folder)
    shutil.copy(SITE / 'offline.js', proc)
    files, about = model(folder)
    files |= runtime(folder, archive)
    size = {name: (folder / file).stat().st_size / 1e6 for name, file in files.items()}
    env = jinja2.Environment(undefined=jinja2.StrictUndefined)
    box = env.from_string((SITE / 'page.html').read_text('utf-8')).render(
        files=html.escape(json.dumps(files)), examples='\n'.join(examples(folder, about['labels'])), megabytes=f'{sum(size.values()):.1f}')
    text = env.from_string((SITE / 'page.md').read_text('utf-8')).render(
        listen=box.strip(), **measured(), seconds=f'{about["seconds"]:g}', kept=KEPT, number=len(about['labels']), version=version, sr=about['sr'],
        labels=', '.join(l.replace('_', ' ') for l in about['labels']), model_megabytes=f'{size["model"]:.1f}')
    (proc / 'listen.qmd').write_text(f'---\n{yaml.safe_dump(FRONT, sort_keys=False, allow_unicode=True)}---\n\n{text}\n', 'utf-8')


def measured():
    "How good the model is, on our folds and elsewhere."
    result = json.loads((RESULTS / 'box.json').read_text('utf-8'))
    wild = result['wild']
    return {
        'folds': f"{result['metrics']['accuracy']['mean']:.1%}",
        'wild': f"{wild['mean_over_labels']:.1%}",
        'named': f"{wild['named_at_60_percent']:.0%}",
    }


def keep_offline(docs):
    "Write into offline.js what the page consists of, and a name for it that changes when anything does."
    page = (docs / 'listen.html').read_text('utf-8')
    linked = set(re.findall(r'(?:href|src)="((?:site_libs/|images/|style\.css|enlarge\.js)[^"]*)"', page))
    fonts = {p.relative_to(docs).as_posix() for p in docs.glob('site_libs/bootstrap-icons/*.woff')}
    files = sorted({'listen.html'} | linked | fonts | {p.relative_to(docs).as_posix() for p in (docs / 'listen').iterdir() if p.name != 'LICENSE.txt'})
    version = hashlib.sha256(b''.join((docs / f).read_bytes() for f in files)).hexdigest()[:12]
    script = (docs / 'offline.js').read_text('utf-8')
    (docs / 'offline.js').write_text(script.replace('FILES = []', f'FILES = {json.dumps(files)}').replace('"soundtag-listen-";', f'"soundtag-listen-{version}";'), 'utf-8')
