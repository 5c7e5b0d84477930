"""LoRAWorkerConfig: the settings of a LoRAWorker, validated."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

MIB = 1 << 20


class LoRAWorkerConfig(BaseModel):
    """Where the LoRAs are and how much memory they may take."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lora_directories: tuple[Path, ...] = Field(min_length=1)
    """Roots of the LoRA library; the first folder below a root is the category."""
    memory_limit_mb: int | None = Field(default=None, ge=0)
    """Budget of resident adapters in MiB; None: a quarter of the memory, at most 8 GiB."""
    enable_caching: bool = True
    """False: an adapter is dropped as soon as nothing uses it."""
    cache_size: int | None = Field(default=None, ge=1)
    """Resident adapters at most, beside the byte budget; None: as many as fit."""
    enable_memory_monitoring: bool = False
    """True: `status()` and the log tell the process's memory after each application."""
    index_path: Path | None = None
    """Where the catalog keeps what it read from headers between runs; None: nowhere."""

    @field_validator("lora_directories", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, (str, Path)) else value

    @property
    def memory_limit_bytes(self) -> int | None:
        return None if self.memory_limit_mb is None else self.memory_limit_mb * MIB
