"Timelines of long recordings: the same whatever the blocks, bounded memory, honest files, hostile input."

import csv
import io
import json
import sys
import tracemalloc
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from soundtag.audio import AudioError
from soundtag.cli import main
from soundtag.answers import EVENT_COLUMNS, RowWriter, audacity_line, event_row
from soundtag.tagging import Calibration, Tagger
from soundtag.timeline import Event, Timeline, Tracker, listen, timeline

SR = 16000


def high_or_low(X):
    "Whether most power is above 1 kHz."
    p = np.abs(np.fft.rfft(X)) ** 2
    high = p[:, 1000 * X.shape[1] // SR :].sum(1) / (p.sum(1) + 1e-9)
    return np.c_[high, 1 - high]


CALIBRATION = Calibration(thresholds={'high': 0.6, 'low': 0.6})
TAGGER = Tagger(high_or_low, ['high', 'low'], SR, 1.0, calibration=CALIBRATION)


def tone(hz, seconds, sr=SR):
    return (0.2 * np.sin(2 * np.pi * hz * np.arange(round(seconds * sr)) / sr)).astype('float32')


def melody(sr=SR):
    "Low from 1 to 2.5 s, high from 4 to 4.6 s, silence elsewhere, 8 s in all."
    y = np.zeros(8 * sr, 'float32')
    y[sr : sr * 5 // 2], y[4 * sr : 4 * sr + sr * 3 // 5] = tone(200, 1.5, sr), tone(3000, 0.6, sr)
    return y


def test_events_are_where_they_are():
    told = {e.label: e for e in timeline(TAGGER, melody(), SR)}
    assert told.keys() == {'low', 'high', 'silence'}
    for label, onset, offset in (('low', 1, 2.5), ('high', 4, 4.6)):
        assert (
            abs(told[label].onset - onset) <= 0.04
            and abs(told[label].offset - offset) <= 0.1
            and told[label].probability > 0.6
        )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 30_000), min_size=1, max_size=30), st.sampled_from([SR, 44100, 8000])
)
def test_blocks_of_any_size_give_the_same_timeline(sizes, sr):
    y, blocks, at = melody(sr), [], 0
    for size in sizes:
        blocks.append(y[at : at + size])
        at += size
    blocks.append(y[at:])
    assert timeline(TAGGER, blocks, sr) == timeline(TAGGER, y, sr)


def test_a_stream_is_told_what_the_file_is(tmp_path):
    noisy = melody(44100) + 1e-3 * np.random.default_rng(0).normal(size=8 * 44100)
    sf.write(tmp_path / 'a.wav', np.c_[noisy, noisy], 44100)
    y, _ = sf.read(tmp_path / 'a.wav', dtype='float32')
    assert timeline(TAGGER, (y[a : a + 777].T for a in range(0, len(y), 777)), 44100) == timeline(
        TAGGER, tmp_path / 'a.wav'
    )


@pytest.mark.parametrize('seconds', [1e-4, 0.05, 0.21, 0.999, 1.01])
def test_short_sounds_have_a_timeline(seconds):
    events = timeline(TAGGER, tone(3000, seconds), SR)
    assert all(0 <= e.onset <= e.offset <= seconds + 1e-3 for e in events)
    if seconds > 0.2:
        assert [e.label for e in events] == ['high']


def test_events_come_while_it_goes_on():
    live, y = Timeline(TAGGER), melody()
    when = {
        e.label: (a + 800) / SR
        for a in range(0, len(y), 800)
        for e in live.feed(y[a : a + 800], SR)
    }
    assert 2.5 < when['low'] < 6.5


def test_memory_does_not_grow_with_the_length():
    def peak(seconds):
        rng = np.random.default_rng(0)
        tracemalloc.start()
        heard = Timeline(TAGGER)
        for _ in listen(heard, (rng.normal(size=SR).astype('float32') for _ in range(seconds)), SR):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(heard.spectrogram.columns) < 1000 and abs(heard.seconds - seconds) < 1e-6
        return most

    peak(3)
    assert peak(240) < 1.5 * peak(40)


@pytest.mark.parametrize(
    'audio, sr, part',
    [
        ([], SR, 'no samples'),
        (np.zeros(0), SR, 'no samples'),
        ([np.zeros(0)], 44100, 'no samples'),
        (np.full(1, 0.1), 44100, 'no samples'),
        (np.zeros((3, 2)), SR, 'shape'),
        (np.full(99, np.nan), SR, 'NaN'),
        (np.zeros(9, int), SR, 'amplitudes'),
        (np.zeros(9), None, 'rate'),
        ('none.wav', None, 'no such file'),
        ('none.wav', SR, 'leave sr out'),
    ],
)
def test_bad_sound_is_one_clear_error(audio, sr, part):
    with pytest.raises(AudioError, match=part):
        timeline(TAGGER, audio, sr)


def test_what_was_heard_before_an_error_is_kept():
    events = []
    with pytest.raises(AudioError):
        for e in listen(Timeline(TAGGER), [melody(), np.full(10, np.inf)], SR):
            events.append(e)
    assert 'low' in [e.label for e in events]


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(Tagger, 'load', staticmethod(lambda path, distance=False, trust=False: TAGGER))


def cli(*words, stdin=b''):
    with (
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
        pytest.MonkeyPatch.context() as m,
    ):
        m.setattr(sys, 'stdin', SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(stdin))))
        code = main(['tag', *map(str, words), '--model', 'bundled'])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def wav(tmp_path):
    sf.write(tmp_path / 'night, one.wav', melody(), SR)
    return tmp_path / 'night, one.wav'


def test_every_form_tells_the_same(model, wav):
    events = timeline(TAGGER, wav)
    rows = json.loads(cli(wav, '--timeline', '--format', 'json')[1])
    table = list(csv.DictReader(io.StringIO(cli(wav, '--timeline', '--format', 'csv')[1])))
    track = [
        line.split('\t') for line in cli(wav, '--timeline', '--format', 'audacity')[1].splitlines()
    ]
    for found in (
        ([r['onset'], r['offset'], r['label']] for r in rows),
        ([float(r['onset']), float(r['offset']), r['label']] for r in table),
        ([float(a), float(b), label] for a, b, label in track),
    ):
        assert list(found) == [[e.onset, e.offset, e.label] for e in events]
    assert {r['file'] for r in rows} == {r['file'] for r in table} == {str(wav)}
    assert len(cli(wav, '--timeline')[1].splitlines()) == len(events)


def test_standard_input_is_a_recording_too(model, wav):
    _, from_file, _ = cli(wav, '--timeline')
    assert cli('-', '--timeline', stdin=wav.read_bytes()) == (0, from_file, '')
    assert cli(
        '-', '--timeline', '--raw', SR, stdin=sf.read(wav, dtype='int16')[0].tobytes() + b'x'
    ) == (0, from_file, '')
    code, out, _ = cli('-', '--format', 'csv', '--top', '1', stdin=wav.read_bytes())
    assert code == 0 and out.splitlines()[1].startswith('standard input,1,low')
    code, out, err = cli('-', '--timeline', stdin=b'no sound')
    assert (
        (code, out) == (1, '')
        and err.startswith('soundtag: standard input: is not sound')
        and err.count('\n') == 1
    )


@pytest.mark.parametrize('form, kept', [('text', 0), ('csv', 0), ('audacity', 0), ('json', 100)])
def test_only_json_keeps_what_was_written(form, kept, capsys):
    "A live sound may go on for days."
    writer = RowWriter(form, EVENT_COLUMNS)
    event = Event(1.0, 2.0, 'dog', 0.5)
    for _ in range(100):
        writer.write([event_row('a.wav', event)], audacity_line(event))
    assert len(writer._rows) == kept and not writer.failed
    writer.close()
    assert capsys.readouterr().out.count('dog') == 100


def test_a_gap_ends_an_event_when_it_is_two_seconds_long():
    loud = np.zeros((600, 1))
    for gap, number in ((9, 1), (10, 2)):
        scores = np.zeros((60, 3))
        scores[[20, 21 + gap], 0] = 1
        tracker = Tracker(['dog'])
        assert tracker.max_gap(0) == 9 and tracker.max_gap(2) == 0
        assert len(tracker.feed(scores, loud) + tracker.close(12.0)) == number


@pytest.mark.parametrize('end', ['png', 'svg', 'pdf'])
def test_a_picture_is_drawn(model, wav, end):
    assert cli(wav, '--timeline', '--picture', wav.with_suffix(f'.{end}'))[0] == 0
    assert wav.with_suffix(f'.{end}').stat().st_size > 5000 and len(list(wav.parent.iterdir())) == 2


@pytest.mark.parametrize(
    'words, part',
    [
        (['a.wav', '--picture', 'a.png'], '--timeline'),
        (['a.wav', '--format', 'audacity'], '--timeline'),
        (['a.wav', '--raw', '8000', '--timeline'], 'give -'),
        (['a.wav', '--timeline', '--picture', 'a.wav'], '.png'),
        (['a.wav', 'b.wav', '--timeline', '--format', 'audacity'], 'by --out'),
        (['a.wav', 'b.wav', '--timeline', '--picture', 'a.png'], 'one at a time'),
    ],
)
def test_options_that_do_not_fit_are_refused(model, words, part):
    code, out, err = cli(*words)
    assert (code, out) == (2, '') and part in err and err.count('\n') == 1


def test_one_bad_file_stops_nothing(model, wav):
    (wav.parent / 'bad.wav').write_bytes(b'RIFF')
    code, out, err = cli(wav.parent, '--timeline', '--format', 'json')
    rows = json.loads(out)
    assert (
        code == 1
        and 'bad.wav' in err
        and [r['error'] is None for r in rows].count(False) == 1
        and {'low', 'high'} <= {r['label'] for r in rows}
    )
