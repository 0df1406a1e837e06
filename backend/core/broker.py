"""Keeps a worker alive when its Redis broker dies under it.

kombu 5.7, Redis transport: a channel that is closed after its connection is gone tries to give unacknowledged messages back,
finds no connection parameters, and the AttributeError ends the worker. Said as a lost connection instead, it is passed over
(`Connection.maybe_close_channel`) and the worker connects again. The messages stay with the broker; claims and sweeps send what
they stood for before the visibility timeout does.
"""

from typing import Any

from kombu.transport import redis as transport
from redis.exceptions import ConnectionError as ConnectionLost


class ForgivingQoS(transport.QoS):
    """The transport's bookkeeping of unacknowledged messages."""

    def restore_unacked(self, client: Any = None) -> None:
        if self.channel.connection is None or self.channel.connection.client is None:
            raise ConnectionLost("the broker's connection is gone; its unacknowledged messages stay there")
        super().restore_unacked(client)


def install() -> None:
    """For every channel that this process opens from now on."""
    transport.Channel.QoS = ForgivingQoS
