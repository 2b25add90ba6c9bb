"""Data sets as they are found in the wild: published layouts, careless folders, lists from anywhere, sections.

One table says for every input what comes of it: clips, labels, splits and folds, or the message. The inputs are those of
public bug reports, made small, in the form in which they were published or found.
"""

import csv
import io
import os
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import numpy as np
import pytest
from conftest import at_once, small_cnn

from soundtag.audio import load_audio, wav_bytes
from soundtag.cli import main
from soundtag.dataset import Clips, DataError, load_clips, make_folds
from soundtag.files import read_json
from soundtag.mfcc import LogMel
from soundtag.recipe import NETWORKS
from soundtag.store import prepare_data
from soundtag.training import find_clips

LABELS = ['Bass_drum', 'Double_bass', 'Violin_or_fiddle']
CLIPS = [(LABELS[i // 10], f'{i:02}ab.wav') for i in range(30)]  # label, file


def sound(k, seconds=0.05):
    n = np.arange(int(8000 * seconds))
    return wav_bytes(0.1 * np.sin(0.02 * (k + 1) * n), sr=8000)


def put(path, k=0, data=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sound(k) if data is None else data)


def table(path, rows, delimiter=',', encoding='utf-8', newline='\n'):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w', newline='', encoding=encoding) as f:
        csv.writer(f, delimiter=delimiter, lineterminator=newline).writerows(rows)


# Published layouts


def urbansound(root, audio='audio/', meta='metadata/', folds=10):
    rows = ['slice_file_name fsID start end salience fold classID class'.split()]
    for i, (label, name) in enumerate(CLIPS):
        name = f'{i // 2}-0-0-{i}.wav'  # two slices of each recording, in one fold
        put(root / f'{audio}fold{i // 2 % folds + 1}/{name}', i)
        rows.append([name, i // 2, '0.0', '4.0', 1, i // 2 % folds + 1, LABELS.index(label), label])
    table(root / f'{meta}UrbanSound8K.csv', rows)
    return root


def fsd2019(root, several=False, zenodo=False):
    parts = {'train_curated': [], 'train_noisy': [], 'test': []}
    for i, (label, name) in enumerate(CLIPS):
        part = list(parts)[i % 3]
        put(root / (f'FSDKaggle2019.audio_{part}' if zenodo else part) / name, i)
        more = several is True or several and part in several
        parts[part].append([name, label + (',Run' if more and i % 4 == 0 else '')])
    if not zenodo:
        parts.pop('test')  # the competition kept its labels
    for part, rows in parts.items():
        place = f'FSDKaggle2019.meta/{part}_post_competition.csv' if zenodo else f'{part}.csv'
        table(root / place, [['fname', 'labels'], *rows])
    return root


def fsd50k(root, several=False):
    lists = {'dev': [['fname', 'labels', 'mids', 'split']], 'eval': [['fname', 'labels', 'mids']]}
    for i, (label, _) in enumerate(CLIPS):
        part = 'dev' if i % 3 else 'eval'
        put(root / f'FSD50K.{part}_audio/{i + 1000}.wav', i)
        more = several is True or several and part in several
        row = [i + 1000, label + (',Music' if more else ''), '/m/1']
        lists[part].append([*row, 'train' if i % 5 else 'val'] if i % 3 else row)
    for part, rows in lists.items():
        table(root / f'FSD50K.ground_truth/{part}.csv', rows)
    return root


def speech_commands(root):
    speakers = ['0a1', '0b2', '0c3', '0d4', '0e5']
    names = [f'{w}/{s}_nohash_{k}.wav' for w in ('yes', 'no') for s in speakers for k in (0, 1)]
    for i, name in enumerate(names):
        put(root / name, i)
    put(root / '_background_noise_/pink_noise.wav', 99)
    (root / '_background_noise_/README.md').write_text('noise')
    (root / 'README.md').write_text('words')
    for name, speaker in (('testing', '0d4'), ('validation', '0e5')):
        listed = [n for n in names if speaker in n]
        (root / f'{name}_list.txt').write_text('\n'.join(listed) + '\n')
    return root


def birdclef(root, name='train_metadata.csv', flat=False, column='primary_label'):
    rows = [[column, 'secondary_labels', 'filename', 'license']]
    for i, (label, _) in enumerate(CLIPS):
        put(root / f'train_audio/{label}/XC{i}.wav', i)
        rows.append([label, "['rufous']" if i % 9 == 0 else '[]', f'XC{i}.wav' if flat else f'{label}/XC{i}.wav', 'CC'])
    table(root / name, rows)
    table(root / 'taxonomy.csv', [['primary_label', 'class_name'], ['Bass_drum', 'Aves']])
    table(root / 'sample_submission.csv', [['row_id', *LABELS], ['s_5', 0, 0, 0]])
    put(root / 'test_soundscapes/s.wav', 77)
    return root


def tree(root, names=('train', 'train', 'valid', 'test')):
    for i, (label, name) in enumerate(CLIPS):
        put(root / names[i % len(names)] / label / name, i)
    return root


def esc(root, spoil=False):
    rows = ['filename fold target category esc10 src_file take'.split()]
    for i, (label, _) in enumerate(CLIPS):
        name = f'{i % 5 + 1}-{i}-A-{LABELS.index(label)}.wav'
        put(root / f'audio/{name}', i)
        fold, true = (f'{i % 5 + 1}.0', 'TRUE') if spoil else (i % 5 + 1, 'True')
        rows.append([name, fold, LABELS.index(label), label, true, i, 'A'])
    table(root / 'meta/esc50.csv', rows)
    return root


# Folders


def folders(root, place=lambda i, label: label):
    for i, (label, name) in enumerate(CLIPS):
        put(root / place(i, label) / name, i)
    return root


def nested(root):
    return folders(root, lambda i, label: label if i % 2 else f'{label}/session1/mic {i % 3}')


def other_case(root):
    return folders(root, lambda i, label: label if i % 3 else label.lower())


def stray(root):
    table(folders(root) / 'notes.csv', [['date', 'weather'], ['today', 'fine']])
    return root


def empty_label(root):
    (folders(root) / 'zebra').mkdir()
    return root


def text_label(root):
    put(folders(root) / 'zebra/notes.txt', data=b'none seen')
    return root


def broken_label(root):
    for k in range(3):
        put(folders(root) / f'zebra/{k}.wav', data=b'no sound at all')
    return root


def unknown_endings(root):
    put(folders(root) / 'Bass_drum/a.sph', 1)
    put(root / 'Double_bass/deep/b.zip', 2)
    put(root / 'README.md', data=b'x')
    return root


def loose(root):
    put(folders(root) / 'intro.wav', 55)
    return root


def dead_ends(root):
    folders(root)
    os.mkfifo(root / 'Bass_drum/pipe.wav')
    (root / 'Bass_drum/gone.wav').symlink_to(root / 'nowhere.wav')
    return root


def links(root):
    folders(root / 'sounds')
    put(root / 'far/zebra/1.wav', 50)
    put(root / 'far/zebra/2.wav', 51)
    (root / 'sounds/zebra').symlink_to(root / 'far/zebra')
    (root / 'sounds/A_first').symlink_to(root / 'sounds/Bass_drum')
    (root / 'sounds/Bass_drum/loop').symlink_to(root / 'sounds')
    (root / 'sounds/Bass_drum/up').symlink_to(root)
    return root / 'sounds'


def inner(root):
    folders(root / 'ESC-50-master' / 'audio')
    return root


# Lists


def listed(root, **options):
    for i, (_, name) in enumerate(CLIPS):
        put(root / 'audio' / name, i)
    rows = options.pop('rows', [['fname', 'label'], *([f'audio/{n}', label] for label, n in CLIPS)])
    place = root / options.pop('name', 'list.csv')
    table(place, rows, **options)
    return place


def one_column_each(root):
    "Which labels a clip has, as zeros and ones."
    head = ['fname', *LABELS, 'loud']
    rows = [[f'audio/{n}', *(int(x == label) for x in LABELS), i % 2] for i, (label, n) in enumerate(CLIPS)]
    return listed(root, rows=[head, *rows])


def with_column(name, value, *, row=lambda label, n: [f'audio/{n}', label], head='label'):
    "A list with one more column."

    def make(root):
        rows = [[*row(label, n), value(i)] for i, (label, n) in enumerate(CLIPS)]
        return listed(root, rows=[['fname', head, name], *rows])

    return make


def with_names(change, head='fname'):
    "A list that calls its files by other names."

    def make(root):
        return listed(root, rows=[[head, 'label'], *([change(n), label] for label, n in CLIPS)])

    return make


def with_labels(change, head='label'):
    "A list with other labels."

    def make(root):
        rows = [[f'audio/{n}', change(i, label)] for i, (label, n) in enumerate(CLIPS)]
        return listed(root, rows=[['fname', head], *rows])

    return make


def with_text(change, name='list.csv'):
    "A list whose text is changed as a whole."

    def make(root):
        path = listed(root)
        text = path.read_text()
        path.unlink()
        path.with_name(name).write_bytes(change(text).encode())
        return path.with_name(name)

    return make


def several_lists(*names):
    def make(root):
        rows = [[f'audio/{n}', label] for label, n in CLIPS]
        for k, name in enumerate(names):
            listed(root, name=name, rows=[['fname', 'label'], *rows[k :: len(names)]])
        return root

    return make


def given(content, name):
    def make(root):
        put(root / name, data=content)
        return root / name

    return make


# Sections of recordings of 2 s


def recordings(root, names=('night1.wav', 'night2.wav')):
    for k, name in enumerate(names):
        put(root / name, data=sound(7 + 20 * k, 2.0))
    return root


def section_rows():
    "File, start, end, label: a tenth of a second each, one label after the other."
    for night in ('night1.wav', 'night2.wav'):
        for k in range(9):
            yield night, k / 10, (k + 1) / 10, LABELS[k % 3]


def sections(head=('file', 'start', 'end', 'label'), change=lambda *row: row):
    def make(root):
        table(recordings(root) / 'events.csv', [head, *(change(*row) for row in section_rows())])
        return root / 'events.csv'

    return make


def raven(root):
    head = ['Selection', 'View', 'Channel', 'Begin Time (s)', 'End Time (s)', 'Low Freq (Hz)', 'Annotation']
    for night in ('night1', 'night2'):
        rows = []
        for k, (name, start, end, label) in enumerate(section_rows()):
            if name.startswith(night):
                views = ('Waveform 1', 'Spectrogram 1')
                rows += [[k + 1, view, 1, start, end, 200, label] for view in views]
        table(root / f'{night}.Table.1.selections.txt', [head, *rows], delimiter='\t')
    return recordings(root)


def raven_of_many(root):
    "One table of all files, opened in Raven as one sequence: its times go on, the offsets don't."
    head = ['Selection', 'Begin Time (s)', 'End Time (s)', 'Begin File', 'File Offset (s)', 'Species']
    rows = [
        [k + 1, start + 2 * (name == 'night2.wav'), end + 2 * (name == 'night2.wav'), name, start, label]
        for k, (name, start, end, label) in enumerate(section_rows())
    ]
    table(recordings(root) / 'all.txt', [head, *rows], delimiter='\t')
    return root / 'all.txt'


def audacity(root):
    for night in ('night1', 'night2'):
        lines = [
            f'{start:.6f}\t{end:.6f}\t{label}\n\\\t200.0\t900.0\n'
            for name, start, end, label in section_rows()
            if name.startswith(night)
        ]
        put(root / f'{night}.txt', data=''.join(lines).encode())
    return recordings(root)


def raven_line(number, name, start, end, label):
    return ('Selection\tView\tbegin time (s)\tend time (s)\tANNOTATION', f'{number}\tW 1\t{start}\t{end}\t{label}')


def audacity_line(number, name, start, end, label):
    return ('', f'{start:.6f}\t{end:.6f}\t{label}')


def birdnet_line(number, name, start, end, label):
    return (
        'Selection\tView\tBegin Time (s)\tEnd Time (s)\tCommon Name\tSpecies Code\tConfidence\tBegin Path\tFile Offset (s)',
        f'{number}\tSpectrogram 1\t{start}\t{end}\t{label}\tx\t0.8\tD:\\nights\\{name}\t{start}',
    )


def duration_line(number, name, start, end, label):
    return ('Selection\tBegin Time (s)\tDelta Time (s)\tAnnotation', f'{number}\t{start}\t{end - start}\t{label}')


def in_folders(line, table_name):
    "A recording a folder, and beside it its table."

    def make(root):
        for night in ('night1', 'night2'):
            lines = [line(k, *row) for k, row in enumerate(section_rows()) if row[0].startswith(night)]
            text = '\n'.join([lines[0][0], *(line for _, line in lines)]).strip()
            put(root / night / table_name.format(night), data=text.encode())
            put(root / night / f'{night}.wav', data=sound(len(night), 2.0))
        return root

    return make


ALL = {'clips': 30, 'labels': LABELS}
SECTIONS = {'clips': 18, 'labels': LABELS, 'files': 2, 'groups': 2, 'seconds': 0.1}

# What comes of each: clips, labels, test clips, folds, words of the description … or the words of the error
CASES = {
    # published layouts, from wherever they are entered
    'UrbanSound8K': (urbansound, ALL | {'folds': range(1, 11), 'groups': 15, 'say': 'UrbanSound8K'}),
    'UrbanSound8K/audio': (lambda p: urbansound(p) / 'audio', ALL | {'folds': range(1, 11)}),
    'UrbanSound8K/metadata': (lambda p: urbansound(p) / 'metadata', ALL | {'folds': range(1, 11)}),
    'UrbanSound8K.csv': (
        lambda p: urbansound(p) / 'metadata/UrbanSound8K.csv',
        ALL | {'folds': range(1, 11), 'groups': 15},
    ),
    'UrbanSound8K, as at Kaggle': (lambda p: urbansound(p, '', ''), ALL | {'folds': range(1, 11)}),
    'UrbanSound8K without its table': (
        lambda p: [urbansound(p), (p / 'metadata/UrbanSound8K.csv').unlink()][0],
        r'called like a split or a fold.*\(fold1',
    ),
    'a fold of UrbanSound8K': (lambda p: urbansound(p) / 'audio/fold1', {'clips': 4, 'folds': [1]}),
    'FSDKaggle2019': (fsd2019, ALL | {'clips': 20, 'verified': 10, 'say': 'FSDKaggle2019'}),
    'FSDKaggle2019 of Zenodo': (
        lambda p: fsd2019(p, zenodo=True),
        ALL | {'verified': 20, 'test': 10},
    ),
    'FSDKaggle2019/train_curated.csv': (
        lambda p: fsd2019(p) / 'train_curated.csv',
        ALL | {'clips': 10, 'verified': 10},
    ),
    'FSDKaggle2019/train_noisy': (
        lambda p: fsd2019(p) / 'train_noisy',
        ALL | {'clips': 10, 'verified': 0},
    ),
    'FSDKaggle2019, several labels': (
        lambda p: fsd2019(p, True),
        {
            'clips': 20,
            'verified': 10,
            'labels': [*LABELS[:2], 'Run', *LABELS[2:]],
            'several': 6,
            'say': 'curated clips count as verified, noisy ones as not',
        },
    ),
    'FSDKaggle2019/train_curated beside a noisy list of several labels': (
        lambda p: fsd2019(p, several=('train_noisy',)) / 'train_curated',
        ALL | {'clips': 10, 'verified': 10},
    ),
    'FSDKaggle2019/train_noisy of several labels': (
        lambda p: fsd2019(p, several=('train_noisy',)) / 'train_noisy',
        {'clips': 10, 'verified': 0, 'several': 3, 'say': '3 of 10 clips have several labels'},
    ),
    'FSD50K/FSD50K.dev_audio beside an eval list of several labels': (
        lambda p: fsd50k(p, several=('eval',)) / 'FSD50K.dev_audio',
        ALL | {'clips': 20},
    ),
    'FSD50K': (fsd50k, ALL | {'test': 10, 'own': 4, 'say': 'FSD50K'}),
    'FSD50K/dev.csv': (
        lambda p: fsd50k(p) / 'FSD50K.ground_truth/dev.csv',
        ALL | {'clips': 20, 'test': 0, 'own': 4},
    ),
    'FSD50K/FSD50K.dev_audio': (lambda p: fsd50k(p) / 'FSD50K.dev_audio', ALL | {'clips': 20}),
    'FSD50K, several labels': (
        lambda p: fsd50k(p, True),
        {'clips': 30, 'test': 10, 'own': 4, 'several': 30, 'say': '30 of 30 clips have several labels'},
    ),
    'Speech Commands': (
        speech_commands,
        {
            'clips': 20,
            'labels': ['no', 'yes'],
            'test': 4,
            'own': 4,
            'groups': 5,
            'say': '_background_noise_',
        },
    ),
    'BirdCLEF': (birdclef, ALL | {'say': 'taxonomy.csv'}),
    'BirdCLEF 2020': (lambda p: birdclef(p, 'train.csv', True, 'ebird_code'), ALL),
    'BirdCLEF, its table': (lambda p: birdclef(p) / 'train_metadata.csv', ALL),
    'ESC-50': (esc, ALL | {'folds': range(1, 6), 'groups': 30}),
    'ESC-50/audio': (lambda p: esc(p) / 'audio', ALL | {'folds': range(1, 6)}),
    'ESC-50, 1.0 and TRUE': (lambda p: esc(p, True), ALL | {'folds': range(1, 6)}),
    'train, valid, test': (tree, ALL | {'test': 7, 'own': 7}),
    'Training, VAL': (lambda p: tree(p, ('Training', 'VAL')), ALL | {'test': 0, 'own': 15}),
    'dev, eval': (lambda p: tree(p, ('dev', 'dev', 'eval')), ALL | {'test': 10, 'own': 0}),
    'train, dev, test': (lambda p: tree(p, ('train', 'dev', 'test')), ALL | {'test': 10, 'own': 10}),
    'train_audio, test_audio': (
        lambda p: tree(p, ('train_audio', 'test_audio')),
        ALL | {'test': 15, 'own': 0},
    ),
    'tree/train alone': (lambda p: tree(p) / 'train', ALL | {'clips': 16}),
    # splits and folds that are no labels
    'splits of sounds': (
        lambda p: folders(p, lambda i, label: ('train', 'valid', 'test')[i % 3]),
        r'called like a split.*\(test, train, valid\).*CSV',
    ),
    'folds of sounds': (
        lambda p: folders(p, lambda i, label: f'fold{i % 3}'),
        r'called like a split or a fold.*\(fold0',
    ),
    'folds of labels': (
        lambda p: folders(p, lambda i, label: f'Fold_{i % 3}/{label}'),
        r'called like a split or a fold.*\(Fold_0',
    ),
    'parts': (lambda p: folders(p, lambda i, label: f'part {i % 3}'), r'called like a split.*\(part 0'),
    'a split among labels': (
        lambda p: folders(p, lambda i, label: 'test' if i % 9 == 0 else label),
        r'called like a split.*\(test\).*rename what is a label',
    ),
    'splits within labels': (
        lambda p: folders(p, lambda i, label: f'{label}/{("train", "test")[i % 2]}'),
        r'within its folders.*\(test, train\).*train/LABEL',
    ),
    'FSD50K without its lists': (
        lambda p: folders(p, lambda i, label: f'FSD50K.{("dev", "eval")[i % 2]}_audio'),
        r'called like a split.*\(FSD50K.dev_audio, FSD50K.eval_audio\)',
    ),
    'several data sets': (
        lambda p: [urbansound(p / 'urban'), esc(p / 'esc'), p][-1],
        'holds data sets .esc, urban.',
    ),
    'sounds without labels': (
        lambda p: folders(p, lambda i, label: '.'),
        '30 sound files, and nothing says what is heard',
    ),
    'a folder audio without labels': (
        lambda p: folders(p, lambda i, label: 'audio'),
        '30 sound files, and nothing says what is heard',
    ),
    # folders
    'nested': (nested, ALL),
    'one folder in the other': (inner, ALL),
    'labels in other case': (other_case, ALL | {'say': 'taken as one'}),
    'a stray CSV': (stray, ALL | {'say': 'notes.csv'}),
    'an empty label': (empty_label, 'zebra.*add clips, or take the folder away'),
    'a label of text files': (text_label, 'zebra.*add clips, or take the folder away'),
    'other words before a split': (
        lambda p: tree(p, ('train-clean-100', 'dev-clean')),
        r'called like a split.*\(dev-clean, train-clean-100\)',
    ),
    'a tree with unlabelled test clips': (
        lambda p: [tree(p, ('train', 'val')), put(p / 'test/x.wav', 9)] and p,
        ALL | {'own': 15, 'test': 0, 'skipped': ['test/x.wav']},
    ),
    'Speech Commands without its lists': (
        lambda p: [speech_commands(p), *(f.unlink() for f in p.glob('*_list.txt'))] and p,
        {'clips': 20, 'labels': ['no', 'yes'], 'groups': 5, 'say': '_background_noise_'},
    ),
    'a link to nothing and a pipe': (
        dead_ends,
        ALL | {'skipped': ['Bass_drum/gone.wav', 'Bass_drum/pipe.wav']},
    ),
    'a name that is no text': (
        lambda p: put(folders(p) / os.fsdecode(b'Bass_drum/\xff.wav'), 3) or p,
        ALL | {'skipped': ['Bass_drum/\\udcff.wav'], 'say': 'rename it'},
    ),
    'an archive': (
        lambda p: put(folders(p) / 'Bass_drum/more.zip', data=b'PK') or p,
        ALL | {'skipped': ['Bass_drum/more.zip'], 'say': 'unpack it'},
    ),
    'a list that leaves a folder out': (
        lambda p: table(folders(p) / 'list.csv', [['file', 'label'], *([f'{l}/{n}', l] for l, n in CLIPS[:20])]) or p,
        {'clips': 20, 'labels': LABELS[:2], 'say': '10 sounds beside them, on no list'},
    ),
    'a workbook beside the sounds': (
        lambda p: [put(p / 'list.xlsx', data=b'PK\x03\x04' + bytes(50)), folders(p / 'audio', lambda i, l: '.')] and p,
        'list.xlsx: is an Excel workbook',
    ),
    'Latin-1 beside the sounds': (
        lambda p: [put(p / 'list.csv', data='file,label\na,Möwe\n'.encode('latin-1')), folders(p / 'audio', lambda i, l: '.')] and p,
        'list.csv: byte 14 is not UTF-8',
    ),
    'JSON': (given(b'[{"file": "a.wav", "label": "dog"}]', 'list.json'), 'is JSON; write the table as CSV'),
    'a page': (given(b'<!DOCTYPE html><html>404</html>', 'list.csv'), 'is a page or XML'),
    'cells in single quotes': (with_text(lambda t: '\n'.join(f"'{l}'".replace(',', "','") for l in t.split())), ALL),
    'two drives': (with_names(lambda n: ('C:\\a\\', 'D:\\b\\')[int(n[:2]) % 2] + n), ALL),
    'validation alone': (with_column('split', lambda i: 'val'), '30 clips.* and none to train on; call'),
    'a point in time': (
        sections(change=lambda f, a, b, label: (f, a, a, label)),
        'or at once .row 1',
    ),
    'a label of broken files': (broken_label, 'zebra can be used.*is not sound'),
    'unknown endings': (unknown_endings, ALL | {'skipped': ['Bass_drum/a.sph', 'Double_bass/deep/b.zip'], 'say': 'left out: 2 files'}),
    'a sound in no folder': (loose, ALL | {'skipped': ['intro.wav']}),
    'links': (links, {'clips': 32, 'labels': [*LABELS, 'zebra'], 'say': 'A_first'}),
    # lists
    'comma': (listed, ALL),
    'semicolon': (lambda p: listed(p, delimiter=';'), ALL),
    'tab': (lambda p: listed(p, delimiter='\t', name='list.tsv'), ALL),
    'bar': (lambda p: listed(p, delimiter='|'), ALL),
    'BOM and CRLF': (lambda p: listed(p, encoding='utf-8-sig', newline='\r\n'), ALL),
    'old Mac lines': (lambda p: listed(p, newline='\r'), ALL),
    'UTF-16': (lambda p: listed(p, encoding='utf-16'), ALL),
    'UTF-16 without BOM': (lambda p: listed(p, encoding='utf-16-le'), ALL),
    'Latin-1': (
        lambda p: listed(p, rows=[['fname', 'label'], ['audio/00ab.wav', 'Möwe']], encoding='latin-1'),
        'not UTF-8; save the file as UTF-8',
    ),
    'a remark above': (with_text(lambda t: '# our clips\n# of 2026\n' + t), ALL),
    'a column target': (with_labels(lambda i, label: label, 'target'), ALL),
    'columns of no name we know': (
        lambda p: [listed(p, name='my.csv', rows=[['sample', 'kind'], *([n, label] for label, n in CLIPS)]), p][-1],
        'nothing says what is heard.*my.csv: has the columns sample, kind, none of which names the file',
    ),
    'trailing commas': (with_text(lambda t: t.replace('\n', ',,\n')), ALL),
    'empty lines': (with_text(lambda t: '\n' + t.replace('\n', '\n\n') + ',\n'), ALL),
    'quotes': (with_text(lambda t: '\n'.join(f'"{l}"' for l in t.split())), ALL),
    'cells in quotes': (with_text(lambda t: t.replace(',', ' , ').replace('audio', '"audio').replace('.wav', '.wav"')), ALL),
    'sep=;': (with_text(lambda t: 'sep=;\n' + t.replace(',', ';')), ALL),
    'a quote that is left open': (
        with_text(lambda t: t.replace('audio/05', '"audio/05')),
        'line 7.*close its quotes',
    ),
    'no header': (with_text(lambda t: t.split('\n', 1)[1]), 'no header line.*fname,label'),
    'a comma too many': (with_text(lambda t: t.replace('Bass_drum', 'Bass,drum', 1)), 'line 2 has 3 cells.*quotes'),
    'columns twice': (with_column('label', lambda i: 'x'), 'several columns label'),
    'Windows paths': (with_names(lambda n: f'audio\\{n}'), ALL | {'say': 'on the disk differ'}),
    'a drive letter': (with_names(lambda n: f'C:\\Users\\me\\clips\\audio\\{n}'), ALL),
    'paths of another machine': (with_names(lambda n: f'/mnt/disk/clips/audio/{n}'), ALL),
    'no endings': (with_names(lambda n: f'audio/{n[:-4]}'), ALL),
    'other case': (with_names(lambda n: f'Audio/{n[:-4].upper()}.WAV', 'FileName'), ALL),
    'leading spaces': (with_names(lambda n: f'  audio/{n} '), ALL),
    'names alone': (with_names(lambda n: n), ALL),
    'in a folder above': (
        lambda p: listed(p, name='lists/list.csv', rows=[['fname', 'label'], *([f'../audio/{n}', label] for label, n in CLIPS)]),
        ALL,
    ),
    'elsewhere': (
        lambda p: [listed(p), table(p / 'lists/mine.csv', [['fname', 'label'], *([n, label] for label, n in CLIPS)])] and p / 'lists/mine.csv',
        r'30 of the 30 .* lies in .*/audio: give that by --audio',
    ),
    'nowhere': (with_names(lambda n: f'audio/x{n}'), '30 of the 30 listed training clips.*get the sound files'),
    'outside and not there': (with_names(lambda n: f'../gone/{n}'), 'outside its folder.*--audio'),
    'fold 1.0': (with_column('fold', lambda i: f'{i % 3 + 1}.0'), ALL | {'folds': [1, 2, 3]}),
    'fold names': (with_column('fold', lambda i: f'fold{i % 3 + 1}'), ALL | {'folds': [1, 2, 3]}),
    'fold A': (with_column('fold', lambda i: 'ABC'[i % 3]), 'fold says A, B, C; folds are whole numbers'),
    'split val': (with_column('split', lambda i: ('train', 'train', 'val', 'Test')[i % 4]), ALL | {'test': 7, 'own': 7}),
    'split recess': (with_column('split', lambda i: 'recess' if i else 'train'), 'split says recess'),
    'TRUE': (with_column('verified', lambda i: ('TRUE', 'False', '1', '0.0', 'yes')[i % 5]), ALL | {'verified': 18}),
    'verified perhaps': (with_column('verified', lambda i: 'perhaps'), 'verified says perhaps; write 1 or 0'),
    'nan for a label': (with_labels(lambda i, label: label if i % 5 else 'nan'), 'row 1, 6, 11.*"nan" is none'),
    'nan for a group': (with_column('group', lambda i: 'nan' if i % 2 else f'{i // 4}'), ALL | {'groups': 23}),
    'several labels': (
        with_labels(lambda i, label: label + (',Run_and_jump' if i % 2 else '')),
        {'clips': 30, 'several': 15, 'say': '15 of 30 clips have several labels'},
    ),
    'several labels by semicolon': (
        with_labels(lambda i, label: label + ('; Run' if i % 2 else '')),
        {'clips': 30, 'labels': [*LABELS[:2], 'Run', *LABELS[2:]], 'several': 15},
    ),
    'a column labels': (
        with_labels(lambda i, label: f"['{label}', 'Music']", 'labels'),
        {'clips': 30, 'several': 30},
    ),
    'a column a label': (one_column_each, {'clips': 30, 'labels': [*LABELS, 'loud'], 'several': 15}),
    'numbered columns': (
        with_column('label 2', lambda i: 'loud' if i % 2 else '', head='label 1'),
        {'clips': 30, 'labels': [*LABELS, 'loud'], 'several': 15},
    ),
    'a column labels with one': (with_labels(lambda i, label: f"['{label}']", 'labels'), ALL),
    'a file twice, two labels': (
        with_names(lambda n: f'audio/{"00ab.wav" if n in ("00ab.wav", "15ab.wav") else n}'),
        'more than once, with several labels',
    ),
    'a label with a comma': (
        with_labels(lambda i, label: label.replace('Double_bass', 'Speech, female')),
        {'clips': 30, 'labels': ['Bass_drum', 'Speech, female', 'Violin_or_fiddle']},
    ),
    'labels in several spellings': (
        with_labels(lambda i, label: (label, label.upper(), f' {label.replace("_", " ")}')[i % 3 if i % 4 == 0 else 0]),
        ALL | {'say': 'taken as one'},
    ),
    'Unicode forms': (
        with_labels(lambda i, label: ('Möwe', 'Mo\u0308we')[i % 2] if label == LABELS[0] else label),
        {'clips': 30, 'labels': ['Double_bass', 'Möwe', 'Violin_or_fiddle'], 'say': 'taken as one'},
    ),
    'several lists': (several_lists('a.csv', 'b.csv'), '2 lists of clips .a.csv, b.csv.; give the one you mean'),
    'train.csv, val.csv, test.csv': (several_lists('train.csv', 'val.csv', 'test.csv'), ALL | {'test': 10, 'own': 10}),
    'a list in metadata': (lambda p: listed(p, name='metadata/all.csv') and p, ALL),
    'a workbook': (given(b'PK\x03\x04' + bytes(99), 'list.xlsx'), 'Excel.*CSV UTF-8'),
    'a sound': (given(sound(0), 'dog.wav'), 'dog.wav: is a sound file and no list'),
    'a sound called csv': (given(sound(0), 'dog.csv'), 'dog.csv: is a sound file and no list'),
    'bytes': (given(os.urandom(64) + bytes(64), 'list.csv'), 'list.csv: .*(UTF|no text|sound file)'),
    'nothing in it': (given(b'', 'list.csv'), 'is empty, and not a CSV'),
    # sections of long recordings
    'start and end': (sections(), SECTIONS | {'say': 'sections'}),
    'onset and offset': (sections(('filename', 'onset', 'offset', 'event_label')), SECTIONS),
    'start and duration': (
        sections(('file', 'start', 'duration', 'label'), lambda f, a, b, label: (f, a, b - a, label)),
        SECTIONS,
    ),
    'clock times': (
        sections(change=lambda f, a, b, label: (f, f'0:00:{a:05.2f}', f'0:{b:05.2f}', label)),
        SECTIONS,
    ),
    'Raven': (raven, SECTIONS),
    'Raven, one of two': (lambda p: raven(p) / 'night1.Table.1.selections.txt', SECTIONS | {'clips': 9, 'files': 1, 'groups': 1}),
    'Raven, all in one': (raven_of_many, SECTIONS),
    'Audacity': (audacity, SECTIONS),
    'Audacity, one of two': (lambda p: audacity(p) / 'night2.txt', SECTIONS | {'clips': 9, 'files': 1, 'groups': 1}),
    'Audacity without its sound': (
        lambda p: [audacity(p), (p / 'night2.wav').unlink(), p / 'night2.txt'][-1],
        'night2.* missing|night2.*not there',
    ),
    'Raven, a folder a night': (in_folders(raven_line, '{}.Table.1.selections.txt'), SECTIONS | {'say': '2 tables beside'}),
    'Audacity, a folder a night': (in_folders(audacity_line, '{}.txt'), SECTIONS | {'say': '2 tables beside'}),
    'BirdNET, in Raven': (in_folders(birdnet_line, '{}.BirdNET.selection.table.txt'), SECTIONS),
    'Raven without an end': (in_folders(duration_line, '{}.Table.1.selections.txt'), SECTIONS),
    'Raven without a label': (
        lambda p: [recordings(p), put(p / 'night1.txt', data=b'Selection\tBegin Time (s)\tEnd Time (s)\n1\t0\t1\n')] and p,
        'night1.txt has the columns|night1.txt: has the columns Selection.*none of which names the label',
    ),
    'Kaleidoscope': (
        sections(
            ('INDIR', 'FOLDER', 'IN FILE', 'OFFSET', 'DURATION', 'TOP1MATCH', 'MANUAL ID'),
            lambda f, a, b, label: ('D:/', '', f, a, b - a, label if f == 'night1.wav' else 'Noise', '' if f == 'night1.wav' else label),
        ),
        SECTIONS,
    ),
    'semicolons and decimal commas': (
        lambda p: [
            recordings(p),
            put(p / 'e.csv', data='\n'.join(['DATEINAME;Start;END;Label'.replace('DATEINAME', 'FILE'), *(f'{f};{a};{b};{label}'.replace('.', ',').replace(',wav', '.wav') for f, a, b, label in section_rows())]).encode()),
        ] and p,
        SECTIONS,
    ),
    'end before start': (sections(change=lambda f, a, b, label: (f, b, a, label)), 'end before they begin, or at once .row 1'),
    'start alone': (sections(('file', 'start', 'x', 'label')), 'none for the other'),
    'dates': (sections(change=lambda f, a, b, label: (f, '2019-05-01', b, label)), 'start says 2019-05-01; give seconds'),
    'behind the end': (
        sections(change=lambda f, a, b, label: (f, a + (5 if a == 0 else 0), b + (5 if a == 0 else 0), label)),
        {'clips': 16, 'skipped': ['night1.wav#t=5,5.1', 'night2.wav#t=5,5.1'], 'say': 'its file ends at 2 s'},
    ),
    'two labels at once': (
        lambda p: [sections()(p), (p / 'events.csv').open('a').write('night1.wav,0.0,0.1,Fox\n'), p / 'events.csv'][-1],
        'more than once, with several labels',
    ),
}  # fmt: skip


def check(clips, wanted):
    "Compare clips with what the table says of them."
    t = clips.table
    own = t.fold[t.split == 'train']
    found = {
        'clips': len(clips),
        'labels': clips.labels,
        'test': (t.split == 'test').sum(),
        'verified': t.verified[t.split == 'train'].sum() if wanted.get('test') != 0 else None,
        'folds': sorted(own.dropna().unique()),
        'own': (own == 0).sum(),
        'groups': t.group.nunique(),
        'files': t.path.nunique(),
        'skipped': sorted(clips.skipped.fname),
    }
    if 'verified' in wanted:
        found['verified'] = t.verified.sum() if wanted['verified'] == 20 else found['verified']
    for name in wanted.keys() - {'say', 'seconds', 'several'}:
        value = list(wanted[name]) if name == 'folds' else wanted[name]
        assert found[name] == value, name
    assert clips.multilabel == ('several' in wanted)
    if clips.multilabel:
        assert (clips.targets.sum(1) > 1).sum() == wanted['several']
        assert clips.targets.sum() == len(clips.label_pairs)
    assert wanted.get('say', '') in ' '.join(clips.describe().split())
    if 'skipped' not in wanted:
        assert not len(clips.skipped)
    if 'seconds' in wanted:
        assert np.allclose(t.seconds, wanted['seconds'])
    assert all(path.is_file() for path in clips.paths)


@pytest.mark.parametrize('name', CASES)
def test_case(name, tmp_path):
    make, wanted = CASES[name]
    path = make(tmp_path / 'set')
    if isinstance(wanted, dict):
        clips = load_clips(path)
        check(clips, wanted)
        found = find_clips(clips.summary | clips.places)  # as a run does, later
        assert found.fingerprint == clips.fingerprint and found.labels == clips.labels
        return
    with pytest.raises(DataError, match=wanted) as e:
        load_clips(path)
    message = str(e.value)
    assert '\n' not in message and '; ' in message and str(tmp_path) in message


# What is heard in a section


@pytest.mark.parametrize('form', ['wav', 'flac', 'ogg', 'mp3'])
def test_a_section_is_heard_as_if_it_were_a_file(tmp_path, form):
    "In every format, one after the other or alone, its features those of a file of its own."
    import soundfile as sf

    rng = np.random.default_rng(0)
    y = rng.uniform(-0.5, 0.5, (3 * 16000, 2)).astype('float32')
    sf.write(tmp_path / f'night.{form}', y, 16000)
    rows = [['file', 'start', 'end', 'label'], ['night', '0.25', '0.75', 'owl'], ['night', '1.5', '', 'fox']]
    table(tmp_path / 'list.csv', rows)
    clips = load_clips(tmp_path / 'list.csv')
    whole, sr = load_audio(tmp_path / f'night.{form}')
    assert list(clips.table.index) == [f'night.{form}#t=0.25,0.75', f'night.{form}#t=1.5']
    tolerance = 1e-2 if form in ('ogg', 'mp3') else 1e-4  # the mean of a part is not that of the whole
    for i, (a, b) in enumerate([(4000, 12000), (24000, len(whole))]):
        part, rate = clips.load(i)
        assert rate == sr and abs(len(part) - (b - a)) <= 1
        n = min(len(part), b - a)
        assert np.abs(part[:n] - whole[a : a + n]).max() < tolerance
    store = prepare_data(clips, LogMel(sr=16000), cache=tmp_path / 'cache', progress=False, n_jobs=1)
    np.testing.assert_array_equal(store.get(0), LogMel(sr=16000)(clips.load(0)[0]))
    assert len(store) == 2 and len(store.skipped) == 0
    again = prepare_data(clips.subset([False, True]), LogMel(sr=16000), cache=tmp_path / 'cache', progress=False)
    np.testing.assert_array_equal(again.get(0), store.get(1))


def test_no_fold_is_examined_on_a_night_it_was_taught(tmp_path):
    names = [f'night{k}.wav' for k in range(6)]
    recordings(tmp_path, names)
    rows = [[n, k / 10, (k + 1) / 10, LABELS[k % 3]] for n in names for k in range(6)]
    table(tmp_path / 'list.csv', [['file', 'start', 'end', 'label'], *rows])
    clips = load_clips(tmp_path)
    folds = make_folds(clips, 3)
    assert folds.groupby(clips.table.path).nunique().eq(1).all() and folds.nunique() == 3
    moved = rows[0][:1] + [0.0, 0.2, LABELS[0]]
    table(tmp_path / 'list.csv', [['file', 'start', 'end', 'label'], moved, *rows[1:]])
    assert load_clips(tmp_path).fingerprint != clips.fingerprint  # other times, other data


def test_the_validation_part_is_one_fold_and_the_rest_is_dealt(tmp_path):
    clips = load_clips(tree(tmp_path))
    folds = make_folds(clips, 4)
    valid = clips.train.table.path.str.startswith('valid')
    assert (folds[valid] == 0).all() and sorted(folds[~valid].unique()) == [1, 2, 3]
    assert sorted(make_folds(clips, 2).unique()) == [0, 1]  # that of the authors, and its reverse
    speakers = load_clips(speech_commands(tmp_path / 'words'))
    folds = make_folds(speakers, 3)
    assert folds.groupby(speakers.train.table.group).nunique().eq(1).all()
    assert set(speakers.test.table.group) == {'0d4'} and (folds == 0).sum() == 4


# What is left out, and found again


def test_a_clip_in_a_read_file_is_never_lost(tmp_path):
    "Those that are missing, broken or of no known format are named, each with its reason."
    folders(tmp_path / 'set')
    put(tmp_path / 'set/Bass_drum/odd.sph', 1)
    rows = [[f'{label}/{name}', label] for label, name in CLIPS]
    table(tmp_path / 'set/list.csv', [['file', 'label'], *rows, ['gone.wav', 'Bass_drum']])
    with pytest.raises(DataError, match='1 of the 31 listed training clips.*--allow-missing'):
        load_clips(tmp_path / 'set/list.csv')
    clips = load_clips(tmp_path / 'set/list.csv', allow_missing=True)
    assert clips.skipped.fname.tolist() == ['gone.wav'] and 'left out: 1 file' in clips.describe()
    assert clips.skipped.reason[0] == 'gone.wav: is listed and not there; get the file'
    table(tmp_path / 'set/list.csv', [['file', 'label'], *rows, ['gone.wav', 'zebra']])
    clips = load_clips(tmp_path / 'set/list.csv', allow_missing=True)
    assert clips.labels == LABELS and 'without a clip that is there: zebra' in clips.describe()
    table(tmp_path / 'set/list.csv', [['file', 'label'], *rows[1:]])
    assert '1 sound beside them, on no list: Bass_drum/00ab.wav' in load_clips(tmp_path / 'set').describe()


def test_a_list_and_its_clips_apart(tmp_path):
    table(tmp_path / 'lists/mine.csv', [['fname', 'label'], *([n, label] for label, n in CLIPS)])
    for i, (_, name) in enumerate(CLIPS):
        put(tmp_path / 'far/away/clips' / name, i)
    with pytest.raises(DataError, match='30 of the 30 listed'):
        load_clips(tmp_path / 'lists/mine.csv')
    clips = load_clips(tmp_path / 'lists/mine.csv', audio=tmp_path / 'far/away/clips')
    assert len(clips) == 30 and clips.root == tmp_path / 'far/away/clips'
    assert len(load_clips(tmp_path / 'lists', audio=tmp_path / 'far')) == 30
    with pytest.raises(DataError, match='no such folder'):
        load_clips(tmp_path / 'lists/mine.csv', audio=tmp_path / 'gone')


def test_two_files_for_one_name(tmp_path):
    put(tmp_path / 'a.wav')
    put(tmp_path / 'a.flac')
    table(tmp_path / 'list.csv', [['file', 'label'], ['A', 'dog']])
    with pytest.raises(DataError, match='A may be .*a.flac.*write its folder and its ending'):
        load_clips(tmp_path / 'list.csv')


def test_cat_is_never_found_as_dog(tmp_path):
    "A file of the same name in another folder is another file."
    put(tmp_path / 'dog/1.wav')
    table(tmp_path / 'list.csv', [['file', 'label'], ['cat/1.wav', 'cat'], ['dog\\1.wav', 'dog']])
    clips = load_clips(tmp_path / 'list.csv', allow_missing=True)
    assert clips.table.path.tolist() == ['dog/1.wav'] and clips.labels == ['dog']


def test_it_prints_what_it_understood(tmp_path):
    text = repr(load_clips(speech_commands(tmp_path / 'words')))
    assert text.splitlines()[0] == 'Speech Commands: 20 clips, 2 labels, read as Speech Commands'
    for words in ('no 10, yes 10', '16 to train on, 4 for the test', 'validation', '_background_noise_'):
        assert words in text
    assert max(map(len, text.splitlines())) <= 100 and isinstance(load_clips(tmp_path), Clips)


def test_folders_are_found_again_when_a_list_has_come_to_them(tmp_path):
    clips = load_clips(folders(tmp_path / 'set'))
    table(tmp_path / 'set/new.csv', [['file', 'label'], ['Bass_drum/00ab.wav', 'dog']])
    assert find_clips(clips.summary | clips.places).fingerprint == clips.fingerprint
    assert len(load_clips(tmp_path / 'set')) == 1


# The command


def command(*words):
    "Exit code, stdout and stderr of a command."
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = main([str(word) for word in words])
    return code, out.getvalue(), err.getvalue()


def train(data, out, *more):
    settings = '--recipe post --folds 2 --epochs 1'.split()
    with at_once(), patch.dict(NETWORKS, post_cnn=small_cnn):
        return command('train', data, *settings, '--out', out, *more)


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('SOUNDTAG_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


def test_train_says_what_it_understood_and_names_what_it_left_out(tmp_path):
    code, out, err = train(unknown_endings(tmp_path / 'set'), tmp_path / 'run')
    said = err.splitlines()
    assert code == 1 and said[0] == 'set: 30 clips, 3 labels, read as a folder a label'
    assert 'left out: 2 files' in err and 'clips skipped: 2' in err
    skipped = (tmp_path / 'run/skipped.csv').read_text()
    assert 'Bass_drum/a.sph' in skipped and 'Double_bass/deep/b.zip' in skipped
    assert 'Double_bass/deep/b.zip' in (tmp_path / 'run/report.html').read_text()
    code, out, err = command('tag', tmp_path / 'set/Bass_drum', '--model', 'bundled')
    assert code == 1 and 'a.sph' in err and out.count('.wav: ') == 10
    assert train(urbansound(tmp_path / 'urban', folds=2), tmp_path / 'urban_run')[0] == 0


def test_a_run_remembers_its_list(tmp_path):
    "Also when there are others beside it, when it has got another name, and when all has moved."
    home = tmp_path / 'set'
    path = listed(home, name='mine.csv')
    listed(home, name='yours.csv', rows=[['fname', 'label'], ['audio/00ab.wav', 'dog']])
    run = tmp_path / 'run'
    assert train(path, run)[0] == 0
    metrics = read_json(run / 'metrics.json')
    assert command('report', run)[0] == 0
    path.rename(home / 'renamed.csv')
    assert command('report', run)[0] == 0
    home.rename(tmp_path / 'moved')
    code, _, err = command('report', run)
    assert code == 2 and f'put it back, or say where it is: soundtag report {run} --data' in err
    code, _, err = command('report', run, '--data', tmp_path / 'moved/yours.csv')
    assert code == 2 and 'is not the data set' in err
    assert command('report', run, '--data', tmp_path / 'moved/renamed.csv')[0] == 0
    assert command('report', run)[0] == 0  # it remembers
    assert read_json(run / 'metrics.json')['metrics'] == metrics['metrics']
    (tmp_path / 'moved').rename(tmp_path / 'again')
    assert command('report', run)[0] == 2
    (tmp_path / 'again').rename(tmp_path / 'moved')
    model = (run / 'best_0.keras').stat().st_mtime_ns
    assert train(tmp_path / 'moved/renamed.csv', run)[0] == 0  # nothing is trained again
    assert (run / 'best_0.keras').stat().st_mtime_ns == model
    assert command('report', run)[0] == 0
    assert read_json(run / 'metrics.json')['metrics'] == metrics['metrics']
    code, _, err = train(tmp_path / 'moved/yours.csv', run)
    assert code == 2


def test_a_list_is_given_the_folder_of_its_sounds(tmp_path):
    rows = [[n, label] for label, n in CLIPS]
    listed(tmp_path / 'set', name='../lists/mine.csv', rows=[['fname', 'label'], *rows])
    path = tmp_path / 'lists/mine.csv'
    code, _, err = train(path, tmp_path / 'run')
    assert code == 2 and '--audio' in err
    assert train(path, tmp_path / 'run', '--audio', tmp_path / 'set/audio')[0] == 0
    assert command('report', tmp_path / 'run')[0] == 0


def test_sections_are_trained_on_and_played_in_the_report(tmp_path):
    names = [f'night{k}.wav' for k in range(4)]
    recordings(tmp_path / 'set', names)
    rows = [[n, k / 10, (k + 1) / 10, LABELS[k % 3]] for n in names for k in range(9)]
    rows.append(['night0.wav', 7, 8, LABELS[0]])
    table(tmp_path / 'set/list.csv', [['file', 'start', 'end', 'label'], *rows])
    code, out, err = train(tmp_path / 'set/list.csv', tmp_path / 'run')
    assert code == 1 and 'begins at 7 s, and its file ends at 2 s' in err
    assert 'night0.wav#t=7,8' in (tmp_path / 'run/skipped.csv').read_text()
    assert 'night1.wav#t=0,0.1' in (tmp_path / 'run/folds.csv').read_text()


def test_a_label_whose_clips_all_fail_is_refused_by_name(tmp_path):
    "Their headers are fine, but they are silent."
    for k in range(3):
        put(folders(tmp_path / 'set') / f'zebra/{k}.wav', data=wav_bytes(np.zeros(800), sr=8000))
    code, _, err = train(tmp_path / 'set', tmp_path / 'run')
    assert code == 2 and 'no clip of zebra can be used' in err and 'is silent' in err
