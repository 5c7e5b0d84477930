"""The part of `invariant_breaks` that is about the diffusers worker."""

from __future__ import annotations

from collections.abc import Mapping

from breakage import Break

WORKER_BREAKS: Mapping[str, tuple[Break, ...]] = {
    "Nor on where the adapter was: weights are the same to the last bit from the device": (
        Break(
            "the way to the device rounds one factor",
            "worker/fitted_row.py",
            "up=twin(lora.up),",
            "up=twin(lora.up).bfloat16(),",
            ("tests/worker/test_device.py::test_weights_are_the_same_to_the_last_bit",),
        ),
    ),
    "A model comes back to its own bits, whichever of the pipelines that share it had a stack": (
        Break(
            "what one pipeline has applied is the original of the next",
            "worker/originals.py",
            "            weight.copy_(kept.copy)\n            return weight",
            "            kept.copy.copy_(weight)\n            return weight",
            (
                "tests/worker/test_shared_modules.py::test_a_pipeline_made_from_another_starts_from_the_models_own_weights",
                "tests/worker/test_shared_modules.py"
                "::test_either_pipeline_gives_the_shared_models_their_own_weights_back",
            ),
        ),
    ),
    "Nobody writes into an adapter; an alpha counts once": (
        Break(
            "a converter that scales in place scales the adapter",
            "worker/trace.py",
            "        touched = self._touched(func, args, options)\n",
            "        touched: set[str] = set()\n",
            (
                "tests/worker/test_converters.py::test_no_converter_writes_into_the_adapter",
                "tests/worker/test_converters.py::test_alpha_counts_once_however_often_the_file_is_converted",
            ),
        ),
    ),
}
