"""Sends as a producer, Beat's relay and an operator do, in a process of its own: signing counts for a whole process.

Arguments: a mark for an ordinary task, and the id of a run of `leave_a_mark`. Prints how many workers answer a ping.
"""

import sys
from uuid import UUID

from backend.celery_app import app
from backend.scheduling.publisher import Message, Publisher


def main(mark: str, run: str) -> None:
    app.send_task("leave_a_mark", kwargs={"name": mark}, queue="default", ignore_result=True)
    publisher = Publisher(app)
    confirmed = publisher.publish([Message(UUID(run), "leave_a_mark", "default")])
    publisher.close()
    sys.stdout.write(f"confirmed {len(confirmed)}, pong {len(app.control.ping(timeout=10, limit=1) or [])}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
