"Chapter 10 from outside: rooms that keep to physics, dice that fall alike everywhere, and nothing that leaks."

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from soundtag.audio import wav_bytes
from soundtag.dataset import DataError, load_clips
from soundtag.rooms import (
    LEAD,
    SPEED_OF_SOUND,
    Room,
    RoomDistribution,
    estimate_rt60,
    direct_to_reverberant,
    draw_position,
    draw_room,
    image_sources,
    late_reverberation,
    free_field_response,
    read_responses,
    simulate_recording,
    room_impulse_response,
    response_file,
    simulate_dataset,
    simulate_rooms,
)
from soundtag.synthesis import Voice, perform

SR = 16000
SMALL = RoomDistribution(rooms=5, positions=2, size=(3.0, 8.0), seed=11)


@pytest.fixture(scope='module')
def drum():
    return perform(
        'Bass_drum', Voice(0.3, 0.5, 0.5), seconds=1.5, sr=SR, rng=np.random.default_rng(0)
    ).astype('float32')


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rooms')
    simulate_rooms(SMALL, cache=folder, n_jobs=1, progress=False)
    return folder


# physics


def test_energy_falls_with_the_square_of_the_distance_where_no_wall_answers():
    hard = Room(np.array([14.0, 14, 5]), np.full((6, 7), 0.3))
    energy = [
        np.sum(image_sources(hard, [2 + d, 7, 1.5], [2, 7, 1.5], sr=SR, order=0) ** 2)
        for d in (1, 2, 4, 8)
    ]
    np.testing.assert_allclose(
        np.array(energy) * np.array([1, 4, 16, 64]), energy[0], rtol=0.12
    )  # air takes the rest
    np.testing.assert_allclose(
        [np.sum(free_field_response(d, sr=SR) ** 2) * d * d for d in (1, 2, 4, 8)], 1, rtol=0.12
    )


@pytest.mark.parametrize(
    'size, absorption', [((4, 5, 2.5), 0.15), ((7, 6, 3), 0.3), ((12, 9, 4), 0.2)]
)
def test_reverberation_time_is_near_eyrings_and_sabines(size, absorption):
    room = Room(np.array(size, float), np.full((6, 7), absorption))
    rng = np.random.default_rng(3)
    times = [
        estimate_rt60(
            room_impulse_response(
                room, *draw_position(rng, room, RoomDistribution()), sr=SR, rng=rng
            ),
            sr=SR,
        )
        for _ in range(4)
    ]
    assert abs(np.median(times) / room.rt60[3:6].mean() - 1) < 0.3
    sabine = 0.161 * room.volume / (absorption * room.surfaces.sum())
    assert room.rt60[0] < sabine < 1.35 * room.rt60[0]


def test_images_and_noise_agree_on_the_level_where_they_meet():
    rng, off = np.random.default_rng(5), []
    for _ in range(12):
        room = draw_room(rng, RoomDistribution())
        early = image_sources(room, *draw_position(rng, room, RoomDistribution()), sr=SR, order=10)
        a, b = (
            LEAD + int(part * SR * 10 / SPEED_OF_SOUND / np.sqrt(np.sum(1 / room.size**2)))
            for part in (0.5, 1)
        )
        off.append(
            10
            * np.log10(
                np.sum(early[a:b] ** 2)
                / np.sum(late_reverberation(b, sr=SR, room=room, rng=rng)[a:b] ** 2)
            )
        )
    assert abs(np.median(off)) < 2.5


def test_farther_is_more_reverberant():
    rng, near, far = np.random.default_rng(0), [], []
    for _ in range(10):
        room = draw_room(rng, RoomDistribution(size=(7.0, 10.0)))
        for d, found in ((0.5, near), (4, far)):
            found.append(
                direct_to_reverberant(
                    room_impulse_response(
                        room, *draw_position(rng, room, RoomDistribution(), d), sr=SR, rng=rng
                    ),
                    sr=SR,
                )
            )
    assert all(n > f + 5 for n, f in zip(near, far))


# dice, and what is kept


def test_responses_are_the_same_whatever_makes_them(cache, tmp_path):
    one = simulate_rooms(SMALL, cache=cache, progress=False)
    two = simulate_rooms(SMALL, cache=tmp_path, n_jobs=2, progress=False)
    assert one.samples.tobytes() == two.samples.tobytes()
    pd.testing.assert_frame_equal(one.table, two.table)
    assert response_file(SMALL, cache).read_bytes() == response_file(SMALL, tmp_path).read_bytes()
    assert not np.array_equal(
        one[0],
        simulate_rooms(replace(SMALL, rooms=1, seed=12), cache=tmp_path, n_jobs=1, progress=False)[
            0
        ],
    )


def test_what_is_kept_is_not_made_again_and_a_damaged_file_is(cache, monkeypatch):
    kept = simulate_rooms(SMALL, cache=cache, progress=False)
    file = response_file(SMALL, cache)
    with monkeypatch.context() as m:
        m.setattr('soundtag.rooms.room_responses', lambda *_: pytest.fail('made again'))
        simulate_rooms(SMALL, cache=cache, progress=False)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert (
        simulate_rooms(SMALL, cache=cache, n_jobs=1, progress=False).samples.tobytes()
        == kept.samples.tobytes()
    )
    assert [p.name for p in cache.iterdir()] == [file.name]  # nothing half-written is left


def test_a_killed_simulation_leaves_no_file(tmp_path, monkeypatch):
    def fails(rooms, number):
        raise KeyboardInterrupt

    monkeypatch.setattr('soundtag.rooms.room_responses', fails)
    with pytest.raises(KeyboardInterrupt):
        simulate_rooms(SMALL, cache=tmp_path, n_jobs=1, progress=False)
    assert not list(tmp_path.iterdir())


# leaks


def test_every_response_starts_at_its_direct_sound(cache):
    responses = simulate_rooms(
        replace(SMALL, rooms=12, positions=3), cache=cache, n_jobs=1, progress=False
    )
    starts = [
        int(np.argmax(np.abs(h) > 0.3 * np.abs(h[: LEAD + 20]).max()))
        for h in (responses[i] for i in range(len(responses)))
    ]
    assert (
        max(abs(s - LEAD) for s in starts) <= 3
        and abs(np.corrcoef(starts, responses.table.distance_m)[0, 1]) < 0.5
    )


def test_neither_level_nor_noise_nor_start_tells_the_distance(drum, cache):
    responses = simulate_rooms(
        replace(SMALL, rooms=30, positions=4, size=(3.0, 15.0)),
        cache=cache,
        n_jobs=1,
        progress=False,
    )
    d, level, onset, noise = np.log(responses.table.distance_m), [], [], []
    for i in range(len(responses)):
        y = simulate_recording(
            drum, responses[i], sr=SR, rng=np.random.default_rng([1, i]), seconds=2.5
        )
        energy = np.square(y).reshape(-1, 160).sum(1)
        level.append(np.log(np.abs(y).max()))
        onset.append(np.argmax(energy > 0.2 * energy.max()))
        noise.append(np.log(np.quantile(energy, 0.02) / energy.max()))
    limit = 3.3 / np.sqrt(len(d))
    assert abs(np.corrcoef(level, d)[0, 1]) < limit and abs(np.corrcoef(onset, d)[0, 1]) < limit
    np.testing.assert_allclose(
        simulate_recording(
            drum, 1000 * responses[0], sr=SR, rng=np.random.default_rng(1), seconds=2
        ),
        simulate_recording(drum, responses[0], sr=SR, rng=np.random.default_rng(1), seconds=2),
        atol=2e-5,
    )


def test_noise_is_as_far_below_the_sound_as_asked(drum):
    h = np.eye(1, 2 * LEAD, LEAD)[0]
    how = dict(sr=SR, seconds=1.5, start=0, peak=(0, 0))
    clean, noisy = (
        simulate_recording(drum, h, rng=np.random.default_rng(4), snr=(s, s), **how)
        for s in (300, 10)
    )
    scale = np.dot(clean, noisy) / np.dot(clean, clean)
    assert (
        abs(
            10 * np.log10(np.mean((scale * clean) ** 2) / np.mean((noisy - scale * clean) ** 2))
            - 10
        )
        < 1
    )


# readers


def test_measured_responses_come_back_as_they_were(tmp_path, cache):
    made = simulate_rooms(SMALL, cache=cache, progress=False)
    for i in range(4):
        travel = round(made.table.distance_m[i] / SPEED_OF_SOUND * SR)
        both = np.stack(
            [np.pad(made[i], (travel, 0)), np.zeros(travel + len(made[i]))]
        )  # a second channel that is broken
        (tmp_path / f'{i}.wav').write_bytes(wav_bytes(both, sr=SR))
    made.table[:4].assign(Filename=[f'{i}.wav' for i in range(4)])[
        ['Filename', 'distance_m', 'room']
    ].to_csv(tmp_path / 'rooms.csv', index=False)
    read = read_responses(tmp_path / 'rooms.csv', sr=SR)
    np.testing.assert_allclose(read.table.distance_m, made.table.distance_m[:4])
    np.testing.assert_allclose(read.table.drr, made.table.drr[:4], atol=1.5)
    np.testing.assert_allclose(read.table.rt60, made.table.rt60[:4], rtol=0.1)
    assert (
        read.table.room.astype(int).tolist() == made.table.room[:4].tolist()
        and abs(len(read_responses(tmp_path, sr=8000)[0]) - len(read[0]) / 2) < 50
    )


def write_sofa(path, places, *, kind, rate=48000):
    "One response per place, of two receivers, the first of them a click."
    import h5py

    h = np.zeros((len(places), 2, 4800))
    for row, place in zip(h, np.asarray(places)):
        row[0, 100 + int(place[-1])] = 0.5
    with h5py.File(path, 'w') as file:
        file['Data.IR'] = h
        file['Data.SamplingRate'] = [rate]
        file['ListenerPosition'] = [[0.0, 0, 0]]
        file.create_dataset('SourcePosition', data=np.float64(places)).attrs['Type'] = kind
    return path


def test_a_sofa_file_tells_distances_in_either_kind_of_coordinates(tmp_path):
    flat = write_sofa(tmp_path / 'hall.sofa', [[3, 4, 0], [0, 0, 2]], kind='cartesian')
    read = read_responses(flat, sr=SR)
    assert read.table.distance_m.tolist() == [5, 2] and set(read.table.room) == {'hall'}
    assert [np.abs(read[i]).argmax() for i in range(2)] == pytest.approx([LEAD] * 2, abs=2)
    turned = write_sofa(tmp_path / 'turned.sofa', [[90, 0, 5], [30, 60, 2]], kind='spherical')
    np.testing.assert_allclose(read_responses(turned).table.distance_m, [5, 2])


def test_a_sofa_file_without_distances_says_why(tmp_path):
    here = write_sofa(tmp_path / 'here.sofa', [[1, 0, 0], [0, 0, 0]], kind='cartesian')
    with pytest.raises(DataError, match='response 1.*give metres'):
        read_responses(here)
    (tmp_path / 'text.sofa').write_text('no SOFA')
    with pytest.raises(DataError, match='text.sofa: is no SOFA file'):
        read_responses(tmp_path / 'text.sofa')
    with pytest.raises(DataError, match='none.sofa: there is no such file; check the path'):
        read_responses(tmp_path / 'none.sofa')


@pytest.mark.parametrize(
    'text, words',
    [
        ('', ('not a CSV',)),
        ('file,distance_m\n', ('lists no files',)),
        ('file,distance\na.wav,1\n', ('distance_m',)),
        ('name,distance_m\na.wav,1\n', ('file and distance_m',)),
        ('file,distance_m\na.wav,-2\n', ('a.wav', 'metres')),
        ('file,distance_m\na.wav,\n', ('a.wav', 'metres')),
        ('file,distance_m\na.wav,inf\n', ('metres',)),
        ('file,distance_m\na.wav,2\n', ('1 of 1', 'no such file')),
        ('file,distance_m\n../a.wav,2\n', ('outside',)),
        ('file,distance_m\nb.wav,2\n', ('b.wav', 'not sound')),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path, text, words):
    (tmp_path / 'list.csv').write_text(text)
    (tmp_path / 'b.wav').write_bytes(b'no sound at all')
    with pytest.raises(DataError) as e:
        read_responses(tmp_path)
    assert str(tmp_path) in str(e.value) and all(w in str(e.value) for w in words), e.value


def test_one_unreadable_clip_does_not_stop_a_data_set(tmp_path, drum, cache):
    for name in ('a', 'b'):
        (tmp_path / f'{name}.wav').write_bytes(wav_bytes(drum, sr=SR))
    (tmp_path / 'c.wav').write_bytes(b'RIFF')
    pd.DataFrame({'file': ['a.wav', 'b.wav', 'c.wav'], 'label': ['x', 'y', 'x']}).to_csv(
        tmp_path / 'list.csv', index=False
    )
    wet = simulate_dataset(
        load_clips(tmp_path),
        simulate_rooms(SMALL, cache=cache, progress=False),
        tmp_path / 'wet',
        progress=False,
    )
    assert len(wet) == 2 and (wet.table.seconds > len(drum) / SR + 0.4).all()
