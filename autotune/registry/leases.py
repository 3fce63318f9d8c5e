"""Leases: one holder at a time, whatever becomes of the one before."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, select

from autotune.errors import MachineBusyError
from autotune.registry import lease_rows
from autotune.registry.tables import LeaseRow
from autotune.registry.transactions import Transactions
from autotune.spec import Lease


class Leases(Transactions):
    """The part of the registry that knows who holds what."""

    def acquire_lease(
        self,
        name: str,
        *,
        holder: str,
        purpose: str,
        process: str = "",
        is_gone: Callable[[str], bool] = lambda _: False,
    ) -> Lease:
        """Take a lease that is free: never taken, let go, expired, or of a process that is known to be gone.

        Args:
            name: What is to be held.
            holder: Who holds it, for people.
            purpose: What for.
            process: Which process holds it, as `autotune.processes.identity` says.
            is_gone: Tells whether such a process has ended.

        Raises:
            MachineBusyError: Somebody else holds it; the message names the holder.
        """

        def work(connection: Connection) -> Lease:
            lease_rows.make_sure_of(connection, name)
            row = lease_rows.locked(connection, name)
            now = lease_rows.now_us(connection)
            mine = row is not None and bool(process) and row.process == process
            running = row is not None and lease_rows.is_running(connection, row, now)
            if row is not None and running and not mine and not is_gone(row.process):
                held = lease_rows.as_lease(row, now)
                raise MachineBusyError(
                    f"{name} is held by {held.holder} ({held.purpose}), at least until "
                    f"{held.expires_at:%Y-%m-%d %H:%M:%S} UTC; wait for it or stop it"
                )
            return lease_rows.take(connection, name, holder=holder, process=process, purpose=purpose)

        return self._write(work)

    def renew_lease(self, lease: Lease) -> Lease:
        """Have a lease end later.

        Raises:
            LeaseLostError: It has expired or changed hands.
        """
        return self._write(lambda connection: lease_rows.renew(connection, lease))

    def release_lease(self, lease: Lease) -> None:
        """Let a lease go; one that was lost is left alone."""
        self._write(lambda connection: lease_rows.release(connection, lease))

    def leases(self) -> list[Lease]:
        """Give the leases that are held now, by name."""

        def work(connection: Connection) -> list[Lease]:
            now = lease_rows.now_us(connection)
            rows = connection.execute(select(LeaseRow.__table__).order_by(LeaseRow.name)).all()
            return [lease_rows.as_lease(row, now) for row in rows if lease_rows.is_running(connection, row, now)]

        return self._read(work)
