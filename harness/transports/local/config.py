"""The inventory's entry of the machine that latlab runs on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from latlab.harness.transports.config import PHONES_ONLY, DeviceConfig, File, Problem, benchmark_model_targets

__all__ = ["LocalDevice"]


class LocalDevice(DeviceConfig):
    """The machine that latlab runs on; it is measured through the same worker and protocol as any other."""

    is_this_machine: ClassVar[bool] = True
    transport_factory: ClassVar[str] = "latlab.harness.transports.local.transport:LocalTransport.from_config"
    transport: Literal["local"] = "local"
    python: File | None = Field(default=None, description="Interpreter that runs the worker; default: latlab's own")
    work: File | None = Field(default=None, description="The worker's folder; default: in the user's cache folder")

    @property
    def address(self) -> str:
        return "this machine" if self.python is None else f"this machine, {self.python}"

    def problems(self) -> Iterator[Problem]:
        yield from benchmark_model_targets(self, PHONES_ONLY)
