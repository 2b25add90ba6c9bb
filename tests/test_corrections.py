"Chapters 02b and 06h: what somebody heard comes back into the data, and which labels to doubt."

import json

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from test_pretrained import WEIGHTS, write_h5

from soundtag.corrections import correct_clips
from soundtag.dataset import load_clips
from soundtag.pretrained import Embedding
from soundtag.recipe import LinearRecipe, RunError
from soundtag.report import write_report
from soundtag.results import load_run, run_clips, true_labels
from soundtag.suspects import find_suspects
from soundtag.tables import DataError
from soundtag.training import train_folds

SR = 8000


def write_tones(root, wrong=()):
    "A tone, noise and bursts, which the poorest network tells apart; some under a wrong label."
    rng = np.random.default_rng(0)
    rows = []
    for j, label in enumerate(('high', 'low', 'middle')):
        for i in range(12):
            name = f'{label[0]}{i}.wav'
            phase = 2 * np.pi * np.arange(SR) / SR * rng.uniform(0.98, 1.02)
            noise = rng.normal(0, 1, SR)
            y = np.sin(2000 * phase), noise, noise * (np.sin(5 * phase) > 0.9)
            y = y[j] + rng.normal(0, 0.01, SR)
            (root / 'audio').mkdir(parents=True, exist_ok=True)
            sf.write(root / 'audio' / name, 0.2 * y, SR)
            rows.append((f'audio/{name}', 'low' if name in wrong else label))
    pd.DataFrame(rows, columns=['fname', 'label']).to_csv(root / 'clips.csv', index=False)
    return root / 'clips.csv'


@pytest.fixture
def tones(tmp_path):
    return load_clips(write_tones(tmp_path / 'tones'))


def table(path, rows, head='fname,correction'):
    path.write_text('\n'.join([head, *rows]) + '\n')
    return path


def test_each_word_does_what_it_says(tones, tmp_path):
    a, b, c, d, e = tones.table.index[:5]
    rows = [f'{a},low', f'{b},', f'{c},remove', f'{d},HIGH', f'{e},Delete']
    better = correct_clips(tones, table(tmp_path / 'c.csv', rows))
    assert better.table.label[a] == 'low' and better.table.label[b] == 'high'
    assert list(tones.table.index.difference(better.table.index)) == sorted([c, e])
    assert '1 label changed, 1 confirmed, 2 clips taken out' in better.describe()
    assert better.corrections == ((a, 'low'), (c, 'remove'), (d, 'high'), (e, 'remove'))
    assert len(tones) == 36 and tones.table.label[a] == 'high'


def test_clips_go_by_name_and_by_path(tmp_path):
    for name in ('high/1', 'high/2', 'low/1', 'low/2'):
        (tmp_path / 'd' / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(tmp_path / f'd/{name}.wav', np.sin(np.arange(4000.0)), SR)
    sections = table(
        tmp_path / 'd/list.csv',
        ['high/1.wav,0,0.2,a', 'high/1.wav,0.2,0.4,b', 'low/1.wav,,,b', 'low/2.wav,,,a'],
        'fname,start,end,label',
    )
    clips = load_clips(sections)
    part, whole = clips.table.index[0], clips.table.index[2]
    path = clips.table.path[whole]
    better = correct_clips(clips, [(part, 'b'), (path, 'a')])
    assert better.table.label[[part, whole]].tolist() == ['b', 'a']
    with pytest.raises(DataError, match='does not hold'):  # two clips are in this file
        correct_clips(clips, [('high/1.wav', 'b')])


@pytest.mark.parametrize(
    'rows, words',
    [
        (['x.wav,low'], 'names 1 clip that clips does not hold (x.wav); write them as in'),
        (['x.wav,', 'y.wav,'], 'names 2 clips'),
        (['{a},lwo'], 'corrects to lwo, and clips has no such label; write low, or remove'),
        (['{a},thunder'], 'choose among high, low, middle, or remove'),
        (['{a},low', '{a},middle'], 'corrects {a} to low and to middle; keep one row'),
        (['{a},low;middle'], 'corrects to low;middle'),
    ],
)
def test_slips_are_told_in_one_line(rows, words, tones, tmp_path):
    a = tones.table.index[0]
    path = table(tmp_path / 'c.csv', [row.format(a=a) for row in rows])
    with pytest.raises(DataError) as e:
        correct_clips(tones, path)
    assert str(e.value).startswith(f'{path}: ') and '\n' not in str(e.value)
    assert words.format(a=a) in str(e.value)


def test_a_table_without_the_columns_is_refused(tones, tmp_path):
    for head, words in (('fname,label', 'none called correction'), ('x,correction', 'names the')):
        with pytest.raises(DataError, match=words):
            correct_clips(tones, table(tmp_path / 'c.csv', ['a,b'], head))
    with pytest.raises(DataError, match='cannot be read'):
        correct_clips(tones, tmp_path / 'none.csv')


def test_taking_out_what_is_needed_is_refused(tones):
    with pytest.raises(DataError, match='takes every clip out'):
        correct_clips(tones, [(name, 'remove') for name in tones.table.index])
    fewer = correct_clips(
        tones, [(n, 'remove') for n in tones.table.index[tones.table.label == 'high']]
    )
    assert fewer.labels == ['low', 'middle'] and 'no clip is left of high' in fewer.notes[-1]


def accuracy(run, truth):
    return float((run.oof.argmax(1) == true_labels(run, truth)).mean())


def test_planted_errors_are_suspected_corrected_and_unlearned(tmp_path, monkeypatch):
    """Wrong labels are found by the report of a run, and a run on the corrected list is as good as
    one that never met them; it remembers its corrections, and resumes with them alone."""
    monkeypatch.setenv('SOUNDTAG_CACHE', str(tmp_path / 'cache'))
    weights = str(write_h5(tmp_path / 'yamnet.h5', WEIGHTS))
    features = Embedding(hop=0.96, shortest=1.1, copies=0, weights=weights)
    recipe = LinearRecipe(name='ears', features=features)
    planted = ['h0.wav', 'm3.wav', 'm7.wav', 'h9.wav']
    path = write_tones(tmp_path / 'tones', planted)
    clips = load_clips(path)
    truth = load_clips(write_tones(tmp_path / 'truth'))
    options = {'folds': 3, 'progress': False}
    run = load_run(train_folds(clips, recipe, out=tmp_path / 'run', **options))
    write_report(run, clips=clips)
    listed = pd.read_csv(tmp_path / 'run/suspects.csv', dtype=str, keep_default_na=False)
    wrong = [f'audio/{name}' for name in planted]
    assert set(listed.fname[: len(wrong)]) == set(wrong)
    assert (listed.label[: len(wrong)] == 'low').all()

    listed['correction'] = truth.table.label[listed.fname].to_numpy()
    listed.to_csv(tmp_path / 'corrected.csv', index=False)
    better = correct_clips(clips, tmp_path / 'corrected.csv')
    out = tmp_path / 'better'
    again = load_run(train_folds(better, recipe, out=out, **options))
    clean = load_run(train_folds(truth, recipe, out=tmp_path / 'clean', **options))
    by_wrong = (run.oof.argmax(1) == true_labels(run, clips)).mean()
    assert by_wrong < accuracy(again, truth) == accuracy(clean, truth)
    assert (again.oof.argmax(1) == true_labels(again, better)).mean() == accuracy(again, truth)

    (tmp_path / 'corrected.csv').unlink()  # the run knows what it learned from
    assert run_clips(again).fingerprint == better.fingerprint
    assert 'changed' in write_report(again).read_text('utf-8')
    config = json.loads((out / 'config.json').read_text())
    assert dict(config['corrections'])[wrong[0]] == 'high'
    before = (out / 'predictions/oof.npy').read_bytes()
    (out / 'predictions/oof.npy').unlink()
    (out / 'predictions/predictions_1.csv').unlink()
    train_folds(better, recipe, out=out, **options)
    assert (out / 'predictions/oof.npy').read_bytes() == before
    with pytest.raises(RunError, match='corrections: 4 there, 0 here'):
        train_folds(clips, recipe, out=out, **options)


@pytest.mark.parametrize('seed', range(3))
def test_suspects_agree_with_a_plain_definition(seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(4, size=200)
    p = rng.dirichlet(np.ones(4), 200) * 0.5 + 0.5 * np.eye(4)[rng.integers(4, size=200)]
    names = [f'{i}.wav' for i in range(200)]
    found = find_suspects(names, y, p, list('abcd'))
    # Whatever the temperature, the order by ratio is that of the untouched probabilities
    ratio = {}
    for name, j, row in zip(names, y, p):
        others = [x for k, x in enumerate(row) if k != j]
        ratio[name] = max(others) / row[j]
    order = sorted(ratio, key=lambda name: -ratio[name])
    assert list(found.index) == order[: len(found)]
    assert (found.probability / found.p_label >= 2).all()
    assert all('abcd'[y[names.index(n)]] == label for n, label in found.label.items())
    assert all('abcd'[p[names.index(n)].argmax()] == label for n, label in found.suggested.items())


def test_the_study_keeps_what_was_promised(root):
    esc = json.loads((root / 'nbs/results/suspects.json').read_text('utf-8'))['ESC-10']
    reports = [draw['report'] for draw in esc['draws'].values()]
    assert len(reports) == 3 and esc['share'] == 0.1
    assert np.mean([r['head'] for r in reports]) >= 0.93
    assert np.mean([r['recall'] for r in reports]) >= 0.97


def test_a_corrected_run_is_found_again_where_its_sounds_went(tmp_path, monkeypatch, capsys):
    from test_results import write_data, write_run

    from soundtag.cli import main

    monkeypatch.setenv('SOUNDTAG_CACHE', str(tmp_path / 'cache'))
    clips = load_clips(write_data(tmp_path / 'data'))
    better = correct_clips(clips, [('train00.wav', 'Hi-hat'), ('train01.wav', 'remove')])
    out = write_run(tmp_path / 'run', better)
    config = json.loads((out / 'config.json').read_text())
    config['corrections'] = [list(pair) for pair in better.corrections]
    (out / 'config.json').write_text(json.dumps(config))
    (tmp_path / 'data').rename(tmp_path / 'moved')
    assert main(['report', str(out)]) == 2
    assert main(['report', str(out), '--data', str(tmp_path / 'moved')]) == 0
    assert main(['report', str(out)]) == 0  # it remembers the place, and its corrections
    assert main(['report', str(out), str(out)]) == 0
    assert 'No difference' in capsys.readouterr().out
    assert (out / 'compared_with_run.html').exists()
