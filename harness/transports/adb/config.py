"""The inventory's entry of a device that is reached over ADB."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from latlab.harness.transports.config import (
    DeviceConfig,
    File,
    Port,
    Problem,
    bare_host,
    benchmark_model_targets,
    missing_file,
)

__all__ = ["ADBDevice"]


class ADBDevice(DeviceConfig):
    """An Android device, over TCP (`host`) or USB (`serial`)."""

    transport_factory: ClassVar[str] = "latlab.harness.transports.adb.transport:ADBTransport"
    runtime_transports: ClassVar[Mapping[str, str]] = {
        "benchmark_model": "latlab.harness.transports.benchmark_model.transport:BenchmarkModelTransport"
    }
    transport: Literal["adb"] = "adb"
    host: str | None = Field(default=None, min_length=1, description="Address, for adb over Wi-Fi or Ethernet")
    port: Port = 5555
    serial: str | None = Field(default=None, min_length=1, description="Serial number, for USB")
    key: File | None = Field(default=None, description="Your adb key; default: ~/.android/adbkey")
    work: str | None = Field(default=None, description="Folder on the device; default: the first usable one of several")
    python: str | None = Field(default=None, description="Interpreter on the device; default: Termux's, or python3")
    benchmark_model: File | None = Field(
        default=None, description="TFLite's benchmark_model for the device, a file on this machine"
    )
    patience_s: float = Field(
        default=4.0, gt=0, le=3600, description="Seconds without a sign of life after which the device counts as lost"
    )

    @field_validator("host")
    @classmethod
    def _only_a_host(cls, host: str | None) -> str | None:
        return bare_host(host)

    def missing_files(self) -> Iterator[Problem]:
        yield from missing_file("key", self.key)
        yield from missing_file("benchmark_model", self.benchmark_model)

    def problems(self) -> Iterator[Problem]:
        if self.benchmark_model is None:
            yield from benchmark_model_targets(self, "it takes TFLite's program: name the file with `benchmark_model:`")

    @model_validator(mode="after")
    def _addressed(self) -> ADBDevice:
        if (self.host is None) == (self.serial is None):
            raise ValueError("give either host (TCP) or serial (USB)")
        return self

    def shell_command(self, command: str) -> str:
        return f"{shlex.join(['adb', '-s', self.serial or f'{self.host}:{self.port}'])} shell {command}"

    @property
    def address(self) -> str:
        return f"USB {self.serial}" if self.serial else f"{self.host}:{self.port}"

    @property
    def default_runtime(self) -> str:
        return "benchmark_model" if self.benchmark_model else "tflite"
