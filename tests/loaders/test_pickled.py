from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from warmstack.loaders import PickledFileError, SafetensorsLoadError, load_pickled

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")
TENSORS = {"up.weight": torch.arange(6.0).reshape(2, 3), "alpha": torch.tensor(4.0)}


class Payload:
    """Runs a command when somebody unpickles it."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (self.trace,))


def save(path: Path, content: object, *, zipped: bool = True) -> str:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return str(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: collections.OrderedDict(tensors),
        lambda tensors: {"state_dict": tensors, "epoch": 3},
        lambda tensors: {"params": tensors},
        lambda tensors: {**tensors, "step": 7, "note": "text"},
    ],
    ids=["plain", "ordered", "checkpoint", "wrapped", "with values"],
)
def test_reads_what_trainers_save(tmp_path: Path, wrap, zipped: bool):
    loaded = load_pickled(save(tmp_path / "a.pt", wrap(TENSORS), zipped=zipped))
    assert loaded.keys() == TENSORS.keys()
    assert all(torch.equal(loaded[key], tensor) for key, tensor in TENSORS.items())


def test_an_alpha_that_is_a_number_is_one_all_the_same(tmp_path: Path):
    torch.save({"a.alpha": 8, "b.alpha": 0.5, "a.lora_up.weight": torch.ones(2), "step": 7}, tmp_path / "a.pt")
    loaded = load_pickled(tmp_path / "a.pt")
    assert {key: tensor.tolist() for key, tensor in loaded.items()} == {
        "a.alpha": 8.0,
        "b.alpha": 0.5,
        "a.lora_up.weight": [1.0, 1.0],
    }


def test_an_alpha_that_is_no_number_is_left_out(tmp_path: Path):
    torch.save({"a.alpha": 10**400, "b.alpha": True, "c.alpha": "8", **TENSORS}, tmp_path / "a.pt")
    assert load_pickled(tmp_path / "a.pt").keys() == TENSORS.keys()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_never_runs_the_code_of_a_pickle(tmp_path: Path, zipped: bool):
    trace = tmp_path / "it-ran"
    path = save(tmp_path / "evil.pt", {**TENSORS, "x": Payload(str(trace))}, zipped=zipped)
    with pytest.raises(PickledFileError, match="convert it to safetensors"):
        load_pickled(path)
    assert not trace.exists()


def test_never_runs_the_code_of_a_bare_pickle(tmp_path: Path):
    trace = tmp_path / "it-ran"
    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps(Payload(str(trace))))
    with pytest.raises(PickledFileError):
        load_pickled(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, torch.ones(2)], ids=str)
def test_a_pickle_without_named_tensors_is_no_weight_file(tmp_path: Path, content: object):
    with pytest.raises(SafetensorsLoadError, match="holds no tensors"):
        load_pickled(save(tmp_path / "a.pt", content))


def test_a_missing_file_says_so(tmp_path: Path):
    with pytest.raises(SafetensorsLoadError, match="No such file"):
        load_pickled(tmp_path / "absent.pt")


def test_a_storage_that_is_not_there_is_an_ordinary_refusal(tmp_path: Path):
    path = Path(save(tmp_path / "a.pt", TENSORS, zipped=False))
    content = path.read_bytes()
    # The last thing that it names before the bytes: the keys of the storages.
    key = content.rindex(b"X", 0, content.rindex(b"e.")) + 5
    path.write_bytes(content[:key] + b"x" + content[key + 1 :])
    with pytest.raises(SafetensorsLoadError, match=r"cannot read.*download it again"):
        load_pickled(path)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_name_that_is_no_utf8(tmp_path: Path, zipped: bool):
    path = os.path.join(tmp_path, os.fsdecode(b"\xff.pt"))
    os.rename(save(tmp_path / "a.pt", TENSORS, zipped=zipped), path)
    assert load_pickled(path).keys() == TENSORS.keys()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keep=st.floats(0, 0.99), zipped=st.booleans(), noise=st.binary(max_size=64))
def test_a_damaged_file_is_an_ordinary_refusal(tmp_path: Path, keep: float, zipped: bool, noise: bytes):
    path = Path(save(tmp_path / "cut.pt", TENSORS, zipped=zipped))
    content = path.read_bytes()
    damaged = content[: int(len(content) * keep)] + noise
    # A bare pickle has no checksum: with as many bytes in the end as before, only the numbers are others.
    assume(len(damaged) < len(content))
    path.write_bytes(damaged)
    with pytest.raises(SafetensorsLoadError):
        load_pickled(path)
