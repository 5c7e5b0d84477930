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
    device: str | None = None
    """Of the pipelines, "cuda" say: adapters can be kept there too. None: they are kept in host memory alone."""
    device_budget_mb: int | None = Field(default=None, ge=0)
    """Budget of adapters kept on `device` in MiB; None: an eighth of what is free there at the start, at most 2 GiB."""
    pinned_budget_mb: int | None = Field(default=None, ge=0)
    """Pinned memory for what is on its way there, in MiB; None: 128."""
    index_path: Path | None = None
    """Where the catalog keeps what it read from headers between runs, and beside it what was measured of the disks and
    what past jobs used; None: nowhere."""

    @field_validator("lora_directories", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, (str, Path)) else value

    @property
    def memory_limit_bytes(self) -> int | None:
        return _bytes(self.memory_limit_mb)

    @property
    def device_budget_bytes(self) -> int | None:
        return _bytes(self.device_budget_mb)

    @property
    def pinned_budget_bytes(self) -> int | None:
        return _bytes(self.pinned_budget_mb)


def _bytes(mebibytes: int | None) -> int | None:
    return None if mebibytes is None else mebibytes * MIB
