"""The page that listens: the bundled model, ONNX Runtime Web and examples, put beside the other pages.

Where the recordings are that the bundled model has learned from, a folder with FSDKaggle2018 and ESC-10 in it, the examples
come from them; otherwise they are synthetic, and called so. Where YAMNet's weights are or can be fetched, the page offers
it, too. What is large is named by its content, so that a browser may keep it; `offline.js` lists all that the page consists of.
"""
import csv
import gzip
import hashlib
import html
import io
import json
import re
import shutil
import tarfile

import jinja2
import numpy as np
import onnx
import onnxruntime
import soundfile as sf
import yaml
from onnx import TensorProto, helper, numpy_helper
from weave import ROOT

from soundtag.export import fourier_kernel, to_float16, used_mel_weights
from soundtag.miniset import mini_clip
from soundtag.pretrained import FLOOR, HOP, PATCH_SAMPLES, SR, WeightsError, audioset_labels, load_weights, onnx_network
from soundtag.synthesis import INSTRUMENTS
from soundtag.tagging import current_names

SITE = ROOT / '_notebooks/site/listen'
BUNDLED = ROOT / 'soundtag/bundled'
RESULTS = ROOT / 'nbs/results'
SCRIPTS = 'listen.js', 'listen.css', 'worker.js', 'model.js', 'microphone.js', 'tagging.js', 'resample.js', 'spectrogram.js', 'LICENSE.txt'
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
    "The bundled model; what it says about itself, under the names of today."
    data = (BUNDLED / 'sounds.onnx').read_bytes()
    session = onnxruntime.InferenceSession(data, providers=['CPUExecutionProvider'])
    about = current_names(json.loads(session.get_modelmeta().custom_metadata_map['soundtag']))
    return {'model': stamped(folder, 'sounds.onnx', data)}, about


# ---- YAMNet

def front_end(graph):
    "Put YAMNet's front end before its convolutions: the graph takes samples, shape (n, 15600), and gives scores only."
    kernel = fourier_kernel()
    bins = len(kernel) // 2

    def constant(name, array):
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    axis, halves = constant('axis', np.array([1])), constant('halves', np.array([bins, bins]))
    table = constant('fourier table', kernel[:, None].astype('float32'))
    mel, floor = constant('mel', used_mel_weights().astype('float32')), constant('floor', np.array(FLOOR, 'float32'))
    steps = [('Unsqueeze', ['audio', axis], ['row']), ('Conv', ['row', table], ['fourier']), ('Split', ['fourier', halves], ['real', 'imaginary']),
             ('Mul', ['real', 'real'], ['real²']), ('Mul', ['imaginary', 'imaginary'], ['imaginary²']), ('Add', ['real²', 'imaginary²'], ['power']),
             ('Sqrt', ['power'], ['magnitude']), ('Transpose', ['magnitude'], ['frames']), ('MatMul', ['frames', mel], ['bands']),
             ('Add', ['bands', floor], ['floored']), ('Log', ['floored'], ['picture']), ('Unsqueeze', ['picture', axis], ['patches'])]
    options = {'Conv': {'strides': [HOP]}, 'Split': {'axis': 1}, 'Transpose': {'perm': [0, 2, 1]}}
    nodes = [helper.make_node(kind, before, after, name=f'fourier {after[0]}', **options.get(kind, {})) for kind, before, after in steps]
    nodes += [node for node in graph.node if node.op_type != 'GlobalMaxPool' and node.output[0] not in ('joined', 'pooled')]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info('audio', TensorProto.FLOAT, ['n', PATCH_SAMPLES]))
    graph.output.remove(next(output for output in graph.output if output.name == 'pooled'))


def yamnet(folder):
    "YAMNet as a file that takes samples, its kernels in two bytes, or None where its weights can't be had."
    try:
        proto = onnx.load_model_from_string(onnx_network(load_weights()))
    except WeightsError as e:
        print(f'The page offers no YAMNet: {e}')
        return None
    front_end(proto.graph)
    to_float16(proto)
    about = {'labels': audioset_labels(), 'sr': SR, 'seconds': PATCH_SAMPLES / SR, 'fill': 'repeat', 'trim_db': None,
             'temperature': 1.0, 'unknown': 0.0, 'thresholds': None, 'independent': True}
    helper.set_model_props(proto, {'soundtag': json.dumps(about)})
    onnx.checker.check_model(proto)
    data = proto.SerializeToString()
    return {'file': stamped(folder, 'yamnet.onnx', data), 'number': len(about['labels']), 'megabytes': f'{len(data) / 1e6:.0f}'}


# ---- examples

CLIP_SECONDS, CLIP_BYTES = 5, 40_000    # An example has no more of either
CREDIT = re.compile(r'\*\*(\S+)\.\w+\*\*:\s+clip derived from \[.*?\]\((\S+)\) by \*(.*?)\* \(\[(.*?)\]')    # A line of ESC-10's ATTRIBUTION.md


def clips(data):
    "The clips that the bundled model has learned from, in the order of `box.json`, as dicts; what a network said that had not heard them."
    with open(BUNDLED / 'sources.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    rows.sort(key=lambda row: (not row['fname'].endswith('.wav'), row['fname']))    # FSDKaggle2018, then ESC-10
    box = json.loads((RESULTS / 'box.json').read_text('utf-8'))
    rows = [row | {'right': right, 'p': p} for row, right, p in zip(rows, box['right'], box['sure'], strict=True)]
    for entry in box['labels']:
        found = [row['right'] for row in rows if row['label'] == entry['label']]
        if len(found) != entry['clips'] or not np.isclose(np.mean(found), entry['accuracy']):
            raise SystemExit(f'box.json is not in the order of sources.csv, as {entry["label"]} shows; measure again')
    authors = {m[1]: m.groups() for m in CREDIT.finditer((data / 'ESC-10/ATTRIBUTION.md').read_text('utf-8'))}
    for row in rows:
        if row['fname'].endswith('.wav'):
            row |= {'path': data / 'FSDKaggle2018/FSDKaggle2018.audio_train' / row['fname'], 'author': None, 'cc0': row['license'] == 'Creative Commons 0'}
        else:    # all of it is CC-BY, most clips of it are CC0
            _, _, author, license = authors[row['fname'].rsplit('-', 1)[0]]
            row |= {'path': data / 'ESC-10/audio' / row['fname'], 'author': author, 'cc0': license == 'CC0'}
    return rows


def short_mp3(path):
    "The first seconds of a recording as MP3, which every browser knows."
    y, sr = sf.read(path, dtype='float32', always_2d=True)
    file = io.BytesIO()
    with sf.SoundFile(file, 'w', sr, 1, format='MP3', subtype='MPEG_LAYER_III', compression_level=.9, bitrate_mode='CONSTANT') as mp3:
        mp3.write(y[:CLIP_SECONDS * sr].mean(1))
    return file.getvalue()


def recordings(folder, data):
    "For each label the first CC0 recording by file name that becomes small enough: what its button needs, and its credit."
    chosen = {}
    for row in clips(data):
        if row['cc0'] and row['label'] not in chosen and len(mp3 := short_mp3(row['path'])) <= CLIP_BYTES:
            credit = f'{row["author"] or "number " + row["recording"]} at Freesound, CC0'
            about = {'label': row['label'], 'url': f'https://freesound.org/s/{row["recording"]}/', 'credit': credit, 'right': row['right'], 'p': row['p']}
            chosen[row['label']] = {'from': row['fname']} | button(row['label'], stamped(folder, f'{row["label"].lower()}.mp3', mp3), about)
    groups = ('Everyday sounds', '.ogg'), ('Instruments', '.wav')
    return [{'name': name, 'examples': [chosen[label] for label in sorted(chosen) if chosen[label]['from'].endswith(ending)]} for name, ending in groups]


def synthetic(folder, labels):
    "One of each instrument that is among the labels and that chapter 01a can play."
    made = []
    for label in sorted(set(INSTRUMENTS) & set(labels)):
        flac = io.BytesIO()
        sf.write(flac, mini_clip(label, 0, 0, seed=0), 44100, format='FLAC', subtype='PCM_16')
        made.append(button(label, stamped(folder, f'{label.lower()}.flac', flac.getvalue()), {'label': label}))
    return [{'name': 'Synthetic examples', 'examples': made}]


def button(label, file, about):
    "What the page needs of an example."
    text = label.replace('_', ' ')
    return {'file': file, 'text': text[0].upper() + text[1:], 'about': html.escape(json.dumps(about)), **about}


def examples(folder, labels, data):
    "Groups of examples: recordings where they are, else synthetic ones; whether they are recordings."
    try:
        if data is None:
            raise FileNotFoundError('no folder with FSDKaggle2018 and ESC-10 was given')
        return recordings(folder, data), True
    except (OSError, sf.SoundFileError) as e:
        print(f'The examples of the page are synthetic: {e}')
        return synthetic(folder, labels), False


def stage(proc, archive, version, data):
    "The page and all it needs, in the folder that is rendered; `data` is where the recordings are, or None."
    folder = proc / 'listen'
    folder.mkdir()
    for name in SCRIPTS:
        shutil.copy(SITE / name, folder)
    shutil.copy(SITE / 'offline.js', proc)
    files, about = model(folder)
    files |= runtime(folder, archive)
    size = {name: (folder / file).stat().st_size / 1e6 for name, file in files.items()}
    groups, real = examples(folder, about['labels'], data)
    network = yamnet(folder)
    env = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    common = {'number': len(about['labels']), 'yamnet': network, 'examples': groups}
    box = env.from_string((SITE / 'page.html').read_text('utf-8')).render(
        files=html.escape(json.dumps(files)), megabytes=f'{sum(size.values()):.1f}', **common)
    text = env.from_string((SITE / 'page.md').read_text('utf-8')).render(
        listen=box.strip(), **measured(), **common, real=real, seconds=f'{about["seconds"]:g}', kept=KEPT, version=version, sr=about['sr'],
        labels=', '.join(l.replace('_', ' ') for l in about['labels']), model_megabytes=f'{size["model"]:.1f}')
    (proc / 'listen.qmd').write_text(f'---\n{yaml.safe_dump(FRONT, sort_keys=False, allow_unicode=True)}---\n\n{text}\n', 'utf-8')


def measured():
    "How good the model is, on our folds and elsewhere."
    result = json.loads((RESULTS / 'box.json').read_text('utf-8'))
    wild = result['wild']
    return {
        'folds': f"{result['metrics']['accuracy']['mean']:.1%}",
        'wild': f"{wild['mean_over_labels']:.1%}",
        'named': f"{result['unknown']['confident_unknown']['mean']:.0%}",
    }


def keep_offline(docs):
    "Write into offline.js what the page consists of, and a name for it that changes when anything does."
    page = (docs / 'listen.html').read_text('utf-8')
    linked = set(re.findall(r'(?:href|src)="((?:site_libs/|images/|style\.css|enlarge\.js)[^"]*)"', page))
    fonts = {p.relative_to(docs).as_posix() for p in docs.glob('site_libs/bootstrap-icons/*.woff')}
    beside = {p.relative_to(docs).as_posix() for p in (docs / 'listen').iterdir() if p.name != 'LICENSE.txt'}
    later = sorted(name for name in beside if name.startswith('listen/yamnet-'))
    files = sorted({'listen.html'} | linked | fonts | beside - set(later))
    version = hashlib.sha256(b''.join((docs / f).read_bytes() for f in files)).hexdigest()[:12]
    script = (docs / 'offline.js').read_text('utf-8')
    script = script.replace('FILES = []', f'FILES = {json.dumps(files)}').replace('LATER = []', f'LATER = {json.dumps(later)}')
    (docs / 'offline.js').write_text(script.replace('"soundtag-listen-";', f'"soundtag-listen-{version}";'), 'utf-8')
