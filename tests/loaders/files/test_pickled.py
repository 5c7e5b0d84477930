from __future__ import annotations

import collections
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from warmstack.loaders import LoadProgress, ModelLoader, PickledFileError, SafetensorsLoadError, load_pickled

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


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_parameters_and_what_wants_gradients_come_as_plain_tensors(tmp_path: Path, dtype, zipped: bool):
    shared = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    content = {"a": shared, "tied": shared, "part": shared[1], "free": torch.ones(3, requires_grad=True)}
    content |= {"buffer": torch.nn.Buffer(torch.ones(3))}
    path = save(tmp_path / "a.pt", {"model": content}, zipped=zipped)
    loaded = ModelLoader(dtype=dtype).load_checkpoint(path)
    for key, tensor in content.items():
        assert type(loaded[key]) is torch.Tensor
        assert (loaded[key].requires_grad, loaded[key].grad_fn) == (False, None)
        assert loaded[key].numpy().tolist() == tensor.tolist()
    if dtype is None:
        assert len({loaded[key].untyped_storage().data_ptr() for key in ("a", "tied", "part")}) == 1


def test_a_tensor_under_two_names_is_one(tmp_path: Path):
    for tensor in (torch.ones(3), torch.nn.Parameter(torch.ones(3))):
        loaded = load_pickled(save(tmp_path / "a.pt", {"a": tensor, "b": tensor, "c": torch.ones(3)}))
        assert loaded["a"] is loaded["b"]
        assert loaded["a"] is not loaded["c"]


def test_an_alpha_that_is_a_number_is_one_all_the_same(tmp_path: Path):
    torch.save({"a.alpha": 8, "b.alpha": 0.5, "a.lora_up.weight": torch.ones(2), "step": 7}, tmp_path / "a.pt")
    loaded = load_pickled(tmp_path / "a.pt")
    assert {key: tensor.tolist() for key, tensor in loaded.items()} == {
        "a.alpha": 8.0,
        "b.alpha": 0.5,
        "a.lora_up.weight": [1.0, 1.0],
    }


def test_an_alpha_that_is_a_number_is_not_rounded_to_the_default_dtype(tmp_path: Path, other_defaults: None):
    torch.save({"a.alpha": 1 / 3}, tmp_path / "a.pt")
    assert load_pickled(tmp_path / "a.pt")["a.alpha"].item() == pytest.approx(1 / 3, rel=1e-7)


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


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_copies_are_never_of_two_files(tmp_path: Path, zipped: bool):
    path = save(tmp_path / "a.pt", {f"{number}": torch.zeros(1000) for number in range(4)}, zipped=zipped)
    other = Path(save(tmp_path / "b.pt", {f"{number}": torch.ones(1000) for number in range(4)}, zipped=zipped))

    def rewrite(progress: LoadProgress) -> None:
        with open(path, "r+b") as file:
            file.write(other.read_bytes())

    with pytest.raises(SafetensorsLoadError, match="changed while"):
        ModelLoader(dtype=torch.float16).load_checkpoint(path, progress=rewrite)


def test_a_file_that_changes_while_it_is_read_into_memory_is_refused(tmp_path: Path, monkeypatch):
    path, load = save(tmp_path / "a.pt", TENSORS, zipped=False), torch.load

    def and_then_it_changes(*args: object, **choices: object) -> object:
        content = load(*args, **choices)
        os.utime(path, ns=(1, 1))
        return content

    monkeypatch.setattr(torch, "load", and_then_it_changes)
    with pytest.raises(SafetensorsLoadError, match="changed while"):
        load_pickled(path)


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


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.ones(3, device="meta"),
    ],
    ids=["sparse", "csr", "meta"],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
def test_a_tensor_that_is_no_plain_memory_is_refused_by_name(tmp_path: Path, make, zipped: bool):
    path = save(tmp_path / "a.pt", {**TENSORS, "odd": make()}, zipped=zipped)
    with pytest.raises(SafetensorsLoadError, match=r"'odd' is .*; save it (dense|with its numbers)") as caught:
        ModelLoader(max_memory={"cpu": 1 << 30}).load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_lack_of_memory_is_not_the_files_fault(tmp_path: Path):
    """In a process that may take 16 MiB more, files of 64."""
    script = """if True:
        import resource, sys
        from warmstack.loaders import SafetensorsLoadError, load_pickled
        for path in sys.argv[1:3]:
            load_pickled(path)
        with open("/proc/self/statm") as pages:
            allowed_bytes = int(pages.read().split()[0]) * resource.getpagesize() + (16 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (allowed_bytes, allowed_bytes))
        for path in sys.argv[3:]:
            try:
                load_pickled(path)
            except SafetensorsLoadError as error:
                sys.stdout.write(f"{error.reason}\\n")"""
    paths = [
        save(tmp_path / f"{count}-{zipped}.pt", {"a": torch.zeros(count)}, zipped=zipped)
        for count in (1, 16 << 20)
        for zipped in (True, False)
    ]
    ended = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["needs more memory than there is; free some, or convert it to safetensors"] * 2


def test_a_file_that_claims_more_memory_than_it_has_bytes_is_damaged(tmp_path: Path):
    path = Path(save(tmp_path / "a.pt", {"a": torch.zeros(1 << 16)}, zipped=False))
    content = path.read_bytes()
    # The elements of the storage, as a pickled integer of four bytes; the shape comes later.
    path.write_bytes(content.replace(b"J\0\0\1\0", b"\x8a\6" + bytes(5) + b"\x40", 1))
    with pytest.raises(SafetensorsLoadError, match="download it again"):
        load_pickled(path)


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
