"""A report is one line per LoRA, and a LoRA of another model is loud."""

from __future__ import annotations

from dataclasses import replace

import pytest

from warmstack.lora.fusing.share import matched_share
from warmstack.nodes.patches.report import Match, RowReport, render, wrong_model

_FULL = Match(modules=10, matched_modules=10, norm_share=1.0)
_ROW = RowReport("styles/ink.safetensors", 0.8, 0.5, "sdxl", "join", 0.0123, _FULL, clip_given=True)


def test_one_line_says_what_was_done() -> None:
    line = (
        "styles/ink.safetensors: model 0.8, clip 0.5, matched 10/10 modules (100% of the update), join 12.3 ms, fused"
    )
    assert render([_ROW], [], "fused") == line


def test_a_share_that_is_not_known_is_not_told() -> None:
    match = Match(10, 4, None)
    assert "matched 4/10 modules, join" in render([replace(_ROW, match=match)], [], "fused")
    assert wrong_model(replace(_ROW, match=match)) and not wrong_model(replace(_ROW, match=Match(10, 6, None)))


def test_rows_keep_their_order_and_notes_come_last() -> None:
    second = replace(_ROW, name="b.safetensors")
    lines = render([_ROW, second], ["c: skipped, both strengths are 0"], "exact").splitlines()
    assert [line.split(":")[0] for line in lines] == ["styles/ink.safetensors", "b.safetensors", "c"]


def test_an_empty_stack_says_so() -> None:
    assert render([], ["c: skipped"], "fused").splitlines() == [
        "no LoRA to apply: model and clip are passed on as they are", "c: skipped"
    ]  # fmt: skip


def test_a_wrong_model_names_the_file_what_it_was_made_for_and_an_example() -> None:
    match = Match(304, 0, 0.0, unmatched=("transformer.blocks.0.to_q",))
    warning = wrong_model(replace(_ROW, base_model="flux", match=match))
    assert "styles/ink.safetensors" in warning and "made for flux" in warning and "0 of its 304" in warning
    assert "transformer.blocks.0.to_q" in warning
    assert "WARNING" in render([replace(_ROW, match=match)], [], "fused").splitlines()[1]


def test_a_misfit_is_a_wrong_model_even_where_names_agree() -> None:
    match = Match(10, 9, 0.9, unmatched=("m",), misfits=("diffusion_model.img_in.weight",))
    warning = wrong_model(replace(_ROW, match=match))
    assert "diffusion_model.img_in.weight" in warning and "takes 9 of its 10 modules" in warning


@pytest.mark.parametrize("strength", [None, 1.0, 0.1])
def test_half_of_equal_modules_is_the_least_that_is_not_loud(strength: float | None) -> None:
    """Whatever their number: the last bit of the share is not the same for all."""

    def loud(matched: int, lost: int) -> bool:
        share = None if strength is None else matched_share([strength] * matched, [strength] * lost)
        return bool(wrong_model(replace(_ROW, match=Match(matched + lost, matched, share, unmatched=("x",)))))

    assert [n for n in range(1, 101) if loud(n, n)] == []
    assert [n for n in range(1, 101) if not loud(n - 1, n)] == []


def test_text_encoder_weights_without_a_clip_are_no_wrong_model() -> None:
    match = Match(100, 40, 0.3, unmatched=("lora_te_text_model_encoder_layers_0_mlp_fc1",))
    assert wrong_model(replace(_ROW, match=match, clip_given=False)) == ""
    assert wrong_model(replace(_ROW, match=match, clip_given=True)) != ""
    assert wrong_model(replace(_ROW, match=replace(match, unmatched=("lora_unet_x",)), clip_given=False)) != ""


def test_a_few_unknown_modules_are_not_loud() -> None:
    assert wrong_model(replace(_ROW, match=Match(100, 90, 0.95, unmatched=("x",)))) == ""


def test_a_file_without_lora_weights() -> None:
    assert "no LoRA weights" in wrong_model(replace(_ROW, match=Match(0, 0, 0.0)))
