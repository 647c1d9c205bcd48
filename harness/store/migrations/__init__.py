"""Migrations of the store's schema, by Alembic, for SQLite and for PostgreSQL.

A new store is made from `schema.py` as it is today, and an older one runs the revisions in `versions` that it lacks.
Revisions are numbered; the number is also in the header of an SQLite file (`PRAGMA user_version`), where it can be read
without Alembic. Stores before revision 5 have their number only there.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, text

from latlab.harness.store.schema import ALSO_IN_INDEX, SCHEMA_VERSION, Base

__all__ = ["create", "upgrade"]

_FIRST = 3
"""The first revision: it has what versions 1 to 3 had."""
_FOLDER = Path(__file__).parent


def create(connection: Connection) -> None:
    """Make all tables of a new store, and note their revision. The caller commits."""
    if connection.dialect.name == "postgresql":
        for table in Base.metadata.tables.values():
            for index in table.indexes:
                also = ALSO_IN_INDEX.get(str(index.name))
                if also:
                    index.dialect_kwargs["postgresql_include"] = list(also)
    Base.metadata.create_all(connection)
    _note(connection, SCHEMA_VERSION)


def upgrade(connection: Connection, version: int) -> None:
    """Bring an older store up to date. The caller holds the store's lock, and commits all of it or nothing.

    Args:
        connection: in a transaction.
        version: the store's version.
    """
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    _note(connection, version)
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    context = EnvironmentContext(
        config, scripts, fn=lambda revision, _: scripts._upgrade_revs("head", revision), destination_rev="head"
    )
    with context:
        context.configure(connection=connection, target_metadata=Base.metadata)
        context.run_migrations()
    _mark(connection)


def _note(connection: Connection, version: int) -> None:
    """Write a store's revision where Alembic looks for it, and the newest one into the header of a file."""
    connection.execute(
        text(
            "CREATE TABLE IF NOT EXISTS alembic_version "
            "(version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("DELETE FROM alembic_version"))
    if version > _FIRST:  # the first revision adds what any of the first versions lacks
        connection.execute(text("INSERT INTO alembic_version VALUES (:version)"), {"version": f"{version:04}"})
    if version == SCHEMA_VERSION:
        _mark(connection)


def _mark(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")
