"""What a prompt names: LoRAs and models, from any graph that a host may queue."""

from .prompt import payload_references, references

__all__ = ["payload_references", "references"]
