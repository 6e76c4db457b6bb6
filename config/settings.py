"""Every setting of venue-mirror, typed, in one model.

Order of precedence: command-line overrides, environment (``VENUE_MIRROR_COLLECTOR__KEYFRAME_MAX_S=30``), the TOML file
named by ``--config`` or ``VENUE_MIRROR_CONFIG``, defaults. Passwords are read from files (``*_file``) only.
All errors are reported at once.
"""

from __future__ import annotations

import os
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from config.chains import ChainSettings
from config.redact import problem

Channel = Literal["book", "trade", "ticker", "funding", "mark_price", "open_interest", "liquidation"]

DerivedKind = Literal["depth", "microstructure", "bar", "cross"]


class ConfigError(Exception):
    """The settings do not hold; the text lists every problem, one a line."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Section):
    """How to reach Kafka."""

    bootstrap_servers: str = Field(
        "", description="host:port,…; empty: KAFKA_BOOTSTRAP_SERVERS, else the embedded broker"
    )
    security_protocol: str = Field("PLAINTEXT", pattern="^(PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)$")
    sasl_mechanism: str = Field("", pattern="^(|PLAIN|SCRAM-SHA-256|SCRAM-SHA-512)$")
    sasl_username: str = ""
    sasl_password_file: Path | None = None
    ssl_ca_file: Path | None = None
    ssl_certificate_file: Path | None = None
    ssl_key_file: Path | None = None
    replication_factor: int = Field(1, ge=1, le=9)
    linger_ms: float = Field(
        5, ge=0, le=1000, description="how long market data waits for company on its way to Kafka; orders never wait"
    )
    fetch_min_bytes: int = Field(
        1, ge=1, le=16_777_216,
        description="strategies and execution wait up to 100 ms for so much; 1: for nothing, more spares the brokers work",
    )  # fmt: skip
    market_partitions: int = Field(12, ge=1, le=4096, description="partitions of every topic keyed by venue|symbol")


class BrokerSettings(_Section):
    """The embedded broker: one Apache Kafka in KRaft mode."""

    data_dir: Path = Field(Path(".venue-mirror/kafka"), description="log segments, configuration, pid file")
    port: int = Field(19092, ge=1, le=65535)
    heap_mb: int = Field(512, ge=128, le=65536)
    start_timeout_s: float = Field(60, gt=0)


class SelectSettings(_Section):
    """Which instruments of a venue become workers; all rules must hold. A change takes effect without a restart."""

    quotes: tuple[str, ...] = Field((), description="only with these quote currencies")
    bases: tuple[str, ...] = Field((), description="only with these base currencies")
    kinds: tuple[Literal["SPOT", "PERPETUAL", "FUTURE", "OPTION"], ...] = Field((), description="only of these kinds")
    allow: tuple[str, ...] = Field((), description="only symbols like these: BTC/*, */USDT:USDT")
    deny: tuple[str, ...] = Field((), description="no symbols like these")
    min_volume: str = Field("", pattern=r"^(|[0-9]+(\.[0-9]+)?)$", description="least 24-hour volume, in quote units")
    top: int = Field(0, ge=0, description="only so many, by 24-hour volume; 0: all")


class VenueSettings(_Section):
    """One venue to collect. ``adapter`` names the file in collectors/cex; the rest overrides its defaults."""

    adapter: str = Field("", description="adapter id, e.g. binance-usdm; empty: the venue's own name")
    rest_url: str = Field("", description="empty: the venue's public endpoint")
    ws_url: str = Field("", description="empty: the venue's public endpoint")
    symbols: tuple[str, ...] = Field((), description="unified symbols to collect; empty: all that trade")
    select: SelectSettings = SelectSettings()  # pyright: ignore[reportCallIssue]
    channels: tuple[Channel, ...] = Field(
        ("book", "trade", "funding", "mark_price", "open_interest", "liquidation"),
        description="what to collect, of what the venue has; ticker is its own best bid and offer, beside the book",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="ccxt's own options, for a venue that ccxt.pro streams"
    )
    rest_weight_per_minute: int = Field(
        0, ge=0, description="weight of REST calls a minute; 0: the adapter's own limit"
    )


class CollectorSettings(_Section):
    """Shared by all collectors."""

    discovery_s: float = Field(60, gt=0, description="seconds between two loads of a venue's instruments")
    keyframe_max_s: float = Field(60, gt=0, description="a key frame for each LIVE book at least this often")
    keyframe_min_s: float = Field(5, gt=0, description="and never more often than this")
    keyframe_share: float = Field(
        0.05, gt=0, le=1, description="share of an instrument's levels sent that key frames may add"
    )
    keyframe_events: int = Field(
        0, ge=0, description="exactly every N events instead of by time; 0: by time (replay sets it)"
    )
    stale_s: float = Field(60, gt=0, description="silence after which a book is STALE and resynchronised")
    stale_connection_s: float = Field(30, gt=0, description="silence of a whole connection after which it is replaced")
    lag_max_s: float = Field(
        3.0, ge=0,
        description="a connection whose newest change is older by the venue's clock than it was at best, by more than this, "
        "is behind: its books are LAGGING; 0: never",
    )
    pending_max: int = Field(20_000, ge=100, description="events buffered for one book that waits for its snapshot")
    audit_s: float = Field(
        10, ge=0, description="seconds between two audits: a random LIVE book against a fresh REST one; 0: none"
    )
    beat_s: float = Field(
        1.0, ge=0.1, le=60,
        description="a partition in which nothing was written for so long gets a heartbeat: a delta without levels",
    )
    queue_max: int = Field(200_000, ge=1000, description="records that wait for Kafka before books go to GAP")
    session_timeout_ms: int = Field(6000, ge=1000, description="after this a dead collector's instruments move")
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(0, ge=0, le=65535, description="0: any free port, written to the log")


class ProcessorSettings(_Section):
    """The Faust app."""

    app_id: str = "venue-mirror-processor"
    web_host: str = Field("127.0.0.1", description="another address needs web_token_file, or web_open")
    web_port: int = Field(6066, ge=1, le=65535)
    web_token_file: Path | None = Field(
        None, description="file with the token that who asks the views must send; the same for all workers and their clients"
    )
    web_open: bool = Field(
        False, description="no token although others reach web_host: something in front of the views asks who is there"
    )
    web_rate_per_s: float = Field(
        500, ge=0, description="requests a second from one client address, twice as many at once; more get 429; 0: no limit"
    )
    data_dir: Path = Path(".venue-mirror/faust")
    checkpoint_s: float = Field(1.0, gt=0, description="seconds between two checkpoints of one book, and two commits")
    checkpoint_share: float = Field(0.15, gt=0, le=1, description="share of the process that checkpoints may take")
    session_timeout_s: float = Field(6.0, ge=1, description="after this a dead worker's partitions move")
    standby_replicas: int = Field(
        0, ge=0, le=3, description="workers beside the owner that keep each partition's checkpoints in memory"
    )
    lag_max_s: float = Field(
        2.0, gt=0, description="a partition whose newest processed event is older, with more waiting, is LAGGING"
    )
    beat_max_s: float = Field(
        5.0, gt=0,
        description="books whose collector has written nothing into their partition for longer are LAGGING; "
        "a few times collector.beat_s",
    )
    silence_max_s: float = Field(
        90.0, gt=0,
        description="a LIVE book of which no collector has said anything for longer is STALE; above collector.keyframe_max_s",
    )
    derived: tuple[DerivedKind, ...] = Field(
        ("depth", "microstructure", "bar", "cross"), description="what to derive besides derived.bbo"
    )
    depth_levels: int = Field(25, ge=1, le=1000, description="levels a side in derived.depth")
    bbo_every_event: bool = Field(
        False, description="a BBO record for every event, not only the newest of a batch (replay)"
    )
    proofs: bool = Field(False, description="write derived.proof at each key frame (replay)")


class ExecutionSettings(_Section):
    """The executor's own page. What it trades, and with which accounts, stands in a file of its own (docs/TRADING.md)."""

    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(0, ge=0, le=65535, description="0: any free port, written to the log")


class ConsoleSettings(_Section):
    """The page that people look at."""

    web_host: str = Field("127.0.0.1", description="another address needs token_file")
    web_port: int = Field(6080, ge=0, le=65535, description="0: any free port, printed")
    token_file: Path | None = Field(None, description="file with the token that browsers must show; at least 16 characters")
    views_urls: tuple[str, ...] = Field((), description="processors to ask for books; empty: the one of [processor]")
    metrics_urls: tuple[str, ...] = Field((), description="pages of collectors to show as workers, ending in /metrics")
    interval_ms: int = Field(200, ge=50, le=10_000, description="between two frames to a browser")
    clients_max: int = Field(64, ge=1, le=10_000, description="browsers at the same time")


class HistorySettings(_Section):
    """The archive: every record of the log as Parquet files."""

    root: str = Field(
        ".venue-mirror/history", description="folder, or s3://bucket/prefix?endpoint_override=…; keys from AWS's variables"
    )
    topics: tuple[str, ...] = Field((), description="what to keep; empty: every topic that begins with market.")
    flush_s: float = Field(60, gt=0, description="a record is in a file at the latest so long after it was read")
    flush_rows: int = Field(100_000, ge=1, description="or as soon as so many records wait")
    flush_mb: int = Field(128, ge=1, description="or so many megabytes")
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(0, ge=0, le=65535, description="0: any free port, written to the log")


class TracingSettings(_Section):
    """OpenTelemetry traces that follow one update from the venue to the order."""

    endpoint: str = Field(
        "", pattern=r"^(|https?://.+)$", description="OTLP over HTTP, e.g. http://localhost:4318/v1/traces; empty: off"
    )
    share: float = Field(0.001, gt=0, le=1, description="of the venues' frames that begin a trace")

    @model_validator(mode="after")
    def _has_its_packages(self) -> TracingSettings:
        if self.endpoint and find_spec("opentelemetry") is None:
            raise ValueError("an endpoint is given, but OpenTelemetry is not installed: pip install 'venue-mirror[tracing]'")
        return self


class _TomlSource(PydanticBaseSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], data: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._data = data

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._data.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._data


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        env_prefix="VENUE_MIRROR_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kafka: KafkaSettings = KafkaSettings()  # pyright: ignore[reportCallIssue]
    broker: BrokerSettings = BrokerSettings()  # pyright: ignore[reportCallIssue]
    collector: CollectorSettings = CollectorSettings()  # pyright: ignore[reportCallIssue]
    processor: ProcessorSettings = ProcessorSettings()  # pyright: ignore[reportCallIssue]
    execution: ExecutionSettings = ExecutionSettings()  # pyright: ignore[reportCallIssue]
    console: ConsoleSettings = ConsoleSettings()  # pyright: ignore[reportCallIssue]
    history: HistorySettings = HistorySettings()  # pyright: ignore[reportCallIssue]
    tracing: TracingSettings = TracingSettings()  # pyright: ignore[reportCallIssue]
    venues: dict[str, VenueSettings] = Field(default_factory=dict)
    chains: dict[str, ChainSettings] = Field(default_factory=dict)

    def venue(self, name: str) -> VenueSettings:
        """The venue's settings; a venue that the file does not name gets the defaults of the adapter of its name."""
        own = self.venues.get(name) or VenueSettings()  # pyright: ignore[reportCallIssue]
        return own if own.adapter else own.model_copy(update={"adapter": name})


def load_settings(config: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings; raises ConfigError with every problem at once.

    ``overrides`` are nested dictionaries by section, e.g. ``broker={"port": 19100}``.
    """
    path = config or (Path(env) if (env := os.environ.get("VENUE_MIRROR_CONFIG")) else None)
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error

    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, _TomlSource(settings_cls, data)

    try:
        return FromFile(**overrides)
    except ValidationError as error:
        lines = [problem(dict(e), Settings) for e in error.errors()]
        raise ConfigError("the configuration does not hold:\n" + "\n".join(lines)) from None
    except SettingsError as error:
        # A section given as one variable is JSON; pydantic does not get to see it when it is not.
        raise ConfigError(
            f"the configuration does not hold:\n  {error} ({error.__cause__}); write VENUE_MIRROR_SECTION__NAME=value"
        ) from None
