"""Chapters 06b, 08 and 08a on finished runs made of arrays: measures against independent definitions, metrics.json, the report, and bad input."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    precision_recall_fscore_support,
)

from soundtag import results
from soundtag.comparison import compare_runs, write_comparison
from soundtag.dataset import load_clips
from soundtag.metrics import (
    MEASURES,
    accuracy,
    average_precision,
    format_percent,
    geometric_mean,
    lwlrap,
    map_at_3,
    mean_std,
    top3_accuracy,
    true_label_rank,
)
from soundtag.report import (
    _SCRIPT,
    fold_rows,
    label_rows,
    report_figures,
    summary_paragraphs,
    write_report,
)
from soundtag.results import (
    evaluate,
    fold_clips,
    load_run,
    run_clips,
    top_confusions,
    true_labels,
    worst_mistakes,
    write_metrics,
)
from soundtag.recipe import RunError

SR = 16000


@pytest.fixture(scope='module', autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as m:
        m.setenv('SOUNDTAG_CACHE', str(tmp_path_factory.mktemp('cache')))
        yield


def write_data(root, labels=('Bell', 'Hi-hat', 'Violin_or_fiddle'), per_label=8):
    "A folder of short noises in FSDKaggle2018's layout: training clips, one test clip a label."
    rng = np.random.default_rng(0)
    meta = root / 'FSDKaggle2018.meta'
    meta.mkdir(parents=True)
    for split, n, name in (
        ('train', per_label, 'train_post_competition.csv'),
        ('test', 1, 'test_post_competition_scoring_clips.csv'),
    ):
        folder, rows = root / f'FSDKaggle2018.audio_{split}', []
        folder.mkdir()
        for j, label in enumerate(labels):
            for i in range(n):
                y = np.convolve(rng.normal(size=SR // 4), np.ones(1 + 3 * j) / (1 + 3 * j), 'same')
                sf.write(folder / f'{split}{j}{i}.wav', 0.3 * y, SR)
                rows.append((f'{split}{j}{i}.wav', label, i % 2))
        pd.DataFrame(rows, columns=['fname', 'label', 'manually_verified']).to_csv(
            meta / name, index=False
        )
    return root


def write_run(out, clips, folds=2, skipped=()):
    "What a finished run leaves, with random probabilities."
    rng = np.random.default_rng(1)
    train, n = clips.train, len(clips.labels)
    (out / 'predictions').mkdir(parents=True)
    recipe = {
        'name': 'post',
        'features': {'sr': 44100},
        'seconds': 2.0,
        'patience': 5,
        'watch': 'scored',
    }
    (out / 'config.json').write_text(
        json.dumps(
            {
                'recipe': recipe,
                'selection': 'picked on the scored fold',
                'seed': 0,
                'versions': {'python': '3'},
                'folds': {'number': folds, 'kind': 'stratified'},
                'data': {
                    'name': clips.name,
                    'fingerprint': clips.fingerprint,
                    'clips': len(clips),
                    'labels': n,
                    'root': str(clips.root),
                },
            }
        )
    )
    (out / 'labels.json').write_text(json.dumps(clips.labels))
    fold = pd.Series(np.arange(len(train)) % folds, index=train.table.index, name='fold')
    fold.to_csv(out / 'folds.csv')
    p = {k: rng.dirichlet(np.ones(n), len(train)) for k in range(folds)}
    for k in p:
        seen = (fold != k).to_numpy()
        p[k][seen] = 0.9 * np.eye(n)[train.y[seen]] + 0.1 / n
        np.save(out / f'predictions/train_predictions_{k}.npy', p[k].astype('float32'))
        np.save(
            out / f'predictions/test_predictions_{k}.npy',
            rng.dirichlet(np.ones(n), len(clips.test)).astype('float32'),
        )
        curve = pd.DataFrame(
            {
                'epoch': range(4),
                'accuracy': [0.4, 0.6, 0.8, 1],
                'loss': [2, 1, 0.5, 0.1],
                'val_accuracy': [0.3, 0.4, 0.35, 0.4],
                'val_loss': [2, 1.5, 1.6, 1.8],
            }
        )
        curve.to_csv(out / f'history_{k}.csv', index=False)
    np.save(
        out / 'predictions/oof.npy',
        np.stack([p[k][i] for i, k in enumerate(fold)]).astype('float32'),
    )
    pd.DataFrame({'fname': clips.test.table.index, 'label': 'x'}).to_csv(
        out / 'predictions/predictions.csv', index=False
    )
    pd.DataFrame(skipped, columns=['fname', 'path', 'reason']).to_csv(
        out / 'skipped.csv', index=False
    )
    return out


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    return load_clips(write_data(tmp_path_factory.mktemp('data') / 'FSD'))


@pytest.fixture(scope='module')
def run(clips, tmp_path_factory):
    return load_run(write_run(tmp_path_factory.mktemp('runs') / 'run', clips))


@pytest.fixture(scope='module')
def metrics(run, clips):
    return write_metrics(run, clips)


@pytest.fixture
def fresh(clips, tmp_path):
    return write_run(tmp_path / 'run', clips)


# Measures


def plain_map3(y, p):
    "The competition's own definition, in loops: average precision of the first three guesses, the truth counted once."
    total = 0
    for truth, row in zip(y, p):
        guesses = sorted(range(len(row)), key=lambda j: (-row[j], j))[:3]
        for place, guess in enumerate(guesses, start=1):
            if guess == truth:
                total += 1 / place
    return total / len(y)


@pytest.mark.parametrize('labels', [1, 2, 3, 10, 41])
@pytest.mark.parametrize('ties', [False, True])
def test_measures_agree_with_plain_definitions(labels, ties):
    rng = np.random.default_rng(labels)
    p, y = rng.dirichlet(np.ones(labels), 400), rng.integers(labels, size=400)
    if ties:
        p = p.round(1)
    assert map_at_3(y, p) == pytest.approx(plain_map3(y, p), abs=1e-12)
    assert accuracy(y, p) == pytest.approx((p.argmax(1) == y).mean(), abs=1e-12)
    assert top3_accuracy(y, p) == pytest.approx(
        np.mean([t in sorted(range(labels), key=lambda j: (-r[j], j))[:3] for t, r in zip(y, p)]),
        abs=1e-12,
    )
    assert lwlrap(y, p) == pytest.approx(
        label_ranking_average_precision_score(np.eye(labels)[y], p)
    )
    if not ties:
        assert lwlrap(y, p) == pytest.approx((1 / true_label_rank(y, p)).mean())
    for j, ap in enumerate(average_precision(y, p)):
        if (y == j).any():
            assert ap == pytest.approx(average_precision_score(y == j, p[:, j]))


def test_measures_on_extremes():
    y, p = np.arange(5), np.eye(5)
    assert all(f(y, p) == 1 for f in MEASURES.values())
    assert (
        map_at_3([3], [[0.4, 0.3, 0.2, 0.1]]) == 0 and lwlrap([3], [[0.4, 0.3, 0.2, 0.1]]) == 0.25
    )


@pytest.mark.parametrize(
    'y, p, words',
    [
        ([0, 1], [[1, 0], [np.nan, 1]], 'NaN'),
        ([0], [[np.inf, 0]], 'NaN or infinite'),
        ([0, 1], [[1, 0]], 'shape'),
        ([], np.ones((0, 2)), 'a clip at least'),
        ([2], [[1, 0]], '2 columns'),
        ([-1], [[1, 0]], '2 columns'),
        ([0], [1, 0], 'shape'),
    ],
)
def test_measures_refuse(y, p, words):
    for f in (*MEASURES.values(), average_precision):
        with pytest.raises(ValueError, match=words):
            f(y, p)


def test_spread_is_the_sample_deviation():
    s = mean_std(np.float32([0.25, 0.5, 0.75]))
    assert (
        s == {'mean': 0.5, 'sd': pytest.approx(0.25), 'folds': [0.25, 0.5, 0.75]}
        and format_percent(s) == '50.0 ± 25.0 %'
    )


def test_one_value_has_no_spread():
    assert mean_std([1]) == {'mean': 1, 'sd': None, 'folds': [1]}
    assert format_percent(mean_std([0.5])) == '50.0 %'
    with pytest.raises(ValueError, match='no values'):
        mean_std([])


def test_the_ensemble_answers_with_probabilities():
    p = np.random.default_rng(0).dirichlet(np.ones(4), (3, 50))
    together = geometric_mean(p)
    np.testing.assert_allclose(together.sum(axis=1), 1)
    np.testing.assert_allclose(geometric_mean([p[0], p[0]]), p[0])
    np.testing.assert_allclose(
        together, np.prod(p, 0) ** (1 / 3) / (np.prod(p, 0) ** (1 / 3)).sum(1)[:, None]
    )


# metrics.json


def test_metrics_have_the_agreed_form(run, metrics):
    stored = json.loads(
        (run.out / 'metrics.json').read_text('utf-8'),
        parse_constant=lambda c: pytest.fail(f'{c} is not JSON'),
    )
    assert stored == metrics
    assert {'what', 'data', 'recipe', 'seeds', 'versions', 'metrics', 'baselines'} <= set(metrics)
    assert set(metrics['data']) == {'name', 'fingerprint', 'clips', 'labels'}
    assert {'accuracy', 'train_accuracy', 'map3', 'lwlrap'} <= set(metrics['metrics']) and set(
        metrics['baselines']
    ) == {'chance', 'linear'}
    for group in (metrics['metrics'], *metrics['baselines'].values(), metrics['test']['folds']):
        for s in group.values():
            assert set(s) == {'mean', 'sd', 'folds'} and len(s['folds']) == 2
            assert s['mean'] == pytest.approx(np.mean(s['folds'])) and s['sd'] == pytest.approx(
                np.std(s['folds'], ddof=1)
            )
    assert str(run.out.parent) not in json.dumps(
        metrics
    )  # the file can be published: no folder of this machine in it
    assert not list(run.out.glob('.*.part'))


def test_true_labels_come_in_the_order_of_the_predictions(run, clips):
    names = clips.table['label'][run.folds.index]
    assert [run.labels[j] for j in true_labels(run, clips)] == names.tolist()
    assert fold_clips(run, clips).table.index.equals(run.folds.index)


def test_metrics_score_each_fold_by_its_own_clips(run, clips, metrics):
    y, fold = clips.train.y, run.folds.to_numpy()
    for i, k in enumerate((0, 1)):
        assert metrics['metrics']['map3']['folds'][i] == pytest.approx(
            plain_map3(y[fold == k], run.train[k][fold == k])
        )
        assert metrics['metrics']['train_accuracy_at_rest']['folds'][i] == pytest.approx(
            (run.train[k].argmax(1) == y)[fold != k].mean()
        )
        assert (
            metrics['metrics']['train_accuracy']['folds'][i] == 0.6
        )  # logged in the epoch with the lowest validation loss
        assert metrics['test']['folds']['accuracy']['folds'][i] == pytest.approx(
            (run.test[k].argmax(1) == clips.test.y).mean()
        )
    both = np.sqrt(run.test[0].astype(float) * run.test[1])
    assert metrics['test']['together']['map3'] == pytest.approx(plain_map3(clips.test.y, both))
    assert np.array(metrics['confusion']).sum() == len(y) and [
        r['n'] for r in metrics['labels']
    ] == [8, 8, 8]


def test_clips_that_picked_the_epoch_do_not_count_as_trained_on(clips, tmp_path):
    out = write_run(tmp_path / 'run', clips, folds=3)
    config = json.loads((out / 'config.json').read_text())
    (out / 'config.json').write_text(
        json.dumps(config | {'recipe': config['recipe'] | {'watch': 'inner'}})
    )
    run, y = load_run(out), clips.train.y
    fold = run.folds.to_numpy()
    rest = write_metrics(run, clips)['metrics']['train_accuracy_at_rest']['folds']
    assert rest == pytest.approx(
        [
            accuracy(y[fold == kept], run.train[k][fold == kept])
            for k, kept in ((0, 2), (1, 0), (2, 1))
        ]
    )


@pytest.mark.parametrize('name, low, high', [('fsd10', 0.40, 0.60), ('esc10', 0.35, 0.52)])
def test_the_recorded_runs_show_the_gap_of_the_post(root, name, low, high):
    m = json.loads((root / f'nbs/results/post_{name}.json').read_text('utf-8'))
    assert (
        m['recipe']['name'] == 'post'
        and m['data']['labels'] == 10
        and len(m['folds']['clips']) == 5
    )
    assert (
        low <= m['metrics']['accuracy']['mean'] <= high
        and m['metrics']['train_accuracy']['mean'] > 0.9
    )
    assert m['metrics']['gap']['mean'] == pytest.approx(
        m['metrics']['train_accuracy']['mean'] - m['metrics']['accuracy']['mean']
    )
    assert len(summary_paragraphs(m)) == 4 and len(report_figures(m)) == 4


def test_baselines_never_see_the_fold_they_are_scored_on():
    rng = np.random.default_rng(0)
    X, y, fold = rng.normal(size=(60, 4)), rng.integers(3, size=60), np.arange(60) % 3
    other = np.where(fold == 1, (y + 1) % 3, y)
    for f in (
        lambda y: results.majority_baseline(y, fold, 3),
        lambda y: results.linear_baseline(X, y, fold, 3),
    ):
        np.testing.assert_array_equal(f(y)[fold == 1], f(other)[fold == 1])
        assert np.abs(f(y)[fold == 0] - f(other)[fold == 0]).max() > 0
    assert (
        accuracy(
            y, results.linear_baseline(np.eye(3)[y] + 0.1 * rng.normal(size=(60, 3)), y, fold, 3)
        )
        > 0.95
    )


def test_a_label_absent_from_the_training_folds_gets_no_probability_from_the_linear_model():
    y, fold = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 0, 1, 1, 1])
    p = results.linear_baseline(np.arange(12.0).reshape(6, 2), y, fold, 3)
    assert (p[fold == 1, 2] == 0).all() and np.allclose(p.sum(1), 1)


def test_evaluating_twice_gives_the_same(run, clips, metrics):
    assert evaluate(run, clips) == metrics == evaluate(run)


def test_no_test_clips(clips, tmp_path):
    root = write_data(tmp_path / 'data')
    (root / 'FSDKaggle2018.meta/test_post_competition_scoring_clips.csv').unlink()
    run = load_run(write_run(tmp_path / 'run', load_clips(root)))
    metrics = write_metrics(run)
    assert metrics['test'] is None and fold_rows(metrics)[0][-1] == 'lwlrap'
    assert 'test clips' not in write_report(run, metrics).read_text('utf-8')


# Bad input


def test_moved_data(clips, tmp_path):
    root = write_data(tmp_path / 'data')
    run = load_run(write_run(tmp_path / 'run', load_clips(root)))
    root.rename(tmp_path / 'elsewhere')
    with pytest.raises(RunError, match='cannot be read any more') as e:
        run_clips(run)
    assert str(root) in str(e.value) and '--data' in str(e.value) and '\n' not in str(e.value)
    assert len(run_clips(run, load_clips(tmp_path / 'elsewhere'))) == len(
        clips
    )  # the same clips from another place will do


@pytest.mark.parametrize('change', ['content', 'label', 'gone'])
def test_changed_data(change, tmp_path):
    root = write_data(tmp_path / 'data')
    run = load_run(write_run(tmp_path / 'run', load_clips(root)))
    clip, table = (
        root / 'FSDKaggle2018.audio_train/train00.wav',
        root / 'FSDKaggle2018.meta/train_post_competition.csv',
    )
    if change == 'content':
        sf.write(clip, np.sin(np.arange(4000.0)), SR)
    if change == 'label':
        table.write_text(table.read_text().replace('train00.wav,Bell', 'train00.wav,Hi-hat'))
    if change == 'gone':
        clip.unlink()
    for f in (run_clips, write_metrics, write_report):
        with pytest.raises(RunError, match='have changed'):
            f(run)
    assert not (run.out / 'metrics.json').exists() and not (run.out / 'report.html').exists()


@pytest.mark.parametrize(
    'name',
    [
        'labels.json',
        'folds.csv',
        'predictions/oof.npy',
        'predictions/train_predictions_1.npy',
        'predictions/test_predictions_0.npy',
        'predictions/predictions.csv',
        'history_1.csv',
        'skipped.csv',
    ],
)
def test_unfinished_and_damaged_runs(fresh, name):
    file = fresh / name
    whole = file.read_bytes()
    file.unlink()
    with pytest.raises(RunError, match='not finished') as e:
        load_run(fresh)
    assert file.name in str(e.value)
    file.write_bytes(b'')
    with pytest.raises(RunError, match=re.escape(file.name)):
        load_run(fresh)
    if file.suffix == '.npy':
        file.write_bytes(whole[:-8])
        with pytest.raises(RunError, match='damaged'):
            load_run(fresh)
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
        with pytest.raises(RunError, match='damaged'):
            load_run(fresh)
        np.save(file, np.full((24, 3), np.nan))
        with pytest.raises(RunError, match='NaN'):
            load_run(fresh)
        np.save(file, np.ones((5, 3)))
        with pytest.raises(RunError, match='equally many'):
            load_run(fresh)
    file.write_bytes(whole)
    load_run(fresh)


def test_no_run_at_all(tmp_path):
    for folder in (tmp_path, tmp_path / 'nothing'):
        with pytest.raises(RunError, match='holds no run'):
            load_run(folder)


# The report


class Page(HTMLParser):
    VOID = {'meta', 'link', 'br', 'img', 'input', 'hr', 'path', 'use', 'image'}

    def __init__(self, text):
        super().__init__()
        self.tags, self.attrs, self.texts, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attrs.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attrs.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_report_needs_nothing_else(run, clips, metrics):
    path = write_report(run, metrics, clips)
    text = path.read_text('utf-8')
    page = Page(text)
    assert page.open == [] and len(text) < 3e6
    for tag, attrs in page.attrs:
        for name, value in attrs.items():
            if name in ('src', 'srcset', 'data', 'poster', 'xlink:href', 'action') or (
                name == 'href' and tag != 'a'
            ):
                assert value.startswith(('data:', '#')), (tag, name, value[:80])
            if name == 'style':
                assert 'url(' not in value or 'url(#' in value
            assert not name.startswith('on')
    assert page.tags.count('script') == 1 and f'<script>{_SCRIPT}</script>' in text
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    assert f"default-src 'none';\n style-src 'unsafe-inline'; img-src data:; media-src data:; " in text
    assert f"script-src 'sha256-{digest}'" in text
    assert (
        'iframe' not in page.tags
        and '@import' not in text
        and 'http' not in re.sub('http-equiv', '', text)
    )
    for fragment in {a['href'] for t, a in page.attrs if t == 'a'}:
        assert fragment.startswith(('data:text/csv', '#'))
    ids = [a['id'] for _, a in page.attrs if 'id' in a]
    assert len(ids) == len(set(ids))
    targets = {a['href'][1:] for t, a in page.attrs if t == 'a' and a['href'][0] == '#'}
    assert targets <= set(ids)


def test_the_report_can_be_read_by_everyone(run, clips, metrics):
    page = Page(write_report(run, metrics, clips).read_text('utf-8'))
    by_tag = {tag: [a for t, a in page.attrs if t == tag] for tag in set(page.tags)}
    assert by_tag['html'] == [{'lang': 'en'}] and {
        'title',
        'main',
        'h1',
        'h2',
        'table',
        'caption',
        'figcaption',
    } <= set(page.tags)
    assert page.tags.count('h1') == 1
    assert all(a['role'] == 'img' and len(a['aria-label']) > 20 for a in by_tag['svg']) and all(
        a['aria-label'] for a in by_tag['audio']
    )
    assert any(a.get('name') == 'viewport' for a in by_tag['meta']) and all(
        a['scope'] in ('col', 'row') for a in by_tag['th']
    )
    text = ' '.join(page.texts)
    for sentences in summary_paragraphs(metrics):
        for sentence in sentences:
            assert sentence in text
    assert (
        'prefers-color-scheme: dark' in text
        and 'No clip was left out' in text
        and 'synthetic' not in text
    )


def test_the_report_plays_suspects_first_and_names_what_it_does_not_play(run, clips, metrics):
    y = clips.train.y
    kinds = np.where(np.arange(len(y)) % 3 == 1, (y + 1) % 3, y)  # sure of all, wrong about some
    p = 0.2 * run.oof + 0.8 * np.eye(3)[kinds]
    run = replace(run, oof=p)
    page = write_report(run, metrics, clips, worst=4).read_text('utf-8')
    assert page.count('<audio') == page.count('<img') == 4
    listed = pd.read_csv(run.out / 'suspects.csv', keep_default_na=False)
    assert list(listed) == ['fname', 'label', 'suggested', 'probability', 'correction']
    assert (listed.correction == '').all() and 4 < len(listed)
    wrong = run.oof.argmax(1) != y
    bad = worst_mistakes(run, clips, len(y))
    assert len(bad) == wrong.sum() and bad.p_truth.is_monotonic_increasing
    assert bad.p_truth.iloc[0] == run.oof[np.arange(len(y)), y][wrong].min()
    assert set(listed.fname) <= set(bad.index)
    for name in bad.index:  # each in its cell of the confusion matrix, and played or named
        assert page.count(name) >= 2
    part = page[page.index('id="suspects"') : page.index('id="mistakes"')]
    assert [part.index(name) for name in listed.fname] == sorted(map(part.index, listed.fname))
    assert 'Without a player' in part and part.count('<audio') == 4
    assert all(row.suggested in clips.labels for row in listed.itertuples())


def test_each_cell_of_the_confusion_matrix_lists_its_clips(run, clips, metrics):
    page = write_report(run, metrics, clips).read_text('utf-8')
    y, guess = clips.train.y, run.oof.argmax(1)
    for i, row in enumerate(metrics['confusion']):
        for j, n in enumerate(row):
            assert (f'href="#cell-{i}-{j}">{n}</a>' in page) == (n > 0)
            if n:
                part = page[page.index(f'id="cell-{i}-{j}"') :].split('</div>')[0]
                names = clips.train.table.index[(y == i) & (guess == j)]
                assert part.count('<li>') == n and all(name in part for name in names)


def test_the_table_of_labels_agrees_with_scikit_learn(run, clips, metrics):
    y, guess = clips.train.y, run.oof.argmax(1)
    precision, recall, _, n = precision_recall_fscore_support(y, guess, labels=range(3))
    rows = {row['label']: row for row in metrics['labels']}
    for j, label in enumerate(clips.labels):
        row = rows[label]
        assert row['precision'] == pytest.approx(precision[j]) and row['n'] == n[j]
        assert row['recall'] == pytest.approx(recall[j])
        assert row['confidence'] == pytest.approx(run.oof.max(1)[guess == j].mean(), abs=1e-6)
        shown = next(r for r in label_rows(metrics) if r[0] == label.replace('_', ' '))
        assert shown[3:5] == [f'{100 * recall[j]:.0f} %', f'{100 * precision[j]:.0f} %']
        assert shown[5] == f"{100 * (row['confidence'] - precision[j]):+.0f}"


def test_the_report_tells_of_copies_date_and_machine(fresh, clips):
    for k in (0, 1):
        note = {'training': 30.0, 'cores': 2, 'machine': 'Linux <x>', 'finished': f'2026-11-0{k + 1}'}
        (fresh / f'seconds_{k}.json').write_text(json.dumps(note))
    a, b = clips.train.table.index[:2]
    (fresh / 'duplicates.csv').write_text(f'fname,of,label,of_label,kind\n{b},{a},Bell,Bell,file\n')
    text = write_report(load_run(fresh), clips=clips).read_text('utf-8')
    assert '60 s for 2 folds on Linux &lt;x&gt; with 2 cores, done on 2 November 2026' in text
    assert f'1 clip repeat others ({b} = {a})' in text and 'another fold' in text
    assert 'Heard is a spectrogram' in text or 'Heard is' in text
    (fresh / 'duplicates.csv').write_text('fname\nx\n')
    with pytest.raises(RunError, match='duplicates.csv: is damaged'):
        write_report(load_run(fresh), clips=clips)


def test_a_page_with_clips_has_a_bounded_size(tmp_path):
    clips = load_clips(write_data(tmp_path / 'data', per_label=80))
    run = load_run(write_run(tmp_path / 'run', clips))
    path = write_report(run)
    wrong = int((run.oof.argmax(1) != clips.train.y).sum())
    page = path.read_text('utf-8')
    assert wrong > 110 and page.count('<audio') == 100 and len(page) < 8e6


def test_hostile_names_stay_text(tmp_path):
    root = tmp_path / 'data'
    labels = ['<script>alert(1)</script>', '"onload="x', "a'b&c $x_1$", '{{ 7*7 }}']
    clips = load_clips(write_data(root, labels))
    odd = '<img src=x onerror=alert(2)>.wav'
    run = load_run(
        write_run(tmp_path / 'run', clips, skipped=[(odd, odd, '<b>not</b> a sound; "x"')])
    )
    text = write_report(run).read_text('utf-8')
    page = Page(text)
    assert page.open == [] and 'b' not in page.tags and '49' not in page.texts
    assert page.tags.count('script') == 1 and text.count('<script>') == 1
    images = [a for t, a in page.attrs if t == 'img']
    assert images and all(a['src'].startswith('data:image/png') for a in images)
    assert not any(n.startswith('on') for _, a in page.attrs for n in a)
    text = ' '.join(page.texts)
    for label in labels:
        assert label.replace('_', ' ') in text
    assert odd in text and '1 clip was left out' in text


@pytest.mark.parametrize('n', [2, 10, 41])
def test_figures_for_any_number_of_labels(metrics, n):
    many = metrics | {
        'labels': [{'label': f'A_rather_long_label_{i}', 'n': 3, 'ap': i / n} for i in range(n)],
        'confusion': (np.eye(n, dtype=int) * 2 + np.roll(np.eye(n, dtype=int), 1, 0)).tolist(),
    }
    figures = report_figures(many)
    assert (
        all(len(s) < 400_000 for s in figures.values())
        and figures['labels'].count('A rather long label') >= n
    )
    assert top_confusions(many)[0][2:] == (1, 3)


def test_a_report_is_written_whole_or_not_at_all(run, clips, metrics, monkeypatch):
    before = write_report(run, metrics, clips).read_bytes()

    def full(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.replace', full)
    with pytest.raises(OSError):
        write_report(run, metrics, clips, worst=1)
    assert (run.out / 'report.html').read_bytes() == before


def test_two_reports_of_a_run_are_the_same(run, clips, metrics):
    assert (
        write_report(run, metrics, clips).read_bytes()
        == write_report(run, metrics, clips).read_bytes()
    )


# Two runs


def test_two_runs_are_compared_on_the_same_clips(run, clips, tmp_path):
    y = clips.train.y
    n = len(y)
    rng = np.random.default_rng(0)

    def variant(name, wrong):
        oof = np.full((n, 3), 0.1)
        oof[np.arange(n), np.where(np.isin(np.arange(n), wrong), (y + 1) % 3, y)] = 0.8
        return replace(run, out=tmp_path / name, oof=oof)

    (tmp_path / 'b').mkdir()
    a, b = variant('a', [0, 1, 2, 3, 4, 5, 6, 7]), variant('b', [0, 9])
    found = compare_runs(a, b, (clips, clips))
    names = clips.train.table.index
    assert found['fixed'] == names[1:8].tolist() and found['broken'] == [names[9]]
    assert found['accuracy'] == pytest.approx({'a': 1 - 8 / n, 'b': 1 - 2 / n})
    d = np.zeros(n)
    d[1:8], d[9] = 1, -1
    means = [rng.choice(d, n).mean() for _ in range(20000)]  # the bootstrap says the same
    low, high = np.quantile(means, [0.025, 0.975])
    assert found['difference']['low'] == pytest.approx(low, abs=0.03)
    assert found['difference']['high'] == pytest.approx(high, abs=0.03)
    assert found['coin'] == pytest.approx(2 * (1 + 8) / 2**8)
    for k, fold in found['folds'].items():
        rows = run.folds.to_numpy() == int(k)
        assert fold['b'] - fold['a'] == pytest.approx(d[rows].mean())
    page, words = write_comparison(a, b, (clips, clips), most=2)
    text = page.read_text('utf-8')
    assert page == tmp_path / 'b/compared_with_a.html' and text.count('<audio') == 3
    parsed = Page(text)
    assert parsed.open == [] and 'script' not in parsed.tags
    assert all(sentence.replace('"', '&#34;') in text for sentence in words)
    assert all(name in text for name in names[1:8]) and 'b is better than a' in text


def test_runs_with_other_clips_labels_and_folds(run, clips):
    part = replace(run, folds=run.folds.iloc[:10], oof=run.oof[:10])
    found = compare_runs(run, part, (clips, clips))
    assert found['clips'] == 10 and found['only_in_one'] == 14
    dealt = replace(run, folds=1 - run.folds)
    found = compare_runs(run, dealt, (clips, clips))
    assert found['folds'] == {} and found['difference']['mean'] == 0 and found['coin'] == 1
    table = clips.table.copy()
    table.loc[run.folds.index[0], 'label'] = 'Violin_or_fiddle'
    found = compare_runs(run, run, (clips, replace(clips, table=table)))
    assert found['relabelled'] == 1
    other = replace(run, folds=run.folds.rename(lambda name: 'x' + name))
    strangers = replace(clips, table=clips.table.rename(index=lambda name: 'x' + name))
    with pytest.raises(RunError, match='has no clip in common with'):
        compare_runs(run, other, (clips, strangers))
