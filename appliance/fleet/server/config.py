"""One YAML file becomes one frozen ``ServerConfig``; every fault is told with its line and key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from appliance.config.plain import read_plain
from appliance.config.values import HttpsUrl, ListenAddress, Port, Section, is_loopback
from appliance.errors import ConfigError
from appliance.fleet.device.identity import Broker

#: A host name, or an IP address, as certificates have it.
ServerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$")]


class BrokerConfig(Section):
    """mosquitto, which the server starts and watches as a child of its own."""

    host: ListenAddress = Field(default="127.0.0.1", description="Where it listens; 0.0.0.0 for boxes elsewhere")
    port: Port = Field(default=8883, description="MQTT over TLS")
    websocket_port: Port | None = Field(default=None, description="The same through WebSocket over TLS")
    max_connections: int = Field(default=20_000, ge=10, description="Boxes at once")


class HttpsConfig(Section):
    """Where boxes enrol and renew their certificates."""

    host: ListenAddress = "127.0.0.1"
    port: Port = 8443


class ConsoleConfig(Section):
    """The pages for people, at an address of their own: boxes never ask it, and a firewall can tell the two apart."""

    host: ListenAddress = "127.0.0.1"
    port: Port = 8444


class DevCaConfig(Section):
    """The CA of our own, in the folder: for development and demonstrations."""

    kind: Literal["development"] = "development"


class StepCaConfig(Section):
    """An installation of step-ca; it issues for the server too, so both files below are needed."""

    kind: Literal["step"]
    url: HttpsUrl
    root_path: Path
    provisioner: str = Field(min_length=1)
    provisioner_key_path: Path = Field(description="Private JWK of the provisioner, decrypted, mode 600")
    certificate_path: Path = Field(description="Certificate of this server with its chain, for the names above, PEM")
    key_path: Path


class EnrolConfig(Section):
    """How boxes come in, and how long their certificates hold."""

    token_minutes: int = Field(default=15, ge=1, le=1440)
    certificate_days: int = Field(default=90, ge=1, le=825)
    grace_days: int = Field(default=30, ge=0, le=365, description="So long after its end a box may still renew")


class KeepConfig(Section):
    """How long what boxes said is kept. The audit is kept for good."""

    records_days: int = Field(default=90, ge=7, le=3650, description="Every record of a box, and what was refused")
    health_days: int = Field(default=14, ge=2, le=400, description="Health, each five minutes")
    health_hours_days: int = Field(default=730, ge=2, le=3650, description="Its means of each hour after that")
    results_days: int = Field(default=800, ge=30, le=3650, description="Results of each hour")
    uploads_days: int = Field(default=30, ge=1, le=400, description="Logs that boxes brought")

    @model_validator(mode="after")
    def _cross_checks(self) -> KeepConfig:
        if self.health_hours_days < self.health_days:
            msg = "health_hours_days: the means are of what health_days no longer keeps; make it the longer one"
            raise ValueError(msg)
        return self


class ModelsConfig(Section):
    """Models that boxes fetch, at the address where they enrol."""

    trusted_keys: tuple[Path, ...] = Field(
        default=(), max_length=16, description="Public keys of who makes packages, PEM; 'model add' takes no others"
    )
    max_downloads: int = Field(
        default=64, ge=1, le=200, description="At once, half of them to one address; others are told to come again"
    )
    max_mbit_s: float | None = Field(default=None, gt=0, description="Of all downloads together; absent: no bound")


class ServerConfig(Section):
    """Everything that a fleet server is told."""

    folder: Path = Field(default=Path("/var/lib/scanside-fleet"), description="Everything that it keeps lies below")
    names: tuple[ServerName, ...] = Field(
        default=("localhost", "127.0.0.1"),
        min_length=1,
        max_length=20,
        description="Names and addresses of this machine as boxes reach it; the first is the one that they are told",
    )
    database: str = Field(default="", description="Empty: SQLite in the folder; else postgresql+psycopg://...")
    broker: BrokerConfig = BrokerConfig()
    brokers: tuple[Broker, ...] = Field(
        default=(), max_length=8, description="What boxes are told instead, in the order in which they try"
    )
    https: HttpsConfig = HttpsConfig()
    console: ConsoleConfig = ConsoleConfig()
    metrics_port: Port | None = Field(default=None, description="Prometheus, on this machine alone")
    ca: Annotated[DevCaConfig | StepCaConfig, Field(discriminator="kind")] = DevCaConfig()
    enrol: EnrolConfig = EnrolConfig()
    keep: KeepConfig = KeepConfig()
    models: ModelsConfig = ModelsConfig()
    release_threshold: int = Field(
        default=1, ge=1, le=8, description="How many release keys must sign a change of models, besides the server's"
    )

    @model_validator(mode="after")
    def _cross_checks(self) -> ServerConfig:
        is_open = not (is_loopback(self.broker.host) and is_loopback(self.https.host))
        if is_open and all(is_loopback(name) for name in self.names):
            msg = "names: boxes elsewhere cannot reach 'localhost'; put the name of this machine first"
            raise ValueError(msg)
        return self

    @property
    def database_path(self) -> Path | None:
        """The file of SQLite; None for PostgreSQL."""
        return None if self.database else self.folder.absolute() / "fleet.db"

    @property
    def database_url(self) -> str:
        """For ``db.open_engine``."""
        return self.database or f"sqlite:///{self.database_path}"


def load_server_config(path: Path) -> ServerConfig:
    """Read and check a file.

    Raises:
        ConfigError: Naming each fault with file, line and key.
    """
    try:
        data, lines = read_plain(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; name a file with --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no text in UTF-8; is this the right file?") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        return ServerConfig.model_validate(data or {})
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            loc = tuple(part for part in fault["loc"] if part not in ("development", "step"))
            known = next((loc[:n] for n in range(len(loc), 0, -1) if loc[:n] in lines), ())
            key = ".".join(str(part) for part in loc) or "the file"
            hint = "; remove it or see config/fleet-server.yaml" if fault["type"] == "extra_forbidden" else ""
            told = fault["msg"].removeprefix("Value error, ")
            faults.append(f"{path}: line {lines.get(known, 1)}: {key}: {told}{hint}")
        raise ConfigError("\n".join(faults)) from error
