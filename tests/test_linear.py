"LDA on embeddings: what it learns from and what it must not see, its files, and runs that are made of it."

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from test_pretrained import WEIGHTS, write_h5

import soundtag.console as console
from soundtag.dataset import DataError, mini
from soundtag.export import export
from soundtag.linear import (
    LinearClassifier,
    audioset_names,
    best_temperature,
    fit_classifier,
    held_out_logits,
    inner_parts,
    label_names,
    name_columns,
    predict_embeddings,
    project_sounds,
)
from soundtag.pretrained import CLASSES, POOLED, Embedding, WeightsError, audioset_labels
from soundtag.recipe import LinearRecipe, Recipe, RunError
from soundtag.report import write_report
from soundtag.results import load_run, write_metrics
from soundtag.tagging import ModelError, load_tagger
from soundtag.training import train_folds

N = 2 * (POOLED + CLASSES)
RECIPE = LinearRecipe(name='pretrained')


def embeddings(clips, labels, seed=0, apart=1.0):
    "Clips of some labels, which differ in 400 of all numbers, and two copies of each."
    rng = np.random.default_rng(seed)
    y = np.arange(clips) % labels
    X = rng.standard_normal((clips, 1, N)).astype('float32')
    X[:, 0, :400] += apart * rng.standard_normal((labels, 400))[y]
    X = np.concatenate([X, X + 0.3 * rng.standard_normal((clips, 2, N))], axis=1)
    return np.ascontiguousarray(X.swapaxes(1, 2)[..., None], 'float32'), y


def fit(X, y, rows, labels=('a', 'b', 'c'), recipe=RECIPE, groups=None):
    groups = np.arange(len(y)) if groups is None else np.asarray(groups)
    sounds = project_sounds(X, rows, y, labels, recipe=recipe, seed=0)
    return fit_classifier(sounds, recipe=recipe, groups=groups[rows], seed=0)


def test_it_learns_labels_and_not_lots():
    X, y = embeddings(90, 3, apart=2)
    train, held_out = np.arange(60), np.arange(60, 90)
    model, _ = fit(X, y, train)
    p = predict_embeddings(model, X, held_out)
    assert p.shape == (30, 3) and p.dtype == np.float32 and np.allclose(p.sum(1), 1, atol=1e-5)
    assert (p.argmax(1) == y[held_out]).mean() > 0.9
    lots = np.random.default_rng(1).permutation(y)
    p = predict_embeddings(fit(X, lots, train)[0], X, held_out)
    assert (p.argmax(1) == lots[held_out]).mean() < 0.65
    assert p.max(1).mean() < 0.65  # and it knows


def test_nothing_of_the_scored_fold_is_seen():
    X, y = embeddings(60, 3)
    train = np.flatnonzero(np.arange(60) % 4)
    before, choices = fit(X, y, train)
    spoilt, other = X.copy(), y.copy()
    spoilt[::4] = np.nan
    other[::4] = 99
    after, same = fit(spoilt, other, train)
    assert np.array_equal(before.weights, after.weights) and np.array_equal(before.bias, after.bias)
    assert (choices.shrinkage, choices.temperature) == (same.shrinkage, same.temperature)


def test_parts_for_choosing_keep_recordings_together():
    y = np.repeat([0, 1, 2], 20)
    groups = np.arange(60) // 2
    part = inner_parts(y, groups, 0)
    assert set(part) == {0, 1, 2, 3}
    assert all(len(set(part[groups == g])) == 1 for g in groups)
    lonely = inner_parts(np.array([0, 0, 0, 1]), np.arange(4), 0)
    assert lonely[3] == -1 and (lonely[:3] >= 0).all()


def test_held_out_logits_come_from_other_parts():
    rng = np.random.default_rng(0)
    Z, y = rng.standard_normal((30, 2, 5)), np.arange(30) % 3
    part = np.arange(30) // 10
    z, other = held_out_logits(Z, y, part, [0.1, 0.3])
    Z[part == 1] += 100
    moved = held_out_logits(Z, y, part, [0.1])[0]
    assert np.isfinite(other).all() and not np.allclose(z, other)
    assert np.isfinite(z).all() and not np.allclose(z[part == 1], moved[part == 1])


def test_a_label_that_a_part_does_not_know_says_nothing_of_how_sure_to_be():
    X, y = embeddings(60, 3, apart=0.1)
    Z = X[:, :400, :, 0].swapaxes(1, 2).astype(float)
    z = held_out_logits(Z, y, np.arange(60) // 20, [0.1])[0]
    without = held_out_logits(Z, y, np.where(y == 2, 0, np.arange(60) // 3 % 3), [0.1])[0]
    known = np.isfinite(without[np.arange(60), y])
    assert not known[y == 2].any() and known[y != 2].all() and np.isinf(without[known]).any()
    assert best_temperature(without[known], y[known]) < 3 * best_temperature(z, y)


def test_a_clip_a_label_is_enough_to_say_something():
    X, y = embeddings(6, 3, apart=3)
    model, choices = fit(X, y, np.arange(3))
    assert choices.offsets is None and np.isfinite(model.weights).all()
    assert (predict_embeddings(model, X, np.arange(3, 6)).argmax(1) == y[3:]).mean() >= 2 / 3
    with pytest.raises(DataError, match='^c: has no clip to learn from'):
        fit(X, y, np.array([0, 1, 3]))


def test_sounds_that_span_the_directions_and_others_get_their_coordinates(monkeypatch):
    monkeypatch.setattr('soundtag.linear.LANDMARKS', 50)
    X, y = embeddings(120, 3, apart=2)
    rows = np.arange(10, 100)
    sounds = project_sounds(X, rows, y, ['a', 'b', 'c'], recipe=RECIPE, seed=0)
    wanted = sounds.span(X[rows][..., 0].swapaxes(1, 2))
    assert sounds.Z.shape[2] <= 50 < sounds.Z.shape[0] * sounds.Z.shape[1]
    np.testing.assert_allclose(sounds.Z, wanted, atol=1e-4)


def test_many_clips_take_bounded_memory(monkeypatch):
    monkeypatch.setattr('soundtag.linear.LANDMARKS', 50)
    X, y = embeddings(120, 3, apart=2)
    model, _ = fit(X, y, np.arange(90))
    assert (predict_embeddings(model, X, np.arange(90, 120)).argmax(1) == y[90:]).mean() > 0.7


@pytest.mark.parametrize(
    'label, wanted',
    [
        ('Acoustic_guitar', ['Acoustic guitar']),
        ('crying_baby', ['Baby cry, infant cry']),
        ('Bass_drum', ['Bass drum']),
        ('dog', ['Dog', 'Canidae, dogs, wolves']),
        ('Violin or fiddle', ['Violin, fiddle']),
        ('sneezing', ['Sneeze']),
        ('Fireworks', ['Fireworks']),
        ('blorp', []),
        ('', []),
        ('鳥', []),
    ],
)
def test_names(label, wanted):
    theirs = audioset_labels()
    assert [theirs[i] for i in audioset_names(label)] == wanted


def test_names_count_where_there_are_some():
    theirs = audioset_labels()
    names = label_names(['woof', 'rain'], [('woof', 'Dog'), ('woof', 'Bark')])
    assert [[theirs[i] for i in n] for n in names] == [['Dog', 'Bark'], ['Rain']]
    for means, words in ((('meow', 'Cat'), 'no such label'), (('woof', 'Dogg'), 'AudioSet has no')):
        with pytest.raises(DataError, match=words):
            label_names(['woof', 'rain'], [means])
    X, y = embeddings(60, 2)
    rain = name_columns(audioset_names('rain'))
    X[y == 1, rain[0] : rain[0] + 1] += 5
    with_name, _ = fit(X, y, np.arange(60), ['woof', 'rain'])
    without, choices = fit(X, y, np.arange(60), ['woof', 'blorp'])
    assert choices.offsets is None
    assert with_name.weights[rain[0], 1] > without.weights[rain[0], 1]


def test_files(tmp_path):
    model = LinearClassifier(np.ones((5, 2), 'float32'), np.zeros(2, 'float32'))
    model.save(tmp_path / 'good.npz')
    assert np.array_equal(LinearClassifier.load(tmp_path / 'good.npz').weights, model.weights)
    data = (tmp_path / 'good.npz').read_bytes()
    (tmp_path / 'cut.npz').write_bytes(data[:-30])
    (tmp_path / 'empty.npz').write_bytes(b'')
    np.savez(tmp_path / 'code.npz', weights=np.array([{}], object), bias=model.bias)
    np.savez(tmp_path / 'nan.npz', weights=model.weights * np.nan, bias=model.bias)
    np.savez(tmp_path / 'shape.npz', weights=model.weights, bias=np.zeros(3, 'float32'))
    np.savez(tmp_path / 'other.npz', x=model.bias)
    for name in ('cut', 'empty', 'code', 'nan', 'shape', 'other', 'missing'):
        with pytest.raises(ValueError):
            LinearClassifier.load(tmp_path / f'{name}.npz')


@pytest.fixture(scope='module')
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'yamnet.h5'
    write_h5(path, WEIGHTS)
    features = Embedding(hop=0.96, shortest=1.1, copies=1, least_score=1e-4, weights=str(path))
    return replace(RECIPE, features=features)


@pytest.fixture(scope='module')
def run(tmp_path_factory, recipe):
    clips = mini()
    clips = clips.subset(clips.table.groupby('label').head(4).index)
    folder = tmp_path_factory.mktemp('linear')
    out = train_folds(clips, recipe, 2, folder / 'run', cache=folder / 'cache', progress=False)
    return clips, out, folder


def test_a_report_draws_no_curve_of_one_epoch(run):
    clips, out, folder = run
    metrics = write_metrics(load_run(out), clips, cache=folder / 'cache')
    text = write_report(load_run(out), metrics, clips).read_text('utf-8')
    assert text.count('<svg') == 2 and 'How each fold learned' not in text
    assert 'shrinkage and temperatures are chosen' in text


def test_a_run_is_whole_and_resumes(run, recipe):
    clips, out, folder = run
    assert {p.name for p in out.glob('best_*')} == {'best_0.npz', 'best_1.npz'}
    config = load_run(out).config['recipe']
    assert config['classifier'] == 'linear' and config['features']['copies'] == 1
    oof = (out / 'predictions/oof.npy').read_bytes()
    model = (out / 'best_1.npz').read_bytes()
    for name in ('best_1.npz', 'predictions/predictions_1.csv', 'predictions/oof.npy'):
        (out / name).unlink()
    with pytest.raises(ModelError, match='holds 1 of its 2 models'):
        load_tagger(out)
    train_folds(clips, recipe, 2, out, cache=folder / 'cache', progress=False)
    assert (out / 'predictions/oof.npy').read_bytes() == oof
    assert (out / 'best_1.npz').read_bytes() == model


def test_a_run_tags(run):
    clips, out, _ = run
    tagger = load_tagger(out)
    assert tagger.labels == clips.labels and tagger.sr == 16000
    path = clips.paths[0]
    (label, p), *_ = tagger.tag(path)
    assert label in clips.labels and 0 < p <= 1
    y = np.sin(np.arange(40000))
    loud, quiet = (dict(tagger.tag(a * y, sr=16000, top=12)) for a in (1, 0.001))
    assert all(abs(loud[label] - quiet[label]) < 1e-4 for label in loud)  # level does not matter


def test_what_labels_mean_is_looked_at_before_clips_are_heard(recipe, tmp_path):
    cache = tmp_path / 'cache'
    with pytest.raises(DataError, match='meow: there is no such label'):
        meows = replace(recipe, means=(('meow', 'Meow'),))
        train_folds(mini(), meows, out=tmp_path / 'run', cache=cache)
    assert not cache.exists()


@pytest.mark.parametrize('ending', ['onnx', 'tflite', 'keras'])
def test_a_run_leaves_the_house(run, tmp_path, ending):
    clips, out, _ = run
    path, difference = export(out, tmp_path / f'mine.{ending}')
    assert difference < 1e-3
    if ending == 'onnx':  # the directions of the rejection are numbers of 2 bytes, in the file, too
        tensors = onnx.load(path).graph.initializer
        halves = [t.dims for t in tensors if t.data_type == onnx.TensorProto.FLOAT16]
        assert [n for n, *_ in halves] == [N]
    ours, theirs = load_tagger(out), load_tagger(path)
    for sound in clips.paths[:3]:
        a, b = ours.tag(sound), theirs.tag(sound)
        assert [label for label, _ in a] == [label for label, _ in b]
        np.testing.assert_allclose([p for _, p in a], [p for _, p in b], atol=1e-3)


def test_a_changed_run_is_refused(run, tmp_path):
    _, out, _ = run
    shutil.copytree(out, tmp_path / 'run')
    (tmp_path / 'run/best_0.npz').write_bytes(b'PK')
    with pytest.raises(ModelError, match='do not belong to its config.json'):
        load_tagger(tmp_path / 'run')


def test_without_weights_strong_is_trained_and_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv('SOUNDTAG_CACHE', str(tmp_path / 'none'))

    def offline():
        raise WeightsError('YAMNet cannot be fetched')

    monkeypatch.setattr('soundtag.pretrained.download_weights', offline)
    assert console.default_recipe() == 'strong'
    assert 'strong instead' in capsys.readouterr().err
    monkeypatch.setattr('soundtag.pretrained.download_weights', lambda: 'here')
    assert console.default_recipe() == 'pretrained'


def test_settings_are_read_back():
    recipe = replace(RECIPE, means=(('woof', 'Dog'),))
    settings = json.loads(json.dumps(recipe.settings))
    assert Recipe.from_settings(settings) == recipe
    with pytest.raises(RunError, match='of no recipe'):
        Recipe.from_settings({'classifier': 'linear', 'name': 'x'})


@pytest.mark.parametrize('settings', [{'shrinkages': ()}, {'shrinkages': (0,)}, {'names_share': 1}])
def test_settings_that_cannot_be_meant(settings):
    with pytest.raises(RunError, match=next(iter(settings))):
        replace(RECIPE, **settings)
    with pytest.raises(RunError, match='has no epochs'):
        train_folds(mini(), 'pretrained', epochs=3, out='x')
