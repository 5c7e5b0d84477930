"""The tiny models run in the real host through stock nodes: the ground that the other host tests stand on."""

from __future__ import annotations

import pytest
from hostkit.client import HostClient
from hostkit.graphs import flux_graph, sd15_graph

RECIPES = {
    "flux native": (flux_graph, "flux/native0.safetensors"),
    "flux diffusers": (flux_graph, "flux/diffusers0.safetensors"),
    "sd15 kohya": (sd15_graph, "styles/ink.safetensors"),
    "sd15 ldm": (sd15_graph, "styles/ldm.safetensors"),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_lora_changes_the_picture_and_the_same_job_repeats_it(client: HostClient, recipe: str) -> None:
    graph, name = RECIPES[recipe]
    plain, with_lora, again = client.run(graph(), graph([(name, 1.0, 1.0)]), graph([(name, 1.0, 1.0)], tag="again"))
    assert plain.status == with_lora.status == again.status == "success"
    assert all(job.output("finite") == [True] for job in (plain, with_lora, again))
    assert plain.output("digest") != with_lora.output("digest") == again.output("digest")
