"""A store in a database of a PostgreSQL server: many controllers read and write it at once.

Each controller is registered while it writes, and says every few seconds that it is still there. A network that it
measures is claimed by it (`claims`). While it writes, it waits for a server that is away, and goes on when that is
back.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from latlab.harness.errors import LatlabError
from latlab.harness.store.claims import GRACE_S
from latlab.harness.store.errors import StoreError, StoreWarning
from latlab.harness.store.migrations import create, upgrade
from latlab.harness.store.place import ServerPlace
from latlab.harness.store.postgresql_dialect import SCHEMA
from latlab.harness.store.schema import SCHEMA_VERSION, Base
from latlab.harness.store.server_errors import ClashError, ServerGoneError, driver_errors, explained_server, url_of

__all__ = ["SEEN_EVERY_S", "StoreServer", "engine_of_server"]

T = TypeVar("T")
CONNECTIONS = 8
"""Most connections of one controller: so many commits can share one wait for the server's disk."""
CONNECT_S = 10
"""Seconds to wait for a connection."""
WAIT_S = 900.0
"""Seconds for which a controller waits for a server that is away."""
STEPS_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between two tries; the last value repeats."""
MOST_CLASHES = 20
"""Most times that a transaction is tried again because another controller has written the same."""
SEEN_EVERY_S = 5.0
"""Seconds between two times that a controller says that it is still there."""
_LOCK = 0x6C61746C
"""The number of the lock under which a store's tables are made or updated."""


class StoreServer:
    """A store in a database, whose tables the first write makes if there are none.

    Args:
        place: the database.
        must_exist: raise `StoreError` if there is no store in it.

    Raises:
        StoreError: if the database cannot be used, or has no store where it must.
    """

    is_shared = True

    def __init__(self, place: ServerPlace, *, must_exist: bool = False) -> None:
        self.path = place
        self.controller: str | None = None
        """Id of this controller while it writes; None before and after."""
        self.times_opened = 1
        self._engine, self._secrets = engine_of_server(place)
        self._lock = threading.Lock()
        self._version: int | None = None
        self._writers = 0
        self._joining = threading.Lock()
        self._heart: threading.Thread | None = None
        self._end = threading.Event()
        self._is_waiting = False
        with self._explained():
            found = self._find_version()
        if found is None and must_exist:
            self.close()
            raise StoreError(
                f"there is no store in the database {place}", "Measure something first, or name another store."
            )

    def exists(self) -> bool:
        """Return whether the database has a store."""
        with self._explained():
            return self._version is not None or self._find_version() is not None

    def size_bytes(self) -> int:
        """Return the bytes of the store's tables and indices; 0 if there is no store."""
        with self._explained(), self._engine.connect() as connection:
            return _size(connection)

    def close(self) -> None:
        """Close the connections."""
        self._end.set()
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection to read with. A database without a store reads as an empty store."""
        with self._explained():
            if self._version is None and self._find_version() is None:
                with _empty() as connection:
                    yield connection
                return
            if self._version is None:
                raise StoreError(
                    f"an older latlab has written the store {self.path}",
                    "Bring it up to date with the next command that writes, or with `latlab store compact`.",
                )
            with self._engine.connect() as connection:
                yield connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Open a transaction in plain SQL: committed at the end, undone by an exception."""
        with self._explained():
            self._prepare()
            with self._engine.begin() as connection:
                yield connection

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """Open a transaction in SQLAlchemy's objects."""
        with self._explained():
            self._prepare()
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                yield session

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be a controller of the store: others know that this one is there, and leave its networks to it."""
        with self._lock:
            self._writers += 1
            if self._writers == 1:
                self._end.clear()
        try:
            with self._joining:
                if self.controller is None:
                    controller = uuid.uuid4().hex
                    self.retry(lambda: self._say_hello(controller))
                    self.controller = controller
                    self._heart = threading.Thread(target=self._stay, args=(controller,), name="store", daemon=True)
                    self._heart.start()
            yield
        finally:
            with self._joining:
                with self._lock:
                    self._writers -= 1
                    is_last = not self._writers
                if is_last and self.controller is not None and self._heart is not None:
                    self._end.set()
                    self._heart.join()  # it would say once more that this controller is there
                    controller, self.controller = self.controller, None
                    with contextlib.suppress(LatlabError), self.transaction() as connection:
                        connection.execute(text("DELETE FROM controllers WHERE id = :id"), {"id": controller})

    def has_controllers(self) -> bool:
        """Return whether somebody measures into the store."""
        with self.reading() as connection:
            found = connection.execute(
                text("SELECT count(*) FROM controllers WHERE seen_at > now() - make_interval(secs => :grace)"),
                {"grace": GRACE_S},
            )
            return bool(found.scalar_one())

    @contextlib.contextmanager
    def one_moment(self) -> Iterator[Connection]:
        """Open a connection that reads what is in the store at one moment, whatever is written meanwhile."""
        with self._explained(), self._engine.connect() as connection:
            options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
            yield connection.execution_options(**options)

    @contextlib.contextmanager
    def replaced(self) -> Iterator[Connection]:
        """Open a transaction in new and empty tables, which take the place of the store's at its end.

        Raises:
            LatlabError: somebody measures into the store.
        """
        with self._explained(), self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            if _version(connection) is not None and self.has_controllers():
                raise LatlabError(
                    f"the store {self.path} is being written by another latlab",
                    "Wait for it to end, or use another store.",
                )
            connection.execute(text(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"))
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
            create(connection)
            yield connection
        self._find_version()

    def vacuum(self, *, shrink: bool) -> None:
        """Have the server count its rows, so that it chooses its indices well.

        Args:
            shrink: give the space of removed rows back to the disk, too, for which each table is written again.
        """
        steps = ["VACUUM (FULL)", "VACUUM (ANALYZE)"] if shrink else ["VACUUM (ANALYZE)"]
        with self._explained():
            self._prepare()
        with self._explained(), self._engine.connect() as connection:
            free = connection.execution_options(isolation_level="AUTOCOMMIT")
            for step in steps:
                for name in Base.metadata.tables:
                    free.execute(text(f"{step} {name}"))

    def fold(self) -> None:
        """Do nothing: a commit is in the database."""

    def retry(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; it is called again after a clash and, while this is a controller, once the
        server is back.

        Args:
            work: what may be done again after a transaction in it was committed or undone, nobody knows which.

        Raises:
            StoreError: if the server does not come back.
        """
        clashes = tries = 0
        until = time.monotonic() + WAIT_S
        while True:
            try:
                found = work()
            except ClashError:
                clashes += 1
                if clashes > MOST_CLASHES:
                    raise
                time.sleep(0.01 * clashes)
            except ServerGoneError as error:
                tries += 1
                # Somebody who only asks tries once more: a connection from before a restart may have been left.
                if time.monotonic() > until or (not self._writers and tries > 1):
                    raise
                if not self._writers:
                    continue
                self._say_that_it_waits(error)
                if self._end.wait(STEPS_S[min(tries, len(STEPS_S)) - 1]):
                    raise
            else:
                self._is_waiting = False
                return found

    def _say_that_it_waits(self, error: ServerGoneError) -> None:
        with self._lock:
            is_known, self._is_waiting = self._is_waiting, True
        if not is_known:
            warnings.warn(
                f"{error.message}; waiting for it up to {WAIT_S / 60:.0f} minutes. Nothing is lost.",
                StoreWarning,
                stacklevel=4,
            )

    def _explained(self) -> contextlib.AbstractContextManager[None]:
        return explained_server(self.path, self._secrets)

    def _find_version(self) -> int | None:
        """Return the version of the store's schema, or None if the database has no store."""
        with self._engine.connect() as connection:
            version = _version(connection)
        if version is not None and version > SCHEMA_VERSION:
            raise StoreError(f"{self.path} was written by a newer latlab (schema {version})", "Update latlab.")
        if version == SCHEMA_VERSION:
            self._version = version
        return version

    def _prepare(self) -> None:
        """Make the store's tables if there are none, or bring older ones up to date: whole or not at all."""
        if self._version is not None:
            return
        engine, _ = engine_of_server(self.path, plain=True)
        try:
            with engine.begin() as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                version = _version(connection)
                if version is None:
                    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
                    create(connection)
                elif version < SCHEMA_VERSION:
                    upgrade(connection, version)
        finally:
            engine.dispose()
        self._find_version()

    def _say_hello(self, controller: str) -> None:
        with self.transaction() as connection:
            connection.execute(
                text("DELETE FROM controllers WHERE seen_at < now() - interval '1 day'"),
            )
            connection.execute(
                text(
                    "INSERT INTO controllers (id, who, seen_at) VALUES (:id, :who, now()) "
                    "ON CONFLICT (id) DO UPDATE SET seen_at = now()"
                ),
                {"id": controller, "who": f"process {os.getpid()} on {socket.gethostname()}"},
            )

    def _stay(self, controller: str) -> None:
        """Say every few seconds that this controller is still there."""
        while not self._end.wait(SEEN_EVERY_S):
            with contextlib.suppress(LatlabError):  # who measures finds out, and waits
                self._say_hello(controller)


def engine_of_server(place: ServerPlace, *, plain: bool = False) -> tuple[Engine, tuple[str, ...]]:
    """Return connections to a database, and what of its address is secret.

    Args:
        place: the database.
        plain: give values as SQLAlchemy expects them that looks at the schema, and not as SQLite gives them.

    Raises:
        StoreError: if psycopg is not installed, or the address is none.
    """
    driver_errors()
    url = url_of(place)
    given = url.query.get("options", "")
    options = f"{given if isinstance(given, str) else ' '.join(given)} -c search_path={SCHEMA}".strip()
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=4 * CONNECT_S,
        hide_parameters=True,
        connect_args={
            "options": options,
            "connect_timeout": CONNECT_S,
            "application_name": "latlab",
            # A server or a network that is gone is noticed within half a minute.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        },
    )
    if not plain:
        event.listen(engine, "connect", _read_as_from_sqlite)
    secrets = [url.password, *(value for name, value in url.query.items() if "password" in name)]
    return engine, tuple(str(one) for one in secrets if one)


def _read_as_from_sqlite(driver: Any, _: object) -> None:
    """Have a connection give the values that one to SQLite gives: JSON and arrays of samples as JSON text."""
    from psycopg.adapt import Loader
    from psycopg.types.string import StrDumperUnknown, TextLoader

    class Samples(Loader):  # type: ignore[misc]
        def load(self, data: Any) -> str:
            return f"[{bytes(data)[1:-1].decode().replace(',', ', ')}]"

    class Text(StrDumperUnknown):  # type: ignore[misc]
        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\ufffd"))  # PostgreSQL's texts cannot hold it

    driver.adapters.register_loader("json", TextLoader)
    driver.adapters.register_loader(driver.adapters.types["int8"].array_oid, Samples)
    driver.adapters.register_dumper(str, Text)


def _version(connection: Connection) -> int | None:
    there = connection.execute(
        text("SELECT to_regclass(:name) IS NOT NULL"), {"name": f"{SCHEMA}.alembic_version"}
    ).scalar_one()
    if not there:
        return None
    return int(connection.execute(text(f"SELECT version_num FROM {SCHEMA}.alembic_version")).scalar_one())


def _size(connection: Connection) -> int:
    query = (
        "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0) FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :name AND c.relkind = 'r'"
    )
    return int(connection.execute(text(query), {"name": SCHEMA}).scalar_one())


@contextlib.contextmanager
def _empty() -> Iterator[Connection]:
    """Open a connection to an empty store in memory."""
    from latlab.harness.store.reading import empty_engine

    engine = empty_engine()
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
