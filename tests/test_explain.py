"Why it says so: the map finds what a tagger listens to, whatever that is."

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soundtag.audio import AudioError, wav_bytes
from soundtag.explain import (
    DEPTH,
    apply_mask,
    bins_and_frames,
    explain,
    istft,
    plot_explanation,
    predict_masked,
    random_mask,
    stft,
)
from soundtag.tagging import Calibration, Tagger

SR = 16000


def listener(low, high, **options):
    "A tagger that hears one band only."

    def answer(X):
        power, hz = np.abs(np.fft.rfft(X)) ** 2, np.fft.rfftfreq(X.shape[1], 1 / SR)
        loud = 10 * np.log10(power[:, (hz >= low) & (hz < high)].sum(1) + 1e-9)
        p = 1 / (1 + np.exp(-(loud - 20) / 10))
        return np.stack([p, 1 - p], 1)

    return Tagger(answer, ['band', 'other'], SR, 2.0, **options)


def noise(seconds=2.0, seed=0):
    return np.random.default_rng(seed).normal(0, 0.05, int(seconds * SR)).astype('float32')


def axes(explanation):
    return bins_and_frames(explanation.S, sr=SR)


@pytest.mark.parametrize('low, high', [(300, 700), (1500, 2500), (4000, 6000)])
def test_the_map_finds_the_band_that_a_tagger_listens_to(low, high):
    explanation = explain(listener(low, high), noise(), SR, label='band', masks=150)
    hz, _ = axes(explanation)
    rows = explanation.relevance.mean(1)
    assert low <= hz[rows.argmax()] < high
    inside = (hz >= low) & (hz < high)
    assert rows[inside].mean() > 5 * np.abs(rows[~inside]).mean()


def test_the_map_finds_the_moment():
    y = noise() * 0.01
    y[int(1.4 * SR) : int(1.5 * SR)] += noise(0.1)
    explanation = explain(listener(0, 8000), y, SR, label='band', masks=150)
    _, s = axes(explanation)
    assert abs(s[explanation.relevance.mean(0).argmax()] - 1.45) < 0.2


def test_for_one_of_two_labels_is_against_the_other():
    tagger = listener(1500, 2500)
    one, two = (explain(tagger, noise(), SR, label=l, masks=20) for l in ('band', 'other'))
    np.testing.assert_allclose(one.relevance, -two.relevance, atol=1e-9)


def test_seed_and_label():
    tagger = listener(1500, 2500)
    one, same, other = (explain(tagger, noise(), SR, masks=10, seed=s) for s in (0, 0, 1))
    assert np.array_equal(one.relevance, same.relevance) and not np.array_equal(
        one.relevance, other.relevance
    )
    assert one.label == tagger.tag(noise(), SR)[0][0] and one.p == pytest.approx(
        tagger.tag(noise(), SR)[0][1]
    )


def test_what_matters_alone_is_the_band():
    explanation = explain(listener(1500, 2500), noise(), SR, label='band', masks=150)
    most, least = explanation.alone(0.1), explanation.alone(0.1, least=True)
    assert most.shape == least.shape == (2 * SR,)
    power, hz = np.abs(np.fft.rfft(most)) ** 2, np.fft.rfftfreq(len(most), 1 / SR)
    assert power[(hz > 1200) & (hz < 2900)].sum() > 0.8 * power.sum()
    p = [listener(1500, 2500).probabilities(y, SR)[0] for y in (most, least)]
    assert p[0] > p[1] + 0.1


@given(
    n=st.integers(1, 40000),
    sr=st.sampled_from([8000, 16000, 22050, 44100, 96000]),
    seed=st.integers(0, 9),
)
@settings(max_examples=25, deadline=None)
def test_any_length_comes_back_as_it_was(n, sr, seed):
    y = np.random.default_rng(seed).normal(0, 0.1, n).astype('float32')
    S = stft(y, sr=sr)
    np.testing.assert_allclose(istft(S, n, sr=sr), y, atol=1e-5)
    mask = random_mask(S, np.random.default_rng(seed), sr=sr)
    assert mask.shape == S.shape and 0 <= mask.min() and mask.max() <= 1 + 1e-6
    np.testing.assert_allclose(
        apply_mask(S, np.zeros(S.shape), n, sr=sr), y * 10 ** (-DEPTH / 20), atol=1e-5
    )


def test_files_and_rates(tmp_path):
    (tmp_path / 'a.wav').write_bytes(wav_bytes(np.stack([noise(), noise(seed=1)]), sr=SR))
    explanation = explain(listener(1500, 2500), tmp_path / 'a.wav', masks=3)
    assert explanation.n == 2 * SR
    assert explain(listener(1500, 2500), noise(), 2 * SR, masks=3).n == SR


def test_a_tagger_that_leaves_silence_out_and_sounds_of_many_windows():
    y = np.concatenate([np.zeros(SR, 'float32'), noise(5.3), np.zeros(SR, 'float32')])
    explanation = explain(
        listener(1500, 2500, trim_db=60, fill='repeat'), y, SR, label='band', masks=60
    )
    hz, s = axes(explanation)
    assert (
        1500 <= hz[explanation.relevance.mean(1).argmax()] < 2500
        and 1 < s[explanation.relevance.mean(0).argmax()] < 6.3
    )


def test_errors(tmp_path):
    (tmp_path / 'silent.wav').write_bytes(wav_bytes(np.zeros(SR), sr=SR))
    with pytest.raises(AudioError, match=r'silent\.wav: is silent'):
        explain(listener(0, 500), tmp_path / 'silent.wav')
    with pytest.raises(ValueError, match='no label of this model; choose one of band, other'):
        explain(listener(0, 500), noise(), SR, label='dog')


def test_a_mask_gives_a_probability_a_label_and_zeros_for_silence():
    S = stft(noise(), sr=SR)
    p = predict_masked(listener(0, 500), S, 2 * SR, np.ones(S.shape))
    np.testing.assert_allclose(p, listener(0, 500).probabilities(noise(), SR), atol=1e-4)
    silence = predict_masked(listener(0, 500), S * 1e-4, 2 * SR, np.zeros(S.shape))
    assert silence.tolist() == [0, 0]


def test_the_figure_has_units():
    import matplotlib

    matplotlib.use('Agg')
    ax = plot_explanation(explain(listener(0, 500), noise(), SR, masks=3))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ('time [s]', 'frequency [Hz]')


def test_each_answer_among_several_labels_has_a_map_of_its_own():
    def answer(X):
        power, hz = np.abs(np.fft.rfft(X)) ** 2, np.fft.rfftfreq(X.shape[1], 1 / SR)
        bands = [power[:, (hz >= low) & (hz < low + 400)].sum(1) for low in (300, 2000)]
        return 1 / (1 + np.exp(61 - 10 * np.log10(np.stack(bands, 1) + 1e-9)))

    calibration = Calibration(thresholds={'low': 0.5, 'high': 0.5})
    tagger = Tagger(answer, ['low', 'high'], SR, 2.0, independent=True, calibration=calibration)
    t = np.arange(SR) / SR
    y = np.concatenate([np.sin(2 * np.pi * 500 * t), np.sin(2 * np.pi * 2200 * t)]) * 0.3
    answers = tagger.tag(y, SR)
    assert {label for label, _ in answers} == {'low', 'high'}
    for label, _ in answers:
        explanation = explain(tagger, y, SR, label=label, masks=200)
        hz, s = axes(explanation)
        first = explanation.relevance[np.ix_((hz > 400) & (hz < 600), s < 0.9)].mean()
        second = explanation.relevance[np.ix_((hz > 2100) & (hz < 2300), s > 1.1)].mean()
        own, other = (first, second) if label == 'low' else (second, first)
        assert own > 0.1 and own > 5 * abs(other), label  # the other sound doesn't speak against it
