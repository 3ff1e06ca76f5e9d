import hashlib
import itertools
import logging
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from subfour.train.checkpoint import Checkpoint, CheckpointStore

STATE = {"phase": 3, "freeze_order": ["conv1", "conv0"], "aiwq": {"conv1": 0.1, "conv0": 1e-300}, "rows": [], "note": 'é"\n'}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def save(store: CheckpointStore, number: int) -> None:
    """Save a checkpoint whose content tells its number."""
    store.save(number, {"weight": torch.full((64,), float(number))}, {"number": number})


def newest(store: CheckpointStore) -> int:
    """Return the number of the newest usable checkpoint, after checking that its content belongs to it."""
    checkpoint = store.load_newest()
    assert checkpoint is not None
    assert checkpoint.state == {"number": checkpoint.number}
    assert bool((checkpoint.tensors["weight"] == checkpoint.number).all())
    return checkpoint.number


def numbers(store: CheckpointStore) -> list[int]:
    return sorted(int(file.name.split("-")[1]) for file in store.folder.iterdir())


def same_bits(one: Tensor, other: Tensor) -> bool:
    same_kind = one.dtype == other.dtype and one.shape == other.shape
    return same_kind and one.contiguous().view(-1).view(torch.uint8).equal(other.contiguous().view(-1).view(torch.uint8))


def in_a_child(work: Callable[[], None], *, kill_after: float | None = None) -> None:
    """Run `work` in a forked process that ends without cleaning up; kill it after some seconds if asked to."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_nothing_saved_is_nothing_loaded(store: CheckpointStore):
    """A new run starts from its beginning."""
    assert store.load_newest() is None


def test_state_and_number_come_back(store: CheckpointStore):
    """Text, nesting, order of keys and every bit of a float."""
    store.save(7, {}, STATE)
    assert store.load_newest() == Checkpoint(7, {}, STATE)
    assert list(store.load_newest().state) == list(STATE)


def test_tensors_keep_dtype_shape_and_bits(store: CheckpointStore):
    """NaN payloads, empty, 0-d, integer, channels_last, strided and tied tensors; on the way back nothing is tied."""
    signalling = torch.tensor([0x7F800001, 0x7FC12345, -0x003EDCBB, -0x80000000], dtype=torch.int32)
    image = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    tensors = {
        "nan": signalling.view(torch.float32),
        "nan/bfloat16": torch.tensor([0x7F81, 0x7FC1, -1], dtype=torch.int16).view(torch.bfloat16),
        "nan/float64": torch.tensor([0x7FF0000000000001, -1]).view(torch.float64),
        "batches": torch.tensor(2**62 + 1),
        "scalar": torch.tensor(-0.0),
        "empty": torch.empty(0, 3, dtype=torch.float16),
        "flags": torch.tensor([True, False]),
        "bytes": torch.arange(256, dtype=torch.uint8),
        "channels_last": image.to(memory_format=torch.channels_last),
        "transposed": image.transpose(0, 3),
        "expanded": torch.tensor([1.0]).expand(4),
        "tied": image,
        "part": image[1:],
        "parameter": torch.nn.Parameter(image[0]),
    }
    store.save(0, tensors, {})
    loaded = store.load_newest().tensors
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert same_bits(loaded[name], tensor.detach()), name
    loaded["tied"].zero_()
    assert same_bits(loaded["part"], image[1:])


def test_the_same_content_gives_the_same_file(tmp_path: Path):
    """Byte for byte, name included."""
    stores = [CheckpointStore(tmp_path / name) for name in ("one", "other")]
    for store in stores:
        store.save(3, {"b": torch.ones(3), "a": torch.zeros(2, dtype=torch.int64)}, STATE)
    one, other = (next(store.folder.iterdir()) for store in stores)
    assert one.name == other.name
    assert one.read_bytes() == other.read_bytes()


def test_the_newest_two_are_kept(store: CheckpointStore):
    """And nothing else is in the folder."""
    for number in range(8, 13):
        save(store, number)
        assert newest(store) == number
    assert numbers(store) == [11, 12]


def test_every_flipped_bit_and_every_truncation_is_recognised(store: CheckpointStore, caplog: pytest.LogCaptureFixture):
    """The one before is used, and the warning names the damaged file."""
    save(store, 1)
    save(store, 2)
    (file,) = store.folder.glob("checkpoint-000002-*")
    whole = file.read_bytes()
    damages = [whole[:size] for size in range(0, len(whole), 29)]
    damages += [whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :] for place in range(0, len(whole), 17)]
    for damage in [*damages, whole + b"\0"]:
        file.write_bytes(damage)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert newest(store) == 1
        assert file.name in caplog.text
    file.write_bytes(whole)
    assert newest(store) == 2


def test_all_damaged_is_an_error(store: CheckpointStore):
    """A run is never silently begun again."""
    save(store, 1)
    next(store.folder.iterdir()).write_bytes(b"")
    with pytest.raises(ValueError, match="every checkpoint in it is damaged"):
        store.load_newest()


@pytest.mark.parametrize("number", [15, 20])
def test_saving_after_a_fallback_replaces_the_damaged_future(tmp_path: Path, number: int):
    """The damaged one, numbered the same or higher, must not push out what was just saved."""
    store = CheckpointStore(tmp_path)
    for saved in (10, 20):
        save(store, saved)
    next(tmp_path.glob("checkpoint-000020-*")).write_bytes(b"damaged")
    assert newest(store) == 10
    save(CheckpointStore(tmp_path), number)
    assert numbers(store) == [10, number]
    assert newest(store) == number


@pytest.mark.parametrize("refusing", ["fsync", "replace"])
def test_a_full_disk_costs_only_the_new_checkpoint(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, refusing: str):
    """The older ones are all there, no part of the new one is, and the error says so."""
    save(store, 1)
    save(store, 2)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, refusing, refuse)
        with pytest.raises(
            OSError, match=r"checkpoint 3 could not be written \(No space left on device\); the older ones are kept"
        ):
            save(store, 3)
    assert numbers(store) == [1, 2]
    assert newest(store) == 2


def test_steps_on_the_way_never_push_out_the_last_whole_epoch(store: CheckpointStore):
    """Of those in the middle of an epoch the newest two stay; the end of the epoch makes them superfluous."""
    for number, step in ((1, 0), (2, 0), (2, 3), (2, 10), (2, 11)):
        store.save(number, {"weight": torch.full((64,), float(number))}, {"number": number}, step=step)
        checkpoint = store.load_newest()
        assert (checkpoint.number, checkpoint.step) == (number, step)
    places = sorted(file.name[: len("checkpoint-000002-step-000010")] for file in store.folder.iterdir())
    assert places[1:] == ["checkpoint-000002-step-000010", "checkpoint-000002-step-000011"]
    assert numbers(store) == [2, 2, 2]
    (newest_file,) = store.folder.glob("checkpoint-000002-step-000011-*")
    newest_file.write_bytes(b"damaged")
    assert store.load_newest().step == 10
    save(store, 3)
    assert numbers(store) == [2, 3]


def test_steps_on_the_way_can_be_dropped(store: CheckpointStore):
    """What an epoch that failed has left behind."""
    save(store, 1)
    for step in (1, 2):
        store.save(1, {}, {}, step=step)
    store.drop_steps()
    assert numbers(store) == [1]
    assert newest(store) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("last", range(1, 8))
def test_a_kill_at_any_system_call_leaves_a_usable_checkpoint(store: CheckpointStore, last: int):
    """Dead right before the first, second, ... sync, rename or deletion, and again with that call done."""
    save(store, 1)
    save(store, 2)
    for before in (True, False):

        def die_at_the_last_call(before: bool = before) -> None:
            calls = 0

            def dying(call: Callable[..., object]) -> Callable[..., object]:
                def wrapped(*args: object, **kwargs: object) -> object:
                    nonlocal calls
                    calls += 1
                    if before and calls == last:
                        os._exit(0)
                    result = call(*args, **kwargs)
                    if calls == last:
                        os._exit(0)
                    return result

                return wrapped

            for name in ("fsync", "replace", "unlink"):
                setattr(os, name, dying(getattr(os, name)))
            save(store, 3)

        in_a_child(die_at_the_last_call)
        assert newest(store) in (2, 3)
    save(store, 4)
    assert newest(store) == 4
    assert len(list(store.folder.iterdir())) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_leaves_a_usable_checkpoint(store: CheckpointStore):
    """Real SIGKILLs into a process that does nothing but save."""
    save(store, 0)

    def save_for_ever() -> None:
        number = newest(store)
        while True:
            number += 1
            save(store, number)

    reached = 0
    moments = itertools.chain((0.01 + 0.0037 * attempt for attempt in range(20)), (0.2, 1, 5, 25))
    for attempt, kill_after in enumerate(moments):
        if attempt >= 20 and reached:
            break  # it did save; a loaded machine needs the longer moments
        in_a_child(save_for_ever, kill_after=kill_after)
        assert newest(store) >= reached
        reached = newest(store)
    assert reached > 0


def test_reading_executes_nothing(store: CheckpointStore, tmp_path: Path):
    """A pickle under a checkpoint's name is damage, even with the right checksum."""

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "executed",)

    save(store, 1)
    content = pickle.dumps(Trap())
    (store.folder / f"checkpoint-000002-{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)
    assert newest(store) == 1
    assert not (tmp_path / "executed").exists()
