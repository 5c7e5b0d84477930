"""Restricting a key map changes nothing that the host's matching can see, and its name tells maps apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from warmstack.nodes.patches.key_map import Target, fingerprint, restrict, weight_key

_SUFFIXES = (
    ".alpha", ".dora_scale", ".lora_up.weight", "_lora.up.weight", ".lora_B", ".lora_B.weight", ".lora.up.weight",
    ".lora_B.default.weight", ".lora_linear_layer.up.weight", ".diff", ".diff_b", ".set_weight", ".w_norm", ".lokr_w1",
)  # fmt: skip

_stems = st.lists(st.sampled_from(["a", "a.b", "a_lora", "a_lora.b", "lora_unet_x", "b", "", "a.b.c"]), unique=True)


def _probed(key_map: dict[str, Target], file_keys: set[str]) -> list[tuple[str, str]]:
    """What a matcher finds that looks up every name of every entry, as the host does."""
    return [(x, x + suffix) for x in key_map for suffix in _SUFFIXES if x + suffix in file_keys]


@given(_stems, st.sets(st.tuples(_stems.map(lambda stems: stems[0] if stems else "q"), st.sampled_from(_SUFFIXES))))
def test_whatever_the_host_can_find_is_still_found_in_the_same_order(
    stems: list[str], parts: set[tuple[str, str]]
) -> None:
    key_map: dict[str, Target] = {stem: f"weight.{stem}" for stem in stems if stem}
    file_keys = {stem + suffix for stem, suffix in parts}
    assert _probed(restrict(key_map, file_keys), file_keys) == _probed(key_map, file_keys)


def test_only_entries_that_the_file_extends_are_kept() -> None:
    key_map: dict[str, Target] = {f"lora_unet_{n}": f"w{n}" for n in range(100)}
    kept = restrict(key_map, ["lora_unet_7.lora_up.weight", "lora_unet_7.alpha", "lora_unet_12.lora_up.weight"])
    assert kept == {"lora_unet_7": "w7", "lora_unet_12": "w12"}


def test_a_very_long_key_costs_no_more_than_its_length() -> None:
    """Each of its beginnings once would be 40 GB."""
    long = "lora_unet_7" + ".a" * 100_000 + "_lora" * 50_000
    assert restrict({"lora_unet_7": "w7", "lora_unet_8": "w8"}, [long]) == {"lora_unet_7": "w7"}


def test_a_prefix_that_is_not_followed_by_a_separator_does_not_match() -> None:
    assert restrict({"lora_unet_down_blocks_2": "w"}, ["lora_unet_down_blocks_20.lora_up.weight"]) == {}


def _swap(delta: object) -> object:
    return delta


def test_the_fingerprint_tells_names_targets_order_and_shapes_apart() -> None:
    maps: list[dict[str, Target]] = [
        {"a": "x", "b": "y"}, {"b": "y", "a": "x"}, {"a": "y", "b": "x"}, {"a": ("x", (0, 0, 4)), "b": "y"},
        {"a": ("x", (0, 4, 4)), "b": "y"}, {"a": ("x", None, _swap), "b": "y"},
    ]  # fmt: skip
    digests = [fingerprint(key_map, {"x": (8, 4)}) for key_map in maps] + [fingerprint(maps[0], {"x": (8, 5)})]
    assert len(set(digests)) == len(digests)
    assert digests == [fingerprint(key_map, {"x": (8, 4)}) for key_map in maps] + [fingerprint(maps[0], {"x": (8, 5)})]


def test_a_function_that_captured_something_is_never_shared() -> None:
    captured = object()
    key_map: dict[str, Target] = {"a": ("x", None, lambda delta: (captured, delta))}
    assert fingerprint(key_map, {}) != fingerprint(key_map, {})


def test_the_weight_of_every_kind_of_target() -> None:
    assert [weight_key(t) for t in ("w", ("w", (0, 0, 1)), ("w", None, _swap))] == ["w", "w", "w"]
