from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from warmstack.loaders import LoadCancelledError, SafetensorsValidationError, drop_file, fill_module, resident_bytes


class Net(torch.nn.Module):
    """Nested modules, a frozen parameter, a saved buffer and one that is not saved."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(5, 2))
        self.scale = torch.nn.Parameter(torch.rand(3), requires_grad=False)
        self.register_buffer("scratch", torch.ones(2), persistent=False)


@pytest.fixture
def source() -> Net:
    return Net()


@pytest.fixture
def files(tmp_path: Path, source: Net) -> list[Path]:
    state = source.state_dict()
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for number, path in enumerate(paths):
        save_file(dict(list(state.items())[number::2]), path)
    return paths


def on_meta() -> Net:
    with torch.device("meta"):
        return Net()


def test_a_model_on_meta_becomes_the_saved_one(source: Net, files: list[Path]):
    target = on_meta()
    assert fill_module(target, files) == ((), ())
    state = target.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in source.state_dict().items())
    assert target.body[0].weight.requires_grad
    assert not target.scale.requires_grad
    assert isinstance(target.body[0].weight, torch.nn.Parameter)
    assert state["body.1.num_batches_tracked"].dtype == torch.int64


def test_casting_spares_integers(files: list[Path]):
    target = on_meta()
    fill_module(target, files, dtype=torch.float16)
    assert target.body[0].weight.dtype == torch.float16
    assert target.body[1].num_batches_tracked.dtype == torch.int64


def test_what_did_not_meet_is_reported(tmp_path: Path, files: list[Path]):
    more = tmp_path / "more.safetensors"
    save_file({"unknown.weight": torch.ones(1)}, more)
    target = on_meta()
    filled = fill_module(target, [files[0], more])
    assert filled.unexpected == ("unknown.weight",)
    assert filled.missing
    assert all(target.state_dict()[key].is_meta for key in filled.missing)
    assert not any(tensor.is_meta for key, tensor in target.state_dict().items() if key not in filled.missing)


def test_the_device_map_leaves_tensors_where_they_are(files: list[Path]):
    target = on_meta()
    filled = fill_module(target, files, device_map={"body.0": "disk"})
    assert filled.missing == ()
    assert target.body[0].weight.is_meta
    assert not target.body[2].weight.is_meta


def test_a_wrong_shape_is_refused_before_anything_is_read(tmp_path: Path, files: list[Path], large):
    wrong = tmp_path / "wrong.safetensors"
    save_file({"scale": torch.ones(4)}, wrong)
    drop_file(large[0])
    target = on_meta()
    with pytest.raises(SafetensorsValidationError, match=r"'scale': has shape \[4\] and the model wants \[3\]"):
        fill_module(target, [large[0], wrong])
    assert (resident_bytes(large[0]) or 0) < 10 << 20
    assert all(tensor.is_meta for tensor in target.state_dict().values())


def test_tied_parameters_are_filled_under_both_names(tmp_path: Path):
    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(2, 2, bias=False)
            self.second = torch.nn.Linear(2, 2, bias=False)
            self.second.weight = self.first.weight

    path = tmp_path / "tied.safetensors"
    save_file({"first.weight": torch.ones(2, 2), "second.weight": torch.ones(2, 2)}, path)
    target = Tied()
    assert fill_module(target, [path]) == ((), ())
    assert target.first.weight.sum() == target.second.weight.sum() == 4


def test_cancelling(files: list[Path]):
    with pytest.raises(LoadCancelledError):
        fill_module(on_meta(), files, cancelled=lambda: True)


@pytest.mark.parametrize("choice", [{}, {"dtype": torch.float16}, {"device_map": {"scale": "meta"}}])
def test_a_cancel_is_noticed_once_all_is_read(source: Net, tmp_path: Path, choice: dict[str, Any]):
    """So few bytes come in one piece, and all of them have been read before the first tensor is placed."""
    save_file(source.state_dict(), tmp_path / "all.safetensors")
    target = on_meta()
    with pytest.raises(LoadCancelledError):
        fill_module(target, [tmp_path / "all.safetensors"], cancelled=lambda: not target.body[0].bias.is_meta, **choice)
    assert target.scale.is_meta


def test_a_key_in_two_files_is_refused(files: list[Path]):
    copy = files[0].with_name("copy.safetensors")
    copy.write_bytes(files[0].read_bytes())
    with pytest.raises(SafetensorsValidationError, match=r"stands in 0\.safetensors too"):
        fill_module(on_meta(), [files[0], copy])
