"""What an operator asks of a running client from outside (`castile.endpoint.commands`), and what of
it takes the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from castile.endpoint import commands
from castile.endpoint.commands import Done
from castile.endpoint.party import reliability_log
from castile.endpoint.requests import farewell, give_up, source_record
from castile.errors import CastileError, UsageError
from castile.store import Transaction
from castile.store.records import Command
from castile.waiting import blocking

if TYPE_CHECKING:
    from castile.pump import Pump


def attend(pump: Pump) -> None:
    """Carry out what was asked about sequences and contexts of this process."""

    def own(tx: Transaction) -> list[Command]:
        asked = tx.commands(pump.party.side, pump.party.realm)
        return [each for each in asked if commands.target(tx, each) == tx.owner]

    with pump.siblings.obeying:
        while asked := pump.run(own):  # one may lead to another
            for command in asked:
                _obey(pump, command)


def _obey(pump: Pump, command: Command) -> None:
    try:
        text, refused = _carried_out(pump, command), False
    except CastileError as error:
        text, refused = str(error), True
    reliability_log.warning(
        "%s of %s %s, asked by %s: %s",
        *(command.verb, command.kind, command.target, command.asked_by, text),
    )
    utc = pump.now().utc
    pump.run(lambda tx: tx.carried_out(command.id, utc, text, refused=refused))


def _carried_out(pump: Pump, command: Command) -> str:
    match command.kind, command.verb:
        case "context", "renew":
            state = blocking(pump.conversations.renew(command.target))
            return f"renewed: instance {state.current.instance}"
        case "context", _:
            blocking(cancel_context(pump, command.target, force=command.force))
            return "cancelled"
        case _, "close":
            record = pump.run(lambda tx: source_record(tx, command.target))
            if record.state.ended:
                raise UsageError("it has ended already")
            pump.retire(command.target)
            return "it takes nothing new, and is closed once what is in it is done"
        case _, commands.FAREWELL:
            now = pump.now()
            pump.run(lambda tx: farewell(pump.party, tx, command.target, now))
            pump.siblings.wake()
            return "the peer is told, once"
    done: Done = pump.run(lambda tx: commands.carry_out(tx, command, pump.now()))
    if done.failed is not None:
        pump.tell_failed(done.failed)
    return done.text


async def cancel_context(pump: Pump, identifier: str, *, force: bool) -> None:
    """Give a context back; with sequences bound to it only by `force`: they fail (CO-17)."""
    party = pump.party
    sources = await pump.commit(lambda tx: tx.sources(side=party.side, endpoint=party.realm, unfinished=True))
    bound = [record for record in sources if record.state.context == identifier]
    if bound and not force:
        raise UsageError(
            f"{len(bound)} sequences are bound to this security context: close them first, or "
            "cancel(force=True), which makes them fail"
        )
    state = pump.conversations.state_of(identifier)
    if state is None:
        return
    await pump.conversations.cancel(state)
    for record in bound:
        now, key = pump.now(), record.state.key
        reason = "the security context was cancelled"
        pump.tell_failed(await pump.commit(lambda tx: give_up(tx, key, reason, now)))  # noqa: B023 - it runs here
