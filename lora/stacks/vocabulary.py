"""The words of rows: the names of their fields, and what says no LoRA, on and off.

They are those of our own inputs. The inputs of other packs are read by more words (`prefetch/references/values.py`):
what we would refuse as a mistake is somebody's way to say it there.
"""

from __future__ import annotations

NAME_FIELDS = ("name", "lora", "lora_name")
FOREIGN_NAME_FIELDS = (*NAME_FIELDS, "content")
"""Old widgets post `{"content": name, "image": ...}`. For our own rows that would be too common a word for a name."""

# Our own rows may hold several fields of a kind where they agree; of other packs' rows the first in this order counts.
MODEL_FIELDS = ("strength_model", "strengthModel", "model_strength", "strength", "weight")
CLIP_FIELDS = ("strength_clip", "strengthClip", "clipStrength", "clip_strength", "strengthTwo")
SWITCH_FIELDS = ("on", "active", "enabled")

NO_LORA = frozenset({"none", "[none]"})
"""What widgets hold while nobody has chosen a LoRA. Lower case, as the words below."""
ON = frozenset({"true", "on", "yes", "1"})
OFF = frozenset({"false", "off", "no", "0"})
