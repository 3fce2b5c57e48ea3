"""What analyses: the packages that run, their deadlines, and what runs their graphs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from appliance.config.site import TechnologistDetail
from appliance.config.tls import ClientTls
from appliance.config.values import Name, Section, SocketAddress
from appliance.records import Role


class PackageChoice(Section):
    """A package that runs on this box."""

    name: Name
    role: Role = Role.SILENT
    operating_points: dict[str, str] = Field(default={}, description="finding id: operating point of the package")
    technologist_detail: TechnologistDetail | None = Field(
        default=None, description="What technologists are told of its findings; the site's where it is absent"
    )


class Triage(Section):
    """Deadlines from READY and the worker."""

    xray_deadline_s: float = Field(default=30.0, gt=0)
    ct_deadline_s: float = Field(default=180.0, gt=0)
    worker_threads: int = Field(default=0, ge=0, description="Threads of one inference; 0 = all cores")
    spawn_worker: bool = Field(default=True, description="False where systemd runs the worker as its own unit")


class Engines(Section):
    """What runs the packages' graphs. An engine is built here and proven against ONNX Runtime before it serves."""

    backend: Literal["onnxruntime", "tensorrt", "tensorrt_rtx"] = Field(
        default="onnxruntime", description="onnxruntime needs no GPU; tensorrt_rtx is for x86 only"
    )
    precision: Literal["fp32", "fp16", "int8"] = Field(
        default="fp32", description="Of packages that offer it; others run in fp32"
    )
    build_limit_s: float = Field(default=1800.0, gt=0, le=86400, description="A build that takes longer is ended")
    build_memory_mb: int = Field(default=8192, ge=512, description="Address space of the child that builds")
    keep: int = Field(default=2, ge=1, description="Accepted engines kept of each package")


class KServe(Section):
    """A KServe v2 server (Triton) of the site that runs graphs for the box. Tensors alone are sent: pixels, no header.

    Whatever the server does wrong, the box computes by itself and says so.
    """

    address: SocketAddress = Field(description="IP address and port; the one address that the worker may reach")
    packages: tuple[Name, ...] = Field(default=(), description="Which packages run there; empty = all")
    timeout_s: float = Field(default=10.0, gt=0, le=600, description="Of one run, also where the study has more left")
    tls: ClientTls | None = None
