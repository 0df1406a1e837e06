from pathlib import Path

import numpy as np
import pytest

from backend.recordings.speech.channels import ChannelKind, channel_kind, frame_levels, mix
from tests.recordings.sounds import Sound, noise, silence, tone


def _turns(first: Sound, second: Sound) -> tuple[Sound, Sound]:
    """Two parties that take turns."""
    return (
        np.concatenate([first, silence(len(second) / 16_000)]),
        np.concatenate([silence(len(first) / 16_000), second]),
    )


def test_one_channel_is_mono() -> None:
    assert channel_kind([noise(1.0)]) == (ChannelKind.MONO, (None,))


def test_two_parties_that_take_turns_are_split() -> None:
    assert channel_kind(_turns(noise(2.0), noise(2.0, seed=2))) == (ChannelKind.SPLIT, (0, 1))


def test_a_quiet_recording_is_split_all_the_same() -> None:
    quiet = _turns(noise(2.0, level=0.004), noise(2.0, level=0.004, seed=2))
    assert channel_kind(quiet) == (ChannelKind.SPLIT, (0, 1))


def test_the_same_sound_twice_is_one_recording() -> None:
    sound = noise(2.0)
    assert channel_kind([sound, (sound * 0.5).astype(np.int16)]) == (ChannelKind.IDENTICAL, (None,))


@pytest.mark.parametrize("living", [0, 1])
def test_of_a_pair_with_a_dead_channel_the_living_one_is_heard(living: int) -> None:
    channels = [silence(2.0), silence(2.0)]
    channels[living] = noise(2.0)
    assert channel_kind(channels) == (ChannelKind.DEAD, (living,))


def test_two_dead_channels_are_heard_as_one() -> None:
    assert channel_kind([silence(2.0), silence(2.0)]) == (ChannelKind.DEAD, (0,))


def test_channels_that_share_their_sound_are_mixed() -> None:
    common = noise(2.0)
    leaking = (common * 0.7 + noise(2.0, seed=2) * 0.7).astype(np.int16)
    assert channel_kind([common, leaking]) == (ChannelKind.DOWNMIX, (None,))


def test_channels_that_are_loud_together_are_mixed() -> None:
    assert channel_kind([noise(2.0), noise(2.0, seed=2)]) == (ChannelKind.DOWNMIX, (None,))


def test_levels_are_in_db_below_full_scale() -> None:
    levels = frame_levels(tone(1.0, level=1.0))
    assert len(levels) == 50
    assert levels == pytest.approx(-3.0, abs=0.1)


def test_digital_silence_and_less_than_a_frame_have_a_level_too() -> None:
    assert frame_levels(silence(0.1)).tolist() == pytest.approx([-120.0] * 5)
    assert len(frame_levels(tone(0.001))) == 1


def test_a_mix_is_the_mean_and_cannot_overflow(tmp_path: Path) -> None:
    loud = np.full(3, 32_767, dtype=np.int16)
    mixed = np.fromfile(mix([loud, loud], tmp_path / "mix"), dtype="<i2")
    assert mixed.tolist() == [32_767] * 3
