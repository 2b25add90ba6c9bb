"Sounds that are none of the labels: what a run keeps of them, and that nothing false is learned or believed."

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from test_linear import N, RECIPE, embeddings
from test_linear import recipe as recipe, run as run  # fixtures

import soundtag.console as console
from soundtag.audio import wav_bytes
from soundtag.dataset import DataError, load_clips
from soundtag.export import export
from soundtag.linear import project_sounds
from soundtag.pretrained import WeightsError
from soundtag.recipe import LinearRecipe, RunError
from soundtag.rejection import Rejector, familiarity_table, fit_rejector, rejection_scores
from soundtag.results import evaluate, load_run
from soundtag.tagging import ModelError, Tagger, load_tagger
from soundtag.training import train_folds

NONE = np.zeros(3, bool)


def taught(X, y, train):
    return project_sounds(X, train, y, ['a', 'b', 'c'], recipe=RECIPE, seed=0)


def test_labels_left_out_are_told_and_noise_is_not_known():
    X, y = embeddings(90, 3, apart=2)
    train, held_out = np.arange(60), np.arange(60, 90)
    sounds = taught(X, y, train)
    table = familiarity_table(sounds, X[held_out, :, 0, 0], NONE)
    scores = rejection_scores(table, y[held_out], NONE, 0.05)
    assert scores['auroc'] > 0.95 and scores['unknown_called_unknown'] > 0.8
    rejector = fit_rejector(sounds, np.tile(table, (2, 1)), NONE)
    assert (rejector.unknown(X[held_out, :, 0, 0]) > 0.5).mean() <= 0.1
    between = X[:1, :, 0, 0] + X[1:2, :, 0, 0]
    assert rejector.unknown(between)[0] > 0.5


def test_labels_by_lot_tell_nothing():
    X, y = embeddings(120, 3, apart=2)
    lots = np.random.default_rng(1).permutation(y)
    train, held_out = np.arange(80), np.arange(80, 120)
    table = familiarity_table(taught(X, lots, train), X[held_out, :, 0, 0], NONE)
    scores = rejection_scores(table, lots[held_out], NONE, 0.05)
    assert abs(scores['auroc'] - 0.5) < 0.15


def test_the_held_out_fold_teaches_nothing():
    X, y = embeddings(60, 3)
    train = np.flatnonzero(np.arange(60) % 4)
    spoilt = X.copy()
    spoilt[::4] = np.nan
    a, b = (fit_rejector(taught(Z, y, train), np.zeros((45, 4)), NONE) for Z in (X, spoilt))
    assert np.array_equal(a.familiarity(X[:9, :, 0, 0]), b.familiarity(X[:9, :, 0, 0]))


def test_the_share_sets_the_threshold():
    rejector = Rejector(None, np.linspace(0, 1, 101, dtype='float32'), 5.0)
    assert replace(rejector, share=0.2).threshold == pytest.approx(0.2)
    assert replace(rejector, share=0).threshold == -np.inf
    assert replace(rejector, slope=0.0).threshold == -np.inf
    with pytest.raises(RunError, match='unknown_share=1'):
        LinearRecipe(name='x', unknown_share=1)
    assert LinearRecipe.from_settings({k: v for k, v in RECIPE.settings.items() if k != 'unknown_share'}) == RECIPE


@pytest.fixture
def copy(run, tmp_path):
    shutil.copytree(run[1], tmp_path / 'run')
    return tmp_path / 'run'


def test_a_run_says_what_it_does_not_know(run, copy):
    clips, out, folder = run
    tagger = load_tagger(out)
    noise = 0.3 * np.random.default_rng(0).standard_normal(2 * tagger.sr)
    assert tagger.rejects and tagger.tag(noise, sr=tagger.sr)
    p = tagger.probabilities(clips.paths[0])
    assert 0 < p.sum() <= 1
    found = evaluate(load_run(out), clips, cache=folder / 'cache')['rejection']
    assert 0 <= found['auroc'] <= 1 and found['known_called_unknown'] == 0.05
    (copy / 'unknown.npz').unlink()  # as runs of earlier versions have it
    older = load_tagger(copy)
    assert not older.rejects and older.probabilities(clips.paths[0]).sum() == pytest.approx(1)


def test_a_share_of_nought_calls_nothing_unknown(copy):
    config = json.loads((copy / 'config.json').read_text())
    for share, rejects in ((0, False), (0.5, True)):
        config['recipe']['unknown_share'] = share
        (copy / 'config.json').write_text(json.dumps(config))
        assert load_tagger(copy).rejects == rejects
    config['recipe']['unknown_share'] = 'much'
    (copy / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ModelError, match='unknown_share'):
        load_tagger(copy)


@pytest.mark.parametrize(
    'spoil',
    [
        lambda p: p.write_bytes(b'PK'),
        lambda p: p.write_bytes(p.read_bytes()[:-50]),
        lambda p: np.savez(p, known=np.array([None], object)),
        lambda p: np.savez(p, **{**np.load(p), 'slope': np.float32(np.nan)}),
        lambda p: np.savez(p, **{**np.load(p), 'columns': np.array([N, N + 1])}),
        lambda p: np.savez(p, **{**np.load(p), 'linear': np.zeros((2, 2), 'float32')}),
    ],
    ids='stub cut pickle nan places shape'.split(),
)
def test_a_spoilt_rejector_is_refused(copy, spoil):
    spoil(copy / 'unknown.npz')
    with pytest.raises(ModelError, match='unknown.npz|do not belong'):
        load_tagger(copy)


def test_a_spoilt_table_is_one_error(run, copy):
    clips, _, folder = run
    path = copy / 'predictions/familiarity.npy'
    table = np.load(path)
    infinite = np.full_like(table, np.inf)
    for spoilt in (table[:-1], table[:, 1:], infinite, np.array([None], object)):
        np.save(path, spoilt)
        with pytest.raises(RunError, match='familiarity.npy: is damaged'):
            evaluate(load_run(copy), clips, cache=folder / 'cache')


def test_a_run_of_an_earlier_version_goes_on(run, copy, recipe):
    clips, _, folder = run
    config = json.loads((copy / 'config.json').read_text())
    del config['recipe']['unknown_share']
    (copy / 'config.json').write_text(json.dumps(config))
    (copy / 'unknown.npz').unlink()
    for path in (copy / 'predictions').glob('familiarity*.npy'):
        path.unlink()
    with pytest.warns(UserWarning, match='fold 0 is trained again'):
        train_folds(clips, recipe, 2, copy, cache=folder / 'cache', progress=False)
    assert load_tagger(copy).rejects


@pytest.fixture(scope='module')
def background(tmp_path_factory, recipe):
    "A run with a label that is none."
    folder = tmp_path_factory.mktemp('negatives')
    rng = np.random.default_rng(0)
    for label, pitch in (('high', 1500), ('low', 300), ('background', 0)):
        for i in range(6):
            t = np.arange(16000) / 16000
            y = 0.02 * rng.standard_normal(16000)
            if pitch:
                y += 0.4 * np.sin(2 * np.pi * (pitch + 9 * i) * t)
            path = folder / 'sounds' / label / f'{i}.wav'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wav_bytes(y, sr=16000))
    clips = load_clips(folder / 'sounds')
    out = train_folds(clips, recipe, 2, folder / 'run', cache=folder / 'cache', progress=False)
    return clips, out


def test_background_is_learned_and_never_answered(background, tmp_path):
    clips, out = background
    assert clips.negatives == ('background',) and 'background stands for' in clips.describe()
    tagger = load_tagger(out)
    assert tagger.labels == ['high', 'low'] and tagger.rejects
    sound = clips.paths[list(clips.table.label).index('background')]
    assert tagger.tag(sound)[0][0] == 'unknown'
    assert tagger.tag(clips.paths[list(clips.table.label).index('low')])[0][0] == 'low'
    for ending in ('onnx', 'keras'):
        path, difference = export(out, tmp_path / f'x.{ending}')
        again = load_tagger(path)
        assert difference < 1e-3 and again.labels == ['high', 'low'] and again.rejects
        assert again.tag(sound)[0][0] == 'unknown'


def test_who_names_negatives_names_all_of_them(background):
    clips, _ = background
    assert load_clips(clips.root, negatives=['low']).negatives == ('low',)
    assert load_clips(clips.root, negatives=[]).negatives == ()
    for names in (['lows'], ['high', 'low', 'background']):
        with pytest.raises(DataError, match='negatives'):
            load_clips(clips.root, negatives=names)


def test_what_is_missing_to_one_is_unknown():
    def predict(X):
        return np.tile([0.1, 0.2], (len(X), 1))

    tagger = Tagger(predict, ['a', 'b'], sr=8000, seconds=1.0, rejects=True)
    (name, p), *rest = tagger.tag(np.sin(np.arange(9000)), sr=8000)
    assert (name, round(p, 6)) == ('unknown', 0.7) and rest[0][0] == 'b'
    closed = replace(tagger, rejects=False)
    assert closed.tag(np.sin(np.arange(9000)), sr=8000)[0] == ('b', pytest.approx(2 / 3))


def test_the_best_model_that_can_be_had_answers(monkeypatch, capsys, tmp_path):
    import soundtag.pretrained

    monkeypatch.setenv('SOUNDTAG_CACHE', str(tmp_path / 'none'))
    monkeypatch.setattr(soundtag.pretrained, 'download_weights', lambda *a, **k: 'there')
    assert console.default_model() == 'yamnet'
    assert '--model bundled' in capsys.readouterr().err

    def fail(*a, **k):
        raise WeightsError('YAMNet cannot be fetched')

    monkeypatch.setattr(soundtag.pretrained, 'download_weights', fail)
    assert console.default_model() == 'bundled'
    assert 'cannot be fetched' in capsys.readouterr().err


def test_options_reach_the_recipe():
    recipe = console.with_options('pretrained', ['bark=Dog'], 0.2)
    assert recipe.unknown_share == 0.2 and recipe.means == (('bark', 'Dog'),)
    with pytest.raises(RunError, match='--unknown'):
        console.with_options('post', [], 0.2)
