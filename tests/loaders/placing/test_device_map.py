from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from warmstack.loaders import DeviceMap


def test_the_longest_prefix_wins():
    rules = DeviceMap.of({"unet": "cpu", "unet.down.1": "disk", "unet.down": "meta"})
    assert rules.device_of("unet.down.1.weight") == "disk"
    assert rules.device_of("unet.down.2.weight") == "meta"
    assert rules.device_of("unet.up.weight") == "cpu"


@pytest.mark.parametrize(
    ("prefix", "key", "caught"),
    [
        ("lora_unet_down_blocks_2", "lora_unet_down_blocks_2_attentions_0.alpha", True),
        ("lora_unet_down_blocks_2", "lora_unet_down_blocks_2.alpha", True),
        ("lora_unet_down_blocks_2", "lora_unet_down_blocks_2", True),
        ("lora_unet_down_blocks_2", "lora_unet_down_blocks_20_attentions_0.alpha", False),
        ("lora_unet_down_blocks_2", "lora_unet_down_blocks_", False),
        ("lora_unet_down_blocks_", "lora_unet_down_blocks_20_attentions_0.alpha", True),
        ("unet.", "unet.conv.weight", True),
        ("unet.", "unet2.conv.weight", False),
        ("unet.down.1", "unet.down.10.weight", False),
        ("unet", "text.unet.weight", False),
        ("", "anything", True),
    ],
)
def test_a_prefix_ends_where_a_name_ends(prefix: str, key: str, caught: bool):
    assert DeviceMap.of({prefix: "cpu"}).device_of(key) == ("cpu" if caught else None)


def test_the_empty_prefix_is_the_default():
    rules = DeviceMap.of({"": "disk", "unet": "cpu"})
    assert (rules.device_of("unet.a"), rules.device_of("vae.a")) == ("cpu", "disk")


def test_assigning_leaves_out_the_disk_and_falls_back():
    rules = DeviceMap.of({"unet": "disk", "vae": 1})
    assert rules.assign(["unet.a", "vae.a", "text.a"], "cpu") == {"vae.a": "cuda:1", "text.a": "cpu"}
    assert rules.keeps_on_disk
    assert not DeviceMap.of({"": "cpu"}).keeps_on_disk


@pytest.mark.parametrize(
    ("device", "name"), [("cuda:1", "cuda:1"), (0, "cuda:0"), (torch.device("cuda", 2), "cuda:2"), ("cpu", "cpu")]
)
def test_devices_in_every_spelling(device: object, name: str):
    assert DeviceMap.of({"": device}).device_of("a") == name


NAMES = st.lists(st.sampled_from(["a", "b", "1", "10", "_", "."]), max_size=5).map("".join)


@given(rules=st.dictionaries(NAMES, st.sampled_from(["cpu", "meta", "disk"]), max_size=8), key=NAMES)
def test_agrees_with_the_rule_as_it_is_written(rules: dict[str, str], key: str):
    catching = [
        prefix
        for prefix in rules
        if prefix == ""
        or key == prefix
        or key.startswith((prefix + ".", prefix + "_"))
        or (prefix[-1] in "._" and key.startswith(prefix))
    ]
    expected = rules[max(catching, key=len)] if catching else None
    assert DeviceMap.of(rules).device_of(key) == expected


def test_a_rule_for_every_module_costs_no_more_than_a_few():
    keys = [f"blocks.{number}.weight" for number in range(1000, 1050)]

    def calls(modules: int) -> int:
        rules = DeviceMap.of({f"blocks.{number}": "meta" for number in range(999 + modules, 999, -1)})
        seen: list[str] = []
        sys.setprofile(lambda frame, event, argument: seen.append(event))
        try:
            rules.assign(keys, "cpu")
        finally:
            sys.setprofile(None)
        return len(seen)

    assert calls(4000) < 2 * calls(50)
