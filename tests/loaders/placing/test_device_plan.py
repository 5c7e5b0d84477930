from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstack.loaders import SafetensorsLoadError
from warmstack.loaders.placing.device_plan import plan_devices

KEYS = st.one_of(
    st.builds("{}.{}.{}".format, st.sampled_from(["blocks", "x.layers"]), st.integers(0, 5), st.sampled_from("abc")),
    st.sampled_from(["head", "tail", "x.norm", "0.weight", "v2.weight"]),
)
SIZES = st.dictionaries(KEYS, st.integers(0, 9), max_size=20)
LIMITS = st.dictionaries(st.sampled_from(["cuda:0", "cuda:1", "cpu", "disk"]), st.integers(0, 40), max_size=4)


def block_of(key: str) -> str | None:
    parts = key.split(".")
    number = next((at for at, part in enumerate(parts[:-1]) if part.isdigit()), None)
    return None if number is None else ".".join(parts[: number + 1])


def placed_bytes(devices: Mapping[str, str], sizes: Mapping[str, int], device: str) -> int:
    return sum(sizes[key] for key, its in devices.items() if its == device)


@given(sizes=SIZES, limits=LIMITS)
def test_every_plan_keeps_the_limits(sizes: dict[str, int], limits: dict[str, int]):
    try:
        devices = plan_devices("model", sizes, limits)
    except SafetensorsLoadError:
        # Whoever has as much room as there are bytes of it on one device is not refused.
        assert "disk" not in limits
        assert sizes
        assert sum(sizes.values()) > max(limits.values(), default=-1)
        return
    assert list(devices) == list(sizes)
    assert set(devices.values()) <= limits.keys()
    assert all(placed_bytes(devices, sizes, device) <= limits[device] for device in limits.keys() - {"disk"})
    assert plan_devices("model", sizes, limits) == devices


@given(sizes=SIZES, limits=LIMITS)
def test_a_block_is_torn_only_where_no_device_had_room_for_it(sizes: dict[str, int], limits: dict[str, int]):
    try:
        devices = plan_devices("model", sizes, limits)
    except SafetensorsLoadError:
        return
    blocks: dict[str, list[str]] = {}
    for key in sizes:
        blocks.setdefault(block_of(key) or key, []).append(key)
    room_bytes = dict(limits)
    for keys in blocks.values():
        nbytes = sum(sizes[key] for key in keys)
        fitting = [device for device, room in room_bytes.items() if device != "disk" and nbytes <= room]
        if fitting or "disk" in limits:
            assert {devices[key] for key in keys} == {fitting[0] if fitting else "disk"}
        for key in keys:
            room_bytes[devices[key]] -= sizes[key]


def test_what_does_not_fit_goes_to_the_next_and_at_last_to_disk():
    sizes = {"head": 4, "blocks.0.a": 3, "blocks.1.a": 3, "blocks.0.b": 3, "blocks.1.b": 3, "tail": 1}
    assert plan_devices("model", sizes, {"disk": 0, "cuda:0": 10, "cpu": 5}) == {
        "head": "cuda:0",
        "blocks.0.a": "cuda:0",
        "blocks.1.a": "disk",
        "blocks.0.b": "cuda:0",
        "blocks.1.b": "disk",
        "tail": "cpu",
    }
    with pytest.raises(SafetensorsLoadError, match=r"needs 17 bytes and max_memory has 16, without room for 'tail'"):
        plan_devices("model", sizes, {"cuda:0": 10, "cpu": 6})
