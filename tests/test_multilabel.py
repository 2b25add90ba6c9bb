"Clips with several labels, from the list to the exported file."

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from test_linear import write_h5
from test_pretrained import WEIGHTS
from test_training import FIXED, SR

from soundtag.audio import wav_bytes
from soundtag.card import model_card, write_card
from soundtag.classifier import SoundClassifier
from soundtag.comparison import pair_answers
from soundtag.console import score_table
from soundtag.corrections import correct_clips
from soundtag.dataset import DataError, count_labels, load_clips, make_folds, merge
from soundtag.export import export
from soundtag.fitting import trusted_rows
from soundtag.metrics import geometric_mean, lwlrap, mean_average_precision
from soundtag.multilabel import cross_fitted_answers, fit_thresholds
from soundtag.pretrained import Embedding
from soundtag.recipe import RECIPES, RunError
from soundtag.report import write_report
from soundtag.results import fold_clips, load_run, true_labels, write_metrics
from soundtag.suspects import find_suspects
from soundtag.tagging import ModelError, load_tagger
from soundtag.teach import teach
from soundtag.timeline import timeline
from soundtag.training import train_folds

LABELS = 'buzz', 'hiss', 'tone'


def sound(names, rng, seconds=0.6):
    "All of some labels at once, each at a level of its own."
    t = np.arange(int(SR * seconds)) / SR
    parts = {
        'buzz': 0.3 * np.sign(np.sin(2 * np.pi * rng.uniform(90, 130) * t)),
        'hiss': 0.2 * np.diff(rng.normal(size=len(t) + 1)),
        'tone': 0.3 * np.sin(2 * np.pi * rng.uniform(900, 1100) * t),
    }
    return sum(rng.uniform(0.5, 1) * parts[name] for name in names) / 2


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    "Forty clips of one to three labels, in the form of FSDKaggle2019, recordings of two clips each."
    root = tmp_path_factory.mktemp('several')
    rng = np.random.default_rng(0)
    rows = ['fname,labels,group,split,verified']
    for i in range(40):
        names = [name for k, name in enumerate(LABELS) if 1 + i // 2 % 7 >> k & 1]
        (root / f'{i:02}.wav').write_bytes(wav_bytes(sound(names, rng), sr=SR))
        listed = names[::-1] if i != 3 else ['tone']  # one is wrong, and nobody has checked it
        rows.append(f'{i:02}.wav,"{",".join(listed)}",r{i // 2},{"test" if i > 35 else "train"},{int(i > 8)}')
    (root / 'list.csv').write_text('\n'.join(rows) + '\n')
    return load_clips(root / 'list.csv')


@pytest.fixture(scope='module')
def run(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    recipe = replace(FIXED, epochs=8, learning_rate=1e-2, relabel_epochs=0.0)
    out = train_folds(clips, recipe, 2, folder / 'net', cache=folder / 'cache', progress=False)
    return out, write_metrics(load_run(out), clips, cache=folder / 'cache')


@pytest.fixture(scope='module')
def linear_run(clips, tmp_path_factory):
    folder = tmp_path_factory.mktemp('linear')
    write_h5(folder / 'yamnet.h5', WEIGHTS)
    weights = str(folder / 'yamnet.h5')
    features = Embedding(hop=0.96, shortest=1.1, copies=1, least_score=1e-4, weights=weights)
    recipe = replace(RECIPES['pretrained'], features=features)
    out = train_folds(clips, recipe, 2, folder / 'run', cache=folder / 'cache', progress=False)
    return out, write_metrics(load_run(out), clips, cache=folder / 'cache'), recipe, folder


def published_lwlrap(truth, scores):
    "As the organisers of FSDKaggle2019 wrote it: precision at each hit, by label, weighted by its clips."
    by_clip = np.zeros(truth.shape)
    for i, (true, p) in enumerate(zip(truth > 0, scores)):
        if not true.any():
            continue
        ranked = np.argsort(p)[::-1]
        place = np.zeros(len(p), int)
        place[ranked] = range(len(p))
        hits = np.zeros(len(p), bool)
        hits[place[true]] = True
        by_clip[i, true] = np.cumsum(hits)[place[true]] / (1.0 + place[true])
    number = (truth > 0).sum(0)
    each = by_clip.sum(0) / np.maximum(1, number)
    return (each * number / number.sum()).sum()


@pytest.mark.parametrize('share', [0.02, 0.1, 0.6])
def test_lwlrap_is_the_one_of_the_competition(share):
    rng = np.random.default_rng(0)
    truth = (rng.random((300, 80)) < share).astype(int)
    p = rng.random((300, 80)) + truth * rng.random((300, 80))
    assert abs(lwlrap(truth, p) - published_lwlrap(truth, p)) < 1e-9
    one = np.eye(80, dtype=int)[rng.integers(80, size=300)]
    assert abs(lwlrap(one.argmax(1), p) - published_lwlrap(one, p)) < 1e-9


def test_the_list_is_read_and_its_folds_keep_recordings_and_labels_together(clips):
    assert clips.multilabel and clips.labels == sorted(LABELS)
    assert clips.table.label['04.wav'] == 'buzz,hiss' and clips.targets.sum() > len(clips) + 10
    with pytest.raises(DataError, match='ask for targets'):
        clips.y
    fold = make_folds(clips, 3)
    train = clips.train
    assert fold.groupby(train.table.group).nunique().max() == 1
    shares = np.stack([train.targets[fold == k].mean(0) for k in range(3)])
    assert np.ptp(shares, axis=0).max() < 0.2
    assert count_labels(clips)['train'].sum() == train.targets.sum()
    assert 'tone' in clips._repr_html_() and clips.negatives == ()
    with pytest.raises(DataError, match='tone.* would be missing'):
        make_folds(clips.subset([n for n in clips.table.index if 'tone' not in clips.table.label[n]] + ['06.wav']), 3)
    with pytest.raises(DataError, match='each label is a yes or no'):
        load_clips(clips.source, negatives=['hiss'])


def test_a_set_with_one_label_a_clip_and_one_with_several(clips, tmp_path):
    for i in range(4):
        (tmp_path / f'{"cat" if i % 2 else "tone"}').mkdir(exist_ok=True)
        (tmp_path / f'{"cat" if i % 2 else "tone"}/{i}.wav').write_bytes(wav_bytes(np.ones(800) / 2, sr=SR))
    both = merge(clips, load_clips(tmp_path), name='both', folds=2)
    assert both.multilabel and both.labels == ['buzz', 'cat', 'hiss', 'tone']
    assert both.targets[-4:].sum(1).tolist() == [1, 1, 1, 1]


def test_corrections_name_several_labels(clips):
    better = correct_clips(clips, [('03.wav', 'hiss; buzz'), ('05.wav', 'remove')])
    assert better.table.label['03.wav'] == 'buzz,hiss' and len(better) == len(clips) - 1
    with pytest.raises(DataError, match='no such label'):
        correct_clips(clips, [('03.wav', 'buzz,howl')])


@pytest.mark.parametrize('which', ['run', 'linear_run'])
def test_a_run_learns_each_label_by_itself(which, request, clips):
    out, metrics, *_ = request.getfixturevalue(which)
    run = load_run(out)
    assert run.config['multilabel'] is True and metrics['multilabel'] is True
    y = clips.subset(list(run.folds.index)).targets.astype(int)
    assert np.ptp(run.oof.sum(1)) > 0.5 and run.oof.sum(1).max() > 1.2  # no softmax
    assert metrics['metrics']['lwlrap']['mean'] > metrics['baselines']['chance']['lwlrap']['mean']
    scores = [mean_average_precision(y[run.folds == k], run.oof[run.folds == k]) for k in (0, 1)]
    assert metrics['metrics']['map']['folds'] == scores
    together = geometric_mean(list(run.test.values()), multilabel=True)
    truth = clips.test.targets.astype(int)
    assert metrics['test']['together']['lwlrap'] == lwlrap(truth, together)
    own = json.loads((out / 'thresholds.json').read_text())
    assert list(own.values()) == fit_thresholds(y, run.oof).tolist()
    named = cross_fitted_answers(y, run.oof, run.folds.to_numpy())
    assert metrics['answers']['recall'] == (named & (y > 0)).sum() / y.sum()
    first = (out / 'predictions/predictions.csv').read_text().splitlines()
    assert first[0] == 'fname,label' and len(first[1].split(',')[1].split()) == 3
    assert 'lwlrap' in score_table(metrics) and 'lwlrap' in run._repr_html_()


def test_its_report_plays_the_labels_that_are_probably_wrong(run, clips, tmp_path):
    out = tmp_path / 'run'
    shutil.copytree(run[0], out)
    run = load_run(out)
    names = run.folds.index
    truth = fold_clips(run, clips).targets.astype(int)
    p = np.where(truth > 0, 0.9, 0.1)  # made up: a model that knows
    both, one = (np.flatnonzero(truth.sum(1) == n)[0] for n in (2, 1))
    label = clips.table.label.copy()
    label[names[both]] = label[names[both]].split(',')[0]  # one too few
    label[names[one]] = next(x for x in LABELS if x != label[names[one]])  # another in its place
    spoiled = replace(clips, table=clips.table.assign(label=label))
    data = run.config['data'] | {'fingerprint': spoiled.fingerprint}
    run = replace(run, oof=p, config=run.config | {'data': data})
    suspects = find_suspects(names, true_labels(run, spoiled), p, run.labels)
    assert suspects.index.tolist() == [names[one], names[both]]
    assert suspects.suggested.tolist() == [clips.table.label[name] for name in suspects.index]
    page = write_report(run, write_metrics(run, spoiled), spoiled, worst=1).read_text('utf-8')
    part = page[page.index('id="suspects"') : page.index('id="mistakes"')]
    assert part.count('<audio') == 1 and 'The labels of 2 clips are contradicted' in part
    assert f'data-fname="{names[one]}"' in part and f'keep the page small: {names[both]}' in part
    assert 'all its labels with commas between' in part
    listed = pd.read_csv(out / 'suspects.csv', keep_default_na=False)
    assert listed.fname.tolist() == [names[one], names[both]]
    listed.assign(correction=listed.suggested).to_csv(tmp_path / 'heard.csv', index=False)
    corrected = correct_clips(spoiled, tmp_path / 'heard.csv')
    assert corrected.table.label.equals(clips.table.label)


@pytest.mark.parametrize('which', ['run', 'linear_run'])
def test_its_report_and_card_speak_of_several_labels(which, request, clips, tmp_path):
    out, metrics, *_ = request.getfixturevalue(which)
    text = write_report(load_run(out), metrics, clips).read_text('utf-8')
    assert 'each a yes or no of its own' in text and 'mean average precision' in text
    assert 'What is taken for what' not in text and 'probably wrong' in text
    assert 'threshold' in text and (out / 'suspects.csv').exists()
    card = write_card(out, tmp_path / 'mine.onnx').read_text('utf-8')
    assert 'none, one or several of 3 kinds' in card and 'lwlrap' in card
    never = metrics['labels'][0] | {'recall': 0.0}
    scores = metrics | {'labels': [never]}
    config = json.loads((out / 'config.json').read_text('utf-8'))
    text = model_card('mine.onnx', config, [never['label']], scores)
    assert f'It finds less than 60 % of: {never["label"]}.' in text
    with pytest.raises(RunError, match='not compared clip by clip'):
        pair_answers(load_run(out), load_run(out), (clips, clips))


@pytest.mark.parametrize('which', ['run', 'linear_run'])
def test_a_tagger_names_all_that_reach_their_thresholds(which, request, clips, tmp_path):
    out, *_ = request.getfixturevalue(which)
    tagger = load_tagger(out, trust=True)
    assert tagger.multilabel and not tagger.rejects
    path, names = clips.paths[12], clips.table.label.iloc[12]  # all three
    p = dict(tagger.tag(path, top=3))
    answers = tagger.tag(path)
    assert dict(answers) == {k: v for k, v in p.items() if v >= tagger.thresholds[k]}
    strict = replace(tagger, threshold=max(p.values()) + 1e-6)
    assert strict.tag(path) == [('unknown', 1 - max(p.values()))]
    assert len(replace(tagger, threshold=0.0).tag(path)) == len(names.split(',')) == 3
    assert {e.label for e in timeline(tagger, path)} <= {*LABELS, 'silence'}
    file, difference = export(out, tmp_path / 'own.keras', trust=True)
    copy = load_tagger(file, trust=True)
    assert difference < 1e-4 and copy.multilabel and copy.thresholds == tagger.thresholds
    assert [label for label, _ in copy.tag(path)] == [label for label, _ in answers]
    (out / 'thresholds.json').rename(out / 'away.json')
    with pytest.raises(ModelError, match='thresholds.json'):
        load_tagger(out, trust=True)
    (out / 'away.json').rename(out / 'thresholds.json')


def test_a_clip_is_doubted_where_the_first_guess_is_none_of_its_labels():
    targets = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]])
    p = np.array([[0.4, 0.9, 0.1], [0.1, 0.9, 0.2], [0.8, 0.7, 0.1], [0.9, 0.1, 0.1], [0.9, 0.1, 0.8]])
    assert trusted_rows(targets, np.arange(5), p).tolist() == [0, 2, 3, 4]


def test_what_has_no_meaning_with_several_labels_is_refused(linear_run, clips, tmp_path):
    out, _, recipe, folder = linear_run
    with pytest.raises(RunError, match='learned from clips with several labels'):
        teach(out, 'owl', [clips.paths[0]], out=tmp_path / 'taught')
    for change, option in (({'unknown_share': 0.1}, '--unknown'), ({'means': (('tone', 'Beep, bleep'),)}, '--means')):
        with pytest.raises(RunError, match=option):
            train_folds(clips, replace(recipe, **change), 2, tmp_path / 'run', cache=folder / 'cache')


def test_the_estimator_takes_a_column_a_label(linear_run, clips, monkeypatch):
    *_, recipe, folder = linear_run
    monkeypatch.setitem(RECIPES, 'pretrained', recipe)
    model = SoundClassifier(copies=1, cache=folder / 'estimator')
    y = clips.train.targets
    model.fit(clips.train.paths, y)
    answers = model.predict(clips.test.paths)
    assert answers.shape == (len(clips.test), 3) and set(answers.ravel()) <= {0, 1}
    assert (answers == (model.predict_proba(clips.test.paths) >= model.thresholds_)).all()
    with pytest.raises(DataError, match='column 0 never changes'):
        model.fit(clips.train.paths, np.ones_like(y))
